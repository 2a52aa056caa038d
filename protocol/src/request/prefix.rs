//! Comparing the texts of a run's frames and finding the NULs that end them, fast for the short ones that are
//! usual; never looks at what they mean.

const CHUNK: usize = 16;

/// The texts that all frames of a run begin with, their NULs included.
pub(super) struct Prefix<'a> {
    bytes: &'a [u8],
    /// The first one or two chunks as numbers, each with a mask of the bytes that count.
    low: (u128, u128),
    high: (u128, u128),
}

impl<'a> Prefix<'a> {
    /// `room` begins with `bytes` and is what follows them in the buffer, too.
    #[inline]
    pub(super) fn new(bytes: &'a [u8], room: &[u8]) -> Self {
        let high = room.get(CHUNK..).unwrap_or_default();
        Prefix {
            bytes,
            low: masked(room, bytes.len().min(CHUNK)),
            high: masked(high, bytes.len().saturating_sub(CHUNK).min(CHUNK)),
        }
    }

    /// The rest of a body that begins with the prefix, else `None`. `room` is the body and what follows it in
    /// the buffer, so that even a short body can be compared as whole chunks.
    #[inline]
    pub(super) fn strip<'b>(&self, body: &'b [u8], room: &[u8]) -> Option<&'b [u8]> {
        let (texts, payload) = body.split_at_checked(self.bytes.len())?;
        let same = if self.bytes.len() <= CHUNK
            && let Some(low) = room.first_chunk()
        {
            differ(low, self.low) == 0
        } else if self.bytes.len() <= 2 * CHUNK
            && let Some((low, rest)) = room.split_first_chunk()
            && let Some(high) = rest.first_chunk()
        {
            differ(low, self.low) | differ(high, self.high) == 0
        } else {
            texts == self.bytes
        };
        same.then_some(payload)
    }
}

/// The first chunk of the bytes as a number, and the mask that keeps the first `len` of them. Without a whole
/// chunk there is nothing that could be compared with it: every later frame has less room.
#[inline]
fn masked(bytes: &[u8], len: usize) -> (u128, u128) {
    let value = bytes.first_chunk().map_or(0, |chunk| u128::from_le_bytes(*chunk));
    (value, u128::MAX.checked_shr(8 * (CHUNK - len) as u32).unwrap_or(0))
}

#[inline]
fn differ(chunk: &[u8; CHUNK], (value, mask): (u128, u128)) -> u128 {
    (u128::from_le_bytes(*chunk) ^ value) & mask
}

/// Where the first NUL is; eight bytes at a time.
#[inline]
pub(super) fn find_nul(bytes: &[u8]) -> Option<usize> {
    const LOW: u64 = 0x0101_0101_0101_0101;
    const HIGH: u64 = 0x8080_8080_8080_8080;
    let (words, tail) = bytes.as_chunks::<8>();
    for (index, word) in words.iter().enumerate() {
        let word = u64::from_le_bytes(*word);
        // The lowest bit set belongs to the first zero byte; higher ones may be borrows.
        let zeros = word.wrapping_sub(LOW) & !word & HIGH;
        if zeros != 0 {
            return Some(index * 8 + zeros.trailing_zeros() as usize / 8);
        }
    }
    tail.iter().position(|byte| *byte == 0).map(|index| words.len() * 8 + index)
}

/// Where the first NUL is, and whether everything before it is certainly ASCII; eight bytes at a time.
#[inline]
pub(super) fn find_nul_ascii(bytes: &[u8]) -> Option<(usize, bool)> {
    const LOW: u64 = 0x0101_0101_0101_0101;
    const HIGH: u64 = 0x8080_8080_8080_8080;
    let mut high = 0;
    let (words, tail) = bytes.as_chunks::<8>();
    for (index, word) in words.iter().enumerate() {
        let word = u64::from_le_bytes(*word);
        let zeros = word.wrapping_sub(LOW) & !word & HIGH;
        if zeros != 0 {
            let before = (zeros & zeros.wrapping_neg()).wrapping_sub(1);
            let is_ascii = (high | word & before) & HIGH == 0;
            return Some((index * 8 + zeros.trailing_zeros() as usize / 8, is_ascii));
        }
        high |= word;
    }
    let nul = tail.iter().position(|byte| *byte == 0)?;
    let is_ascii = high & HIGH == 0 && tail.iter().take(nul).all(u8::is_ascii);
    Some((words.len() * 8 + nul, is_ascii))
}

/// Returns whether a body begins with these texts.
#[inline]
pub(super) fn starts_with(body: &[u8], texts: &[u8]) -> bool {
    let Some(start) = body.get(..texts.len()) else { return false };
    let ((words, tail), (others, other)) = (start.as_chunks::<8>(), texts.as_chunks::<8>());
    let last = |bytes: &[u8]| bytes.last_chunk::<8>().map(|word| u64::from_le_bytes(*word));
    // texts that differ usually do so at the end
    let same_end = match (last(start), last(texts)) {
        (Some(one), Some(other)) => one == other,
        _ => tail == other,
    };
    same_end && words.iter().zip(others).all(|(one, other)| one == other)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn find_nul_equals_the_plain_search() {
        for len in 0..40 {
            for fill in [1, 0x7F, 0x80, 0xFF] {
                let mut bytes = vec![fill; len];
                assert_eq!((find_nul(&bytes), find_nul_ascii(&bytes)), (None, None));
                for nul in (0..len).rev() {
                    bytes[nul] = 0;
                    let is_ascii = bytes[..nul].is_ascii();
                    assert_eq!(
                        (find_nul(&bytes), find_nul_ascii(&bytes)),
                        (Some(nul), Some((nul, is_ascii)))
                    );
                    if nul > 0 {
                        bytes[nul - 1] = 1; // 1 behind 0 is where a borrow would show
                        assert_eq!(find_nul(&bytes), Some(nul));
                        assert_eq!(find_nul_ascii(&bytes), Some((nul, bytes[..nul].is_ascii())));
                    }
                }
            }
        }
    }

    #[test]
    fn strip_equals_strip_prefix_at_every_length() {
        for len in 1..50 {
            let texts: Vec<u8> = (1..len).chain([0]).collect();
            let prefix = Prefix::new(&texts, &[&texts[..], &[9; 40]].concat());
            for beyond in [0, 1, 15, 16, 40] {
                let mut room = [&texts[..], &[7; 40]].concat();
                room.truncate(texts.len() + beyond);
                for end in 0..=room.len() {
                    assert_eq!(prefix.strip(&room[..end], &room), room[..end].strip_prefix(&texts[..]));
                }
                for wrong in 0..texts.len() {
                    let mut room = room.clone();
                    room[wrong] ^= 0x80;
                    assert_eq!(prefix.strip(&room, &room), None);
                }
            }
        }
    }

    #[test]
    fn starts_with_equals_that_of_slices() {
        for len in 0..40_usize {
            let texts: Vec<u8> = (0..len).map(|number| number as u8).collect();
            for beyond in 0..3 {
                let body = [&texts[..], &vec![7; beyond]].concat();
                assert!(starts_with(&body, &texts));
                for wrong in 0..len {
                    let mut body = body.clone();
                    body[wrong] ^= 0x80;
                    assert!(!starts_with(&body, &texts));
                }
            }
            assert!(len == 0 || !starts_with(&texts[1..], &texts), "too short");
        }
    }
}
