//! Parses the cases of the conformance files, see `conformance/README.md`. Does not know the protocol.

use elbus_testing::notation::{bytes, words};

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
