//! Converts msgpack to JSON. Bytes and extensions, which JSON does not have, become `{"$bytes": hex}` and
//! `{"$ext": type, "$bytes": hex}`.

use rmpv::{Value as Packed, decode::read_value_with_max_depth};
use serde_json::{Map, Number, Value, json};

use super::hex::digits;

/// The maximum nesting of lists and maps.
const MAX_DEPTH: usize = 64;

/// Decodes bytes that are exactly one value. Returns `None` for anything else.
pub(crate) fn decode(mut bytes: &[u8]) -> Option<Value> {
    let packed = read_value_with_max_depth(&mut bytes, MAX_DEPTH).ok()?;
    bytes.is_empty().then(|| to_json(packed))
}

fn to_json(packed: Packed) -> Value {
    match packed {
        Packed::Nil => Value::Null,
        Packed::Boolean(value) => Value::Bool(value),
        Packed::Integer(value) => match (value.as_u64(), value.as_i64()) {
            (Some(value), _) => Value::from(value),
            (None, value) => Value::from(value),
        },
        // converted by its digits, so that 0.1 stays 0.1
        Packed::F32(value) => number(value.to_string().parse().unwrap_or(f64::from(value))),
        Packed::F64(value) => number(value),
        Packed::String(text) => match text.into_str() {
            Some(text) => Value::String(text),
            None => Value::Null,
        },
        Packed::Binary(bytes) => json!({ "$bytes": digits(&bytes) }),
        Packed::Array(items) => items.into_iter().map(to_json).collect(),
        Packed::Map(entries) => {
            let mut map = Map::new();
            for (key, value) in entries {
                map.insert(key_text(key), to_json(value));
            }
            Value::Object(map)
        }
        Packed::Ext(kind, bytes) => json!({ "$ext": kind, "$bytes": digits(&bytes) }),
    }
}

/// Returns a JSON number, or a string for infinities and NaN, which JSON does not have.
fn number(value: f64) -> Value {
    Number::from_f64(value).map_or_else(|| Value::String(value.to_string()), Value::Number)
}

fn key_text(key: Packed) -> String {
    match to_json(key) {
        Value::String(text) => text,
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn packed(value: &Packed) -> Vec<u8> {
        let mut bytes = Vec::new();
        rmpv::encode::write_value(&mut bytes, value).unwrap();
        bytes
    }

    #[test]
    fn every_msgpack_type_is_converted() {
        let map = Packed::Map(vec![
            ("z".into(), Packed::F32(0.1)),
            (Packed::from(7), Packed::Nil),
            ("a".into(), Packed::Binary(vec![1, 255])),
            ("e".into(), Packed::Ext(-1, vec![2])),
            ("n".into(), Packed::F64(f64::NAN)),
            (
                "i".into(),
                Packed::Array(vec![Packed::from(-1), Packed::from(u64::MAX), Packed::Boolean(true)]),
            ),
        ]);
        assert_eq!(
            decode(&packed(&map)).unwrap().to_string(),
            r#"{"z":0.1,"7":null,"a":{"$bytes":"01ff"},"e":{"$ext":-1,"$bytes":"02"},"n":"NaN","#.to_owned()
                + r#""i":[-1,18446744073709551615,true]}"#
        );
    }

    #[test]
    fn only_one_complete_value_is_decoded() {
        assert_eq!(decode(&[0x01]), Some(json!(1)));
        assert_eq!(decode(&[0x01, 0x02]), None);
        assert_eq!(decode(&[0x92, 0x01]), None, "an incomplete list");
        assert_eq!(decode(&[0xdf, 0xff, 0xff, 0xff, 0xff]), None, "a length without the items");
        assert_eq!(decode(&[]), None);
        assert_eq!(decode(&[0x91; 10_000]), None, "nested too deeply");
    }
}
