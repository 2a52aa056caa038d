//! Cuts a stream of bytes into lines, however it was divided by reads. Never keeps more than one line of the
//! greatest length, never knows what a line means.

/// A line without its end.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Line<'a> {
    Whole(&'a [u8]),
    /// Longer than the limit: what of it was there when that showed. The rest of it is passed over.
    TooLong(&'a [u8]),
}

/// The beginning of a line whose end has not been read.
#[derive(Debug)]
pub(crate) struct Lines {
    limit: usize,
    kept: Vec<u8>,
    skipping: bool,
}

impl Lines {
    /// Lines of `limit` bytes at most, without their end.
    pub(crate) fn new(limit: usize) -> Self {
        Lines { limit, kept: Vec::new(), skipping: false }
    }

    /// Takes what was read, and tells every line that is now complete.
    pub(crate) fn feed(&mut self, mut bytes: &[u8], mut each: impl FnMut(Line<'_>)) {
        while let Some(end) = bytes.iter().position(|byte| *byte == b'\n') {
            let (head, tail) = bytes.split_at(end);
            bytes = tail.get(1..).unwrap_or_default();
            if std::mem::take(&mut self.skipping) {
                continue;
            }
            if self.kept.is_empty() {
                each(self.judge(head));
            } else if self.keep(head) {
                each(Line::Whole(&self.kept));
            } else {
                each(Line::TooLong(&self.kept));
            }
            self.kept.clear();
        }
        if !self.skipping && !self.keep(bytes) {
            each(Line::TooLong(&self.kept));
            self.skipping = true;
            self.kept.clear();
        }
    }

    /// The stream ends: what of a line was there, if its end was not. What comes next begins a line.
    pub(crate) fn cut(&mut self) -> Option<Vec<u8>> {
        let was_told = std::mem::take(&mut self.skipping);
        let kept = std::mem::take(&mut self.kept);
        (!was_told && !kept.is_empty()).then_some(kept)
    }

    fn judge<'a>(&self, line: &'a [u8]) -> Line<'a> {
        if line.len() > self.limit { Line::TooLong(line) } else { Line::Whole(line) }
    }

    /// `false` where the line becomes too long; then as much is kept as there is room for.
    fn keep(&mut self, bytes: &[u8]) -> bool {
        let room = self.limit - self.kept.len();
        self.kept.extend_from_slice(bytes.get(..room).unwrap_or(bytes));
        bytes.len() <= room
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(limit: usize, reads: &[&[u8]]) -> Vec<String> {
        let mut lines = Lines::new(limit);
        let mut found = Vec::new();
        for read in reads {
            lines.feed(read, |line| {
                found.push(match line {
                    Line::Whole(line) => String::from_utf8_lossy(line).into_owned(),
                    Line::TooLong(_) => "(too long)".to_owned(),
                });
            });
            assert!(lines.kept.len() <= limit);
        }
        found
    }

    #[test]
    fn dividing_the_reads_changes_nothing() {
        let text = b"one\n\ntwo two\r\n12345678\n123456789\nlast\n0123456789012\nafter\nopen";
        let whole = lines(8, &[text]);
        assert_eq!(whole, ["one", "", "two two\r", "12345678", "(too long)", "last", "(too long)", "after"]);
        for at in 0..text.len() {
            let (a, b) = text.split_at(at);
            assert_eq!(lines(8, &[a, b]), whole, "at {at}");
        }
        let bytes: Vec<&[u8]> = text.chunks(1).collect();
        assert_eq!(lines(8, &bytes), whole);
    }

    #[test]
    fn a_line_without_end_is_told_once_and_not_kept() {
        let read = [b'x'; 1000];
        let mut reads = vec![&read[..]; 100];
        reads.push(b"y\nok\n");
        assert_eq!(lines(1500, &reads), ["(too long)", "ok"]);
    }
    #[test]
    fn a_line_that_is_cut_off_is_joined_to_none() {
        let mut lines = Lines::new(8);
        let whole = |lines: &mut Lines, bytes: &[u8]| {
            let mut found = Vec::new();
            lines.feed(bytes, |line| {
                found.push(match line {
                    Line::Whole(line) => String::from_utf8_lossy(line).into_owned(),
                    Line::TooLong(_) => "(too long)".to_owned(),
                });
            });
            found
        };
        assert_eq!(lines.cut(), None);
        assert_eq!(whole(&mut lines, b"one\nca"), ["one"]);
        assert_eq!(lines.cut(), Some(b"ca".to_vec()));
        assert_eq!(lines.cut(), None);
        assert_eq!(whole(&mut lines, b"two\n"), ["two"]);
        assert_eq!(lines.cut(), None, "nothing is left");
        // told already
        assert_eq!(whole(&mut lines, b"0123456789"), ["(too long)"]);
        assert_eq!(lines.cut(), None);
        assert_eq!(whole(&mut lines, b"three\n"), ["three"], "and it does not swallow the next");
    }
}
