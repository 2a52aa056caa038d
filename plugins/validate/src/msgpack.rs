//! msgpack: checks a document, or builds its counterpart in JSON. Owns the recursion over it, which stops at
//! the limits of a [`Parsing`]; never reserves memory for what a length announces.

use serde_json::{Map, Number, Value};

use crate::document::{Fault, Parsing};

/// Parses one msgpack value. Returns null instead of the document unless it is to be built.
pub(crate) fn parse(bytes: &[u8], parsing: &Parsing) -> Result<Value, Fault> {
    let mut reader = Reader { bytes, rest: bytes, parsing };
    let value = reader.value(0)?;
    if reader.rest.is_empty() { Ok(value) } else { Err(reader.broken()) }
}

struct Reader<'a> {
    bytes: &'a [u8],
    rest: &'a [u8],
    parsing: &'a Parsing,
}

impl<'a> Reader<'a> {
    fn broken(&self) -> Fault {
        Fault::NotMsgpack { at: self.bytes.len() - self.rest.len() }
    }

    fn take(&mut self, count: usize) -> Result<&'a [u8], Fault> {
        let (taken, rest) = self.rest.split_at_checked(count).ok_or(self.broken())?;
        self.rest = rest;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], Fault> {
        let (taken, rest) = self.rest.split_first_chunk::<N>().ok_or(self.broken())?;
        self.rest = rest;
        Ok(*taken)
    }

    /// Returns a length of one, two or four bytes.
    fn length(&mut self, bytes: u8) -> Result<usize, Fault> {
        Ok(match bytes {
            1 => u8::from_be_bytes(self.array()?).into(),
            2 => u16::from_be_bytes(self.array()?).into(),
            _ => u32::from_be_bytes(self.array()?) as usize,
        })
    }

    fn value(&mut self, depth: usize) -> Result<Value, Fault> {
        self.parsing.begin_value(depth)?;
        let unknown = self.broken();
        let [marker] = self.array()?;
        Ok(match marker {
            0x00..=0x7f => marker.into(),
            0x80..=0x8f => return self.map(usize::from(marker & 0x0f), depth),
            0x90..=0x9f => return self.list(usize::from(marker & 0x0f), depth),
            0xa0..=0xbf => return self.text(usize::from(marker & 0x1f)),
            0xc0 => Value::Null,
            0xc1 => return Err(unknown),
            0xc2 | 0xc3 => (marker == 0xc3).into(),
            0xc4..=0xc6 => {
                let count = self.length(1 << (marker - 0xc4))?;
                return self.skip(count, "binary data");
            }
            0xc7..=0xc9 => {
                let count = self.length(1 << (marker - 0xc7))?;
                return self.skip(count + 1, "an extension type");
            }
            0xca => {
                let value = f32::from_be_bytes(self.array()?);
                return self.float(value.into());
            }
            0xcb => {
                let value = f64::from_be_bytes(self.array()?);
                return self.float(value);
            }
            0xcc => u8::from_be_bytes(self.array()?).into(),
            0xcd => u16::from_be_bytes(self.array()?).into(),
            0xce => u32::from_be_bytes(self.array()?).into(),
            0xcf => u64::from_be_bytes(self.array()?).into(),
            0xd0 => i8::from_be_bytes(self.array()?).into(),
            0xd1 => i16::from_be_bytes(self.array()?).into(),
            0xd2 => i32::from_be_bytes(self.array()?).into(),
            0xd3 => i64::from_be_bytes(self.array()?).into(),
            0xd4..=0xd8 => return self.skip((1 << (marker - 0xd4)) + 1, "an extension type"),
            0xd9..=0xdb => {
                let count = self.length(1 << (marker - 0xd9))?;
                return self.text(count);
            }
            0xdc | 0xdd => {
                let count = self.length(2 << (marker - 0xdc))?;
                return self.list(count, depth);
            }
            0xde | 0xdf => {
                let count = self.length(2 << (marker - 0xde))?;
                return self.map(count, depth);
            }
            0xe0..=0xff => marker.cast_signed().into(),
        })
    }

    fn list(&mut self, count: usize, depth: usize) -> Result<Value, Fault> {
        let mut values = Vec::new();
        for _ in 0..count {
            let value = self.value(depth + 1)?;
            if self.parsing.build {
                values.push(value);
            }
        }
        Ok(Value::Array(values))
    }

    fn map(&mut self, count: usize, depth: usize) -> Result<Value, Fault> {
        let mut values = Map::new();
        for _ in 0..count {
            let key = self.value(depth + 1)?;
            let value = self.value(depth + 1)?;
            if self.parsing.build {
                let Value::String(key) = key else {
                    return Err(Fault::NotInJson { what: "a key that is not text" });
                };
                if values.insert(key, value).is_some() {
                    return Err(Fault::RepeatedKey);
                }
            }
        }
        Ok(Value::Object(values))
    }

    fn text(&mut self, count: usize) -> Result<Value, Fault> {
        let text = std::str::from_utf8(self.take(count)?).map_err(|_| Fault::NotUtf8)?;
        Ok(if self.parsing.build { text.into() } else { Value::Null })
    }

    fn float(&self, value: f64) -> Result<Value, Fault> {
        match Number::from_f64(value) {
            Some(number) => Ok(Value::Number(number)),
            None if self.parsing.build => Err(Fault::NotInJson { what: "a number that is not finite" }),
            None => Ok(Value::Null),
        }
    }

    /// Passes what has no counterpart in JSON.
    fn skip(&mut self, count: usize, what: &'static str) -> Result<Value, Fault> {
        self.take(count)?;
        if self.parsing.build { Err(Fault::NotInJson { what }) } else { Ok(Value::Null) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::{Just, Strategy, any, prop_assert, prop_assert_eq, prop_oneof, proptest};
    use serde_json::json;

    #[test]
    fn every_kind_of_value_is_converted() {
        let long = "x".repeat(70_000);
        let list: Vec<u32> = (0..70_000).collect();
        let map: Map<String, Value> = (0..70_000).map(|at| (at.to_string(), at.into())).collect();
        for value in [
            json!(null),
            json!([true, false, 0, 127, 128, 255, 256, 65_535, 65_536, 4_294_967_296_u64, u64::MAX]),
            json!([-1, -32, -33, -128, -129, -32_768, -32_769, -2_147_483_649_i64, i64::MIN, 2.5]),
            json!(["", "é", "x".repeat(31), "x".repeat(32), "x".repeat(256), long]),
            json!([[], vec![1; 16], list, {}, {"a": {"b": []}}, map]),
        ] {
            let bytes = rmp_serde::to_vec(&value).unwrap();
            assert_eq!(parse(&bytes, &Parsing::build(usize::MAX)), Ok(value));
            assert!(parse(&bytes, &Parsing::check()).is_ok());
            for cut in (0..bytes.len()).step_by(1 + bytes.len() / 100) {
                let refused = parse(&bytes[..cut], &Parsing::check());
                assert!(
                    matches!(refused, Err(Fault::NotMsgpack { .. } | Fault::NotUtf8)),
                    "{cut}: {refused:?}"
                );
            }
        }
        assert_eq!(parse(b"\xca\x3f\x00\x00\x00", &Parsing::build(1)), Ok(json!(0.5)));
    }

    #[test]
    fn what_json_lacks_passes_unless_the_document_is_built() {
        for (bytes, what) in [
            (&b"\xc4\x01\xff"[..], "binary data"),
            (b"\xc5\x00\x01\xff", "binary data"),
            (b"\xc6\x00\x00\x00\x00", "binary data"),
            (b"\xd6\xff\x00\x00\x00\x00", "an extension type"),
            (b"\xc7\x01\x05\x00", "an extension type"),
            (b"\xca\x7f\xc0\x00\x00", "a number that is not finite"),
            (b"\x81\x01\x02", "a key that is not text"),
        ] {
            assert!(parse(bytes, &Parsing::check()).is_ok(), "{what}");
            assert_eq!(parse(bytes, &Parsing::build(9)), Err(Fault::NotInJson { what }));
        }
        assert_eq!(parse(b"\x82\xa1a\x01\xa1a\x02", &Parsing::build(9)), Err(Fault::RepeatedKey));
        assert_eq!(parse(b"\xa1\xff", &Parsing::check()), Err(Fault::NotUtf8));
    }

    /// Bytes of which many are markers, so that they are often documents.
    fn likely() -> impl Strategy<Value = Vec<u8>> {
        let byte =
            prop_oneof![Just(0x81_u8), Just(0x92), Just(0xa1), 0x00..0x10_u8, 0xc0..=0xdf_u8, any::<u8>()];
        proptest::collection::vec(byte, 0..24)
    }

    proptest! {
        #[test]
        fn it_agrees_with_the_parser_of_another_crate(bytes in likely()) {
            let mut rest = &bytes[..];
            let theirs = rmpv::decode::read_value(&mut rest).ok().filter(|_| rest.is_empty());
            let checked = parse(&bytes, &Parsing::check());
            if let Ok(built) = parse(&bytes, &Parsing::build(usize::MAX)) {
                prop_assert!(checked.is_ok());
                prop_assert_eq!(rmp_serde::from_slice::<Value>(&bytes).unwrap(), built);
            }
            // it takes 0xc1, which is not msgpack, for nil, and text that is not UTF-8
            match checked {
                Ok(_) => prop_assert!(theirs.is_some()),
                Err(Fault::NotMsgpack { .. }) => prop_assert!(theirs.is_none() || bytes.contains(&0xc1)),
                Err(_) => {}
            }
        }
    }

    #[test]
    fn lengths_that_lie_and_endless_nesting_are_refused() {
        for bytes in [
            &b""[..],
            b"\xc1",
            b"\x01\x01",
            b"\xdd\xff\xff\xff\xff",
            b"\xdf\xff\xff\xff\xff\x00",
            b"\xdb\xff\xff\xff\xff",
            b"\xc6\xff\xff\xff\xff",
            b"\xc9\xff\xff\xff\xff",
        ] {
            let refused = parse(bytes, &Parsing::check());
            assert!(matches!(refused, Err(Fault::NotMsgpack { .. })), "{}", bytes.escape_ascii());
        }
        for head in [&b"\x91"[..], b"\xdd\xff\xff\xff\xff", b"\x81\xa1a", b"\x81"] {
            let endless = head.repeat(200_000);
            assert_eq!(parse(&endless, &Parsing::build(usize::MAX)), Err(Fault::TooDeep));
            assert_eq!(parse(&endless, &Parsing::check()), Err(Fault::TooDeep));
        }
        let deepest = |levels: usize| [b"\x91".repeat(levels), vec![0]].concat();
        assert!(parse(&deepest(64), &Parsing::check()).is_ok());
        assert_eq!(parse(&deepest(65), &Parsing::check()), Err(Fault::TooDeep));
        assert_eq!(parse(b"\x92\x01\x02", &Parsing::build(2)), Err(Fault::TooManyValues { max: 2 }));
    }
}
