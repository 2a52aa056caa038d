//! Parses the notation of the conformance files, see `conformance/README.md`. Does not know the protocol.

/// An event in a case: its kind and its fields, values as bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Event {
    pub(crate) kind: String,
    pub(crate) fields: Vec<(String, Vec<u8>)>,
}

/// The expected result of a case: events, then how it ends.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Outcome {
    pub(crate) events: Vec<Event>,
    pub(crate) end: String,
}

#[derive(Debug)]
pub(crate) struct Case {
    pub(crate) title: String,
    pub(crate) limit: usize,
    pub(crate) input: Vec<u8>,
    pub(crate) expected: Outcome,
}

impl Event {
    pub(crate) fn new(kind: &str, fields: &[(&str, &[u8])]) -> Self {
        let fields = fields.iter().map(|(key, value)| ((*key).to_owned(), value.to_vec())).collect();
        Event { kind: kind.to_owned(), fields }
    }
}

/// Parses all cases of a file; panics with the line number of an invalid one.
pub(crate) fn cases(text: &str) -> Vec<Case> {
    let mut done: Vec<Case> = vec![];
    let mut open: Option<Case> = None;
    for (index, line) in text.lines().enumerate() {
        let line = line.trim();
        let (word, rest) = line.split_once(' ').unwrap_or((line, ""));
        let at = format!("line {}: {line}", index + 1);
        match (word, &mut open) {
            ("" | "#", _) => {}
            ("case", None) => {
                let title = rest.to_owned();
                open = Some(Case { title, limit: 65_536, input: vec![], expected: Outcome::default() });
            }
            ("limit", Some(case)) => case.limit = rest.parse().expect(&at),
            ("in", Some(case)) => case.input.extend(bytes(&words(rest), &at)),
            (">", Some(case)) => case.expected.events.push(event(rest, &at)),
            ("=", Some(case)) => {
                case.expected.end = rest.to_owned();
                done.extend(open.take());
            }
            _ => panic!("{at}"),
        }
    }
    assert!(open.is_none(), "the last case has no end");
    done
}

/// Splits a line into words at spaces; a quoted text is one word with its quotes, and so is a comma.
fn words(line: &str) -> Vec<String> {
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

fn event(line: &str, at: &str) -> Event {
    let words = words(line);
    let (kind, fields) = words.split_first().expect(at);
    let fields = fields
        .split(|word| word == ",")
        .filter_map(|field| field.split_first())
        .map(|(key, value)| (key.clone(), bytes(value, at)))
        .collect();
    Event { kind: kind.clone(), fields }
}

fn bytes(words: &[String], at: &str) -> Vec<u8> {
    let mut out = vec![];
    let mut rest = words;
    while let Some((word, after)) = rest.split_first() {
        rest = after;
        if let Some(head) = word.strip_suffix('(') {
            let close = closing(after).expect(at);
            let inner = bytes(&after[..close], at);
            rest = &after[close + 1..];
            match head {
                "len16" => out.extend(u16::try_from(inner.len()).expect(at).to_le_bytes()),
                "len32" => out.extend(u32::try_from(inner.len()).expect(at).to_le_bytes()),
                _ => {
                    let times: usize = head.strip_suffix('*').expect(at).parse().expect(at);
                    (1..times).for_each(|_| out.extend(&inner));
                }
            }
            out.extend(&inner);
        } else if let Some(text) = word.strip_prefix('"') {
            out.extend(text.strip_suffix('"').expect(at).as_bytes());
        } else if let Some((size, number)) = word.split_once('=') {
            match size {
                "u16" => out.extend(number.parse::<u16>().expect(at).to_le_bytes()),
                "u32" => out.extend(number.parse::<u32>().expect(at).to_le_bytes()),
                "i16" => out.extend(number.parse::<i16>().expect(at).to_le_bytes()),
                _ => panic!("{at}"),
            }
        } else {
            assert!(word.is_ascii() && word.len() % 2 == 0, "{at}");
            out.extend(
                (0..word.len()).step_by(2).map(|i| u8::from_str_radix(&word[i..i + 2], 16).expect(at)),
            );
        }
    }
    out
}

/// Returns the index of the end of the group that has just begun.
fn closing(words: &[String]) -> Option<usize> {
    let mut depth = 1;
    words.iter().position(|word| {
        depth += i32::from(word.ends_with('(')) - i32::from(word == ")");
        depth == 0
    })
}
