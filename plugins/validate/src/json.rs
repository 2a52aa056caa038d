//! JSON text: checks it, or builds the document. Owns the recursion over it, which stops at the limits of a
//! [`Parsing`].

use serde::de::{DeserializeSeed, Deserializer, Error, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Value};
use std::fmt;

use crate::document::{Fault, Parsing};

/// Parses a JSON text. Returns null instead of the document unless it is to be built.
pub(crate) fn parse(text: &[u8], parsing: &Parsing) -> Result<Value, Fault> {
    let text = std::str::from_utf8(text).map_err(|_| Fault::NotUtf8)?;
    parse_text(text, parsing).map_err(|error| {
        parsing.fault().unwrap_or(Fault::NotJson { line: error.line(), column: error.column() })
    })
}

/// As [`parse`], with the error of the parser.
pub(crate) fn parse_text(text: &str, parsing: &Parsing) -> Result<Value, serde_json::Error> {
    let mut deserializer = serde_json::Deserializer::from_str(text);
    let value = Seed { parsing, depth: 0 }.deserialize(&mut deserializer)?;
    deserializer.end()?;
    Ok(value)
}

/// The value at a depth of a document.
#[derive(Clone, Copy)]
struct Seed<'a> {
    parsing: &'a Parsing,
    depth: usize,
}

impl<'de> DeserializeSeed<'de> for Seed<'_> {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        self.parsing.begin_value(self.depth).map_err(Error::custom)?;
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Seed<'_> {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_unit<E: Error>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E: Error>(self, value: bool) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_i64<E: Error>(self, value: i64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_u64<E: Error>(self, value: u64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_f64<E: Error>(self, value: f64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_str<E: Error>(self, value: &str) -> Result<Value, E> {
        Ok(if self.parsing.build { value.into() } else { Value::Null })
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Value, A::Error> {
        let mut values = Vec::new();
        while let Some(value) = list.next_element_seed(Seed { depth: self.depth + 1, ..self })? {
            if self.parsing.build {
                values.push(value);
            }
        }
        Ok(Value::Array(values))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Value, A::Error> {
        let mut values = Map::new();
        while let Some(key) = map.next_key::<String>()? {
            let value = map.next_value_seed(Seed { depth: self.depth + 1, ..self })?;
            if self.parsing.build && values.insert(key, value).is_some() {
                return Err(Error::custom(self.parsing.failed(Fault::RepeatedKey)));
            }
        }
        Ok(Value::Object(values))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::{prop_assert, prop_assert_eq, proptest};

    #[test]
    fn a_document_is_built_or_checked() {
        let text = br#" {"a": [1, -2, 2.5, "x\u00e9", null, true, {}]} "#;
        let built = parse(text, &Parsing::build(100)).unwrap();
        assert_eq!(built, serde_json::from_slice::<Value>(text).unwrap());
        assert!(parse(text, &Parsing::check()).is_ok());
    }

    #[test]
    fn what_is_not_one_json_value_is_refused() {
        for text in
            [&b""[..], b"{", b"1 2", b"[1,]", b"nan", b"'a'", b"\"\n\"", b"{1:2}", b"01", b"\"\\ud800\""]
        {
            for parsing in [Parsing::check(), Parsing::build(9)] {
                assert!(
                    matches!(parse(text, &parsing), Err(Fault::NotJson { .. })),
                    "{}",
                    text.escape_ascii()
                );
            }
        }
        assert_eq!(parse(b"\"\xFF\"", &Parsing::check()), Err(Fault::NotUtf8));
        assert_eq!(parse(b"[1,\n x]", &Parsing::check()), Err(Fault::NotJson { line: 2, column: 2 }));
    }

    proptest! {
        #[test]
        fn it_agrees_with_serde_json(text in "[\\[\\]{}:,\"ab\\\\u0-9.eE+ tfnrulse-]{0,24}") {
            let theirs = serde_json::from_str::<Value>(&text);
            let checked = parse(text.as_bytes(), &Parsing::check());
            prop_assert_eq!(checked.is_ok(), theirs.is_ok());
            match parse(text.as_bytes(), &Parsing::build(usize::MAX)) {
                Ok(built) => prop_assert_eq!(built, theirs.unwrap()),
                Err(fault) => prop_assert!(theirs.is_err() || fault == Fault::RepeatedKey),
            }
        }
    }

    #[test]
    fn nesting_values_and_repeated_keys_are_limited() {
        for (open, close) in [("[", "]"), ("{\"a\":", "}")] {
            let nested = |levels: usize| format!("{}0{}", open.repeat(levels), close.repeat(levels));
            assert!(parse(nested(64).as_bytes(), &Parsing::check()).is_ok());
            let endless = [open.repeat(200_000), nested(65)];
            for parsing in [Parsing::check, || Parsing::build(usize::MAX)] {
                assert!(endless.iter().all(|text| parse(text.as_bytes(), &parsing()) == Err(Fault::TooDeep)));
            }
        }
        assert_eq!(parse(b"[1, 2]", &Parsing::build(2)), Err(Fault::TooManyValues { max: 2 }));
        assert!(parse(b"[1, 2]", &Parsing::build(3)).is_ok());
        assert_eq!(parse(br#"{"a":1,"\u0061":2}"#, &Parsing::build(9)), Err(Fault::RepeatedKey));
    }
}
