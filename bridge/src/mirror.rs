//! Topics as subjects of NATS: the mapping, and how bridges recognise what other bridges have published.
//!
//! A mirrored topic is published one message at a time for programs that know NATS and not ELBUS. The mapping
//! is that of nats-server for MQTT: levels become tokens, an empty level is the token `/`, and a dot in a
//! level is `//`. What no subject can hold is escaped as `%XX` (docs/bridge-protocol.md, section 7).

use std::fmt::Write;

/// The header of every mirrored message that a bridge publishes. Its value is the name of the bus. Bridges
/// ignore mirrored messages with the name of their own bus: the publication reaches their nodes over links.
pub const BUS_HEADER: &str = "Elbus-Bus";
/// The sender of publications that come from programs of the engine. What it sends is neither mirrored nor
/// exported.
pub const ENGINE_SENDER: &str = "@nats";
/// Longest subject, in bytes.
pub const MAX_SUBJECT_BYTES: usize = 2048;

/// The mapping between topics and subjects of one bus.
#[derive(Debug, Clone)]
pub struct Mirror {
    bus: String,
    is_bare: bool,
}

impl Mirror {
    /// Creates the mapping: to subjects below `BUS.topic.`, or to subjects without a prefix.
    pub fn new(bus: &str, is_bare: bool) -> Self {
        Mirror { bus: bus.to_owned(), is_bare }
    }

    /// Returns the prefix of all subjects: empty, or `BUS.topic.`.
    pub fn prefix(&self) -> String {
        if self.is_bare { String::new() } else { format!("{}.topic.", self.bus) }
    }

    /// Returns the subject of a topic. `None` if it would be too long, or is one on which the bridges of the
    /// bus talk to each other.
    ///
    /// ```
    /// use elbus_bridge::mirror::Mirror;
    ///
    /// let mirror = Mirror::new("plant", false);
    /// assert_eq!(mirror.subject("mill/2.5/state").as_deref(), Some("plant.topic.mill.2//5.state"));
    /// assert_eq!(mirror.subject("/a b//").as_deref(), Some("plant.topic./.a%20b././"));
    /// ```
    pub fn subject(&self, topic: &str) -> Option<String> {
        let mut subject = self.prefix();
        for (number, level) in topic.split('/').enumerate() {
            if number > 0 {
                subject.push('.');
            }
            append_token(&mut subject, level, number == 0 && self.is_bare);
            if subject.len() > MAX_SUBJECT_BYTES {
                return None;
            }
        }
        (!self.is_own(&subject)).then_some(subject)
    }

    /// Returns the topic of a subject. `None` if no topic has this subject.
    pub fn topic(&self, subject: &str) -> Option<String> {
        if subject.len() > MAX_SUBJECT_BYTES || self.is_own(subject) {
            return None;
        }
        let tokens = if self.is_bare { subject } else { subject.strip_prefix(&self.prefix())? };
        let mut topic = String::new();
        for (number, token) in tokens.split('.').enumerate() {
            if number > 0 {
                topic.push('/');
            }
            append_level(&mut topic, token)?;
        }
        Some(topic)
    }

    /// Returns the subject to subscribe to for the topics that match a filter, or a wider one.
    pub fn subject_of_filter(&self, filter: &str) -> Option<String> {
        let mut subject = self.prefix();
        for (number, level) in filter.split('/').enumerate() {
            if number > 0 {
                subject.push('.');
            }
            match level {
                "+" => subject.push('*'),
                "#" => {
                    subject.push('>');
                    break;
                }
                _ => append_token(&mut subject, level, number == 0 && self.is_bare),
            }
        }
        (subject.len() <= MAX_SUBJECT_BYTES).then_some(subject)
    }

    /// Returns whether a message on a mirrored subject was published by a bridge of this bus. `header` is the
    /// value of [`BUS_HEADER`].
    pub fn is_from_bridge(&self, header: Option<&str>) -> bool {
        header == Some(self.bus.as_str())
    }

    /// Returns whether the bridges of the bus talk to each other on the subject.
    fn is_own(&self, subject: &str) -> bool {
        let Some(rest) = subject.strip_prefix(&self.bus).and_then(|rest| rest.strip_prefix('.')) else {
            return false;
        };
        rest == "all"
            || rest == "to"
            || rest.starts_with("to.")
            || (self.is_bare && rest.starts_with("topic."))
    }
}

/// Returns whether a subject matches one that can contain the wildcards of NATS: `*` is one token, `>` one or
/// more at the end.
///
/// ```
/// use elbus_bridge::mirror::subject_matches;
///
/// assert!(subject_matches("a.*", "a.b") && subject_matches("a.>", "a.b.c") && subject_matches(">", "a"));
/// assert!(!subject_matches("a.*", "a.b.c") && !subject_matches("a.>", "a") && !subject_matches("a", "b"));
/// ```
pub fn subject_matches(pattern: &str, subject: &str) -> bool {
    let (mut pattern, mut tokens) = (pattern.split('.'), subject.split('.'));
    loop {
        match (pattern.next(), tokens.next()) {
            (None, None) | (Some(">"), Some(_)) => return true,
            (Some("*"), Some(_)) => {}
            (Some(one), Some(other)) if one == other => {}
            _ => return false,
        }
    }
}

/// Returns whether every subject that matches `inner` matches `outer` as well. Both can contain wildcards.
///
/// ```
/// use elbus_bridge::mirror::subject_covers;
///
/// assert!(subject_covers("a.>", "a.*") && subject_covers("a.*", "a.b") && subject_covers(">", "a.>"));
/// assert!(!subject_covers("a.*", "a.>") && !subject_covers("a.b", "a.*") && !subject_covers("a.>", "a"));
/// ```
pub fn subject_covers(outer: &str, inner: &str) -> bool {
    let (mut outer, mut inner) = (outer.split('.'), inner.split('.'));
    loop {
        match (outer.next(), inner.next()) {
            (None, None) | (Some(">"), Some(_)) => return true,
            (_, Some(">")) => return false,
            (Some("*"), Some(_)) => {}
            (Some(one), Some(other)) if one == other => {}
            _ => return false,
        }
    }
}

/// Returns whether a subject cannot hold the byte, or would give it a meaning.
fn is_escaped(byte: u8) -> bool {
    byte <= b' ' || byte == 0x7F || matches!(byte, b'%' | b'*' | b'>' | b'$')
}

/// Returns the byte that `text` begins with an escape of: one that can be escaped.
fn escaped(text: &str) -> Option<u8> {
    let digits = text.strip_prefix('%')?.get(..2)?;
    let is_upper = digits.bytes().all(|digit| matches!(digit, b'0'..=b'9' | b'A'..=b'F'));
    let byte = u8::from_str_radix(digits, 16).ok()?;
    (is_upper && is_escaped(byte)).then_some(byte)
}

/// Appends the token of a level.
fn append_token(subject: &mut String, level: &str, is_first: bool) {
    if level.is_empty() {
        subject.push('/');
    }
    let is_wildcard = matches!(level, "*" | ">");
    for (at, c) in level.char_indices() {
        let needs_escape = match c {
            '*' | '>' => is_wildcard,
            // subjects that begin with it belong to the server
            '$' => is_first && at == 0,
            '%' => level.get(at..).and_then(escaped).is_some(),
            _ => c <= ' ' || c == '\u{7F}',
        };
        match c {
            '.' => subject.push_str("//"),
            _ if needs_escape => _ = write!(subject, "%{:02X}", c as u32),
            _ => subject.push(c),
        }
    }
}

/// Appends the level of a token; `None` if there is none.
fn append_level(topic: &mut String, token: &str) -> Option<()> {
    if token == "/" {
        return Some(());
    }
    if token.is_empty() {
        return None;
    }
    let mut rest = token;
    while let Some(c) = rest.chars().next() {
        if let Some(byte) = escaped(rest) {
            topic.push(char::from(byte));
            rest = rest.get(3..)?;
        } else if c == '/' {
            rest = rest.strip_prefix("//")?;
            topic.push('.');
        } else {
            topic.push(c);
            rest = rest.get(c.len_utf8()..)?;
        }
    }
    Some(())
}

#[cfg(test)]
mod tests;
