//! Splits a stream of bytes into lines, independently of how reads divide it. Never stores more than one line
//! of the maximal length, and never parses a line.

/// A line without its line feed.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Line<'a> {
    Whole(&'a [u8]),
    /// A line longer than the limit: the part read when it exceeded it. The rest is skipped.
    TooLong(&'a [u8]),
}

/// Splits a stream into lines; stores the beginning of an unfinished line.
#[derive(Debug)]
pub(crate) struct Lines {
    limit: usize,
    partial: Vec<u8>,
    skipping: bool,
}

impl Lines {
    /// Creates a splitter for lines of at most `limit` bytes without the line feed.
    pub(crate) fn new(limit: usize) -> Self {
        Lines { limit, partial: Vec::new(), skipping: false }
    }

    /// Adds bytes and calls `each` with every line that is now complete.
    pub(crate) fn feed(&mut self, mut bytes: &[u8], mut each: impl FnMut(Line<'_>)) {
        while let Some(end) = bytes.iter().position(|byte| *byte == b'\n') {
            let (head, tail) = bytes.split_at(end);
            bytes = tail.get(1..).unwrap_or_default();
            if std::mem::take(&mut self.skipping) {
                continue;
            }
            if self.partial.is_empty() {
                each(self.classify(head));
            } else if self.append(head) {
                each(Line::Whole(&self.partial));
            } else {
                each(Line::TooLong(&self.partial));
            }
            self.partial.clear();
        }
        if !self.skipping && !self.append(bytes) {
            each(Line::TooLong(&self.partial));
            self.skipping = true;
            self.partial.clear();
        }
    }

    /// Ends the stream and returns its unfinished line, if any. The next bytes begin a new line.
    pub(crate) fn take_partial(&mut self) -> Option<Vec<u8>> {
        let was_reported = std::mem::take(&mut self.skipping);
        let partial = std::mem::take(&mut self.partial);
        (!was_reported && !partial.is_empty()).then_some(partial)
    }

    fn classify<'a>(&self, line: &'a [u8]) -> Line<'a> {
        if line.len() > self.limit { Line::TooLong(line) } else { Line::Whole(line) }
    }

    /// Appends to the partial line as much as the limit allows; `false` if that is not all.
    fn append(&mut self, bytes: &[u8]) -> bool {
        let room = self.limit - self.partial.len();
        self.partial.extend_from_slice(bytes.get(..room).unwrap_or(bytes));
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
            assert!(lines.partial.len() <= limit);
        }
        found
    }

    #[test]
    fn lines_do_not_depend_on_how_reads_divide_them() {
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
    fn an_endless_line_is_reported_once_and_not_stored() {
        let read = [b'x'; 1000];
        let mut reads = vec![&read[..]; 100];
        reads.push(b"y\nok\n");
        assert_eq!(lines(1500, &reads), ["(too long)", "ok"]);
    }

    #[test]
    fn an_unfinished_line_is_not_joined_to_the_next() {
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
        assert_eq!(lines.take_partial(), None);
        assert_eq!(whole(&mut lines, b"one\nca"), ["one"]);
        assert_eq!(lines.take_partial(), Some(b"ca".to_vec()));
        assert_eq!(lines.take_partial(), None);
        assert_eq!(whole(&mut lines, b"two\n"), ["two"]);
        assert_eq!(lines.take_partial(), None, "nothing is left");
        // reported already
        assert_eq!(whole(&mut lines, b"0123456789"), ["(too long)"]);
        assert_eq!(lines.take_partial(), None);
        assert_eq!(whole(&mut lines, b"three\n"), ["three"], "the next line is not skipped");
    }
}
