//! The notation of bytes in the conformance files, see `protocol/conformance/README.md`. Does not know the
//! protocol.

/// A part of bytes in the notation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Piece {
    Bytes(Vec<u8>),
    /// Four bytes that the client chooses, with their name; `?` stands for any.
    Id(String),
}

/// Splits a line into words at spaces; a quoted text is one word with its quotes, and so is a comma.
pub fn words(line: &str) -> Vec<String> {
    let (mut words, mut word, mut quoted) = (vec![], String::new(), false);
    for letter in line.chars() {
        quoted ^= letter == '"';
        match letter {
            ' ' if !quoted => words.extend(Some(std::mem::take(&mut word)).filter(|word| !word.is_empty())),
            ',' if !quoted => {
                words.extend(Some(std::mem::take(&mut word)).filter(|word| !word.is_empty()));
                words.push(",".to_owned());
            }
            _ => word.push(letter),
        }
    }
    words.extend(Some(word).filter(|word| !word.is_empty()));
    words
}

/// Returns the bytes that the words stand for. Panics with `at` if they are invalid or contain an id.
pub fn bytes(words: &[String], at: &str) -> Vec<u8> {
    let mut out = vec![];
    for piece in pieces(words, at) {
        match piece {
            Piece::Bytes(bytes) => out.extend(bytes),
            Piece::Id(name) => panic!("{at}: id:{name} has no bytes here"),
        }
    }
    out
}

/// Returns the pieces that the words stand for. Panics with `at` if they are invalid.
pub fn pieces(words: &[String], at: &str) -> Vec<Piece> {
    let mut out = vec![];
    let mut rest = words;
    while let Some((word, after)) = rest.split_first() {
        rest = after;
        if let Some(head) = word.strip_suffix('(') {
            let close = closing(after).expect(at);
            let inner = pieces(&after[..close], at);
            rest = &after[close + 1..];
            let len: usize = inner.iter().map(Piece::len).sum();
            match head {
                "len16" => out.push(Piece::Bytes(u16::try_from(len).expect(at).to_le_bytes().to_vec())),
                "len32" => out.push(Piece::Bytes(u32::try_from(len).expect(at).to_le_bytes().to_vec())),
                _ => {
                    let times: usize = head.strip_suffix('*').expect(at).parse().expect(at);
                    (1..times).for_each(|_| out.extend(inner.iter().cloned()));
                }
            }
            out.extend(inner);
        } else if let Some(name) = word.strip_prefix("id:") {
            out.push(Piece::Id(name.to_owned()));
        } else {
            out.push(Piece::Bytes(literal(word, at)));
        }
    }
    out
}

impl Piece {
    /// Returns the number of bytes.
    #[allow(clippy::len_without_is_empty, reason = "an id is never empty")]
    pub fn len(&self) -> usize {
        match self {
            Piece::Bytes(bytes) => bytes.len(),
            Piece::Id(_) => 4,
        }
    }
}

fn literal(word: &str, at: &str) -> Vec<u8> {
    if let Some(text) = word.strip_prefix('"') {
        return text.strip_suffix('"').expect(at).as_bytes().to_vec();
    }
    if let Some((size, number)) = word.split_once('=') {
        return match size {
            "u16" => number.parse::<u16>().expect(at).to_le_bytes().to_vec(),
            "u32" => number.parse::<u32>().expect(at).to_le_bytes().to_vec(),
            "i16" => number.parse::<i16>().expect(at).to_le_bytes().to_vec(),
            _ => panic!("{at}"),
        };
    }
    assert!(word.is_ascii() && word.len().is_multiple_of(2), "{at}");
    (0..word.len()).step_by(2).map(|i| u8::from_str_radix(&word[i..i + 2], 16).expect(at)).collect()
}

/// Returns the index of the end of the group that has just begun.
fn closing(words: &[String]) -> Option<usize> {
    let mut depth = 1;
    words.iter().position(|word| {
        depth += i32::from(word.ends_with('(')) - i32::from(word == ")");
        depth == 0
    })
}
