//! Splits the files of conversations into lines of words. Does not know what the words mean.

use elbus_testing::notation::{Piece, pieces, words};

pub(crate) struct Conversation {
    pub(crate) title: String,
    pub(crate) lines: Vec<Line>,
}

pub(crate) struct Line {
    pub(crate) word: String,
    pub(crate) rest: Vec<String>,
    /// The place and text of the line, for failures.
    pub(crate) at: String,
}

impl Conversation {
    /// Returns the number of bytes of which the broker writes only the beginning, if there is such a line.
    pub(crate) fn cut_bytes(&self) -> Option<usize> {
        let line = self.lines.iter().find(|line| line.word == "cut")?;
        Some(pieces(&line.rest, &line.at).iter().map(Piece::len).sum())
    }
}

impl Line {
    /// Returns a word of the rest by its index.
    pub(crate) fn arg(&self, index: usize) -> &str {
        self.rest.get(index).unwrap_or_else(|| panic!("{}: word {index} is missing", self.at))
    }

    /// Returns a quoted word of the rest, without its quotes.
    pub(crate) fn text(&self, index: usize) -> &str {
        let word = self.arg(index);
        word.strip_prefix('"')
            .and_then(|word| word.strip_suffix('"'))
            .unwrap_or_else(|| panic!("{}: {word}", self.at))
    }

    /// Returns the keys and values after the first `skip` words, separated by commas.
    pub(crate) fn fields(&self, skip: usize) -> impl Iterator<Item = (&str, &[String])> {
        let fields = self.rest[skip.min(self.rest.len())..].split(|word| word == ",");
        fields.filter_map(|field| field.split_first()).map(|(key, value)| (key.as_str(), value))
    }
}

/// Parses all conversations of a file.
pub(crate) fn conversations(file: &str, text: &str) -> Vec<Conversation> {
    let mut done: Vec<Conversation> = vec![];
    for (index, line) in text.lines().enumerate() {
        let line = line.trim();
        let (word, rest) = line.split_once(' ').unwrap_or((line, ""));
        let at = format!("{file}:{}: {line}", index + 1);
        match (word, done.last_mut()) {
            ("" | "#", _) => {}
            ("conversation", _) => done.push(Conversation { title: rest.to_owned(), lines: vec![] }),
            (_, Some(conversation)) => {
                conversation.lines.push(Line { word: word.to_owned(), rest: words(rest), at });
            }
            _ => panic!("{at}: no conversation has begun"),
        }
    }
    done
}
