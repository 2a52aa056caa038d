//! The parameters of a call on the command line: `key=value` for each key of a map, or one JSON value. Owns what a value
//! is taken for.

use serde_json::{Map, Value};

/// A map in the order of the command line, or a single value.
///
/// # Errors
/// What is wrong, and with which one.
pub(crate) fn parse(params: &[String]) -> Result<Value, String> {
    if let [param] = params
        && let Ok(value) = serde_json::from_str::<Value>(param)
    {
        return value_of_number(value, param);
    }
    let mut map = Map::new();
    for param in params {
        let (key, text) = param
            .split_once('=')
            .filter(|(key, _)| !key.is_empty())
            .ok_or_else(|| {
                format!("invalid parameter {param:?}: expected KEY=VALUE, or a single JSON value such as 150 or '\"on\"'")
            })?;
        let value = value(text).map_err(|why| format!("parameter {key}: {why}"))?;
        if map.insert(key.to_owned(), value).is_some() {
            return Err(format!("parameter {key}: given twice"));
        }
    }
    Ok(Value::Object(map))
}

/// JSON where it is, else text.
fn value(text: &str) -> Result<Value, String> {
    match serde_json::from_str::<Value>(text) {
        Ok(value) => value_of_number(value, text),
        // whoever begins like this means it
        Err(error) if text.starts_with(['[', '{', '"']) => {
            Err(format!("{text} is not JSON ({error}); for text write it as a JSON string, in quotes"))
        }
        Err(_) => Ok(Value::String(text.to_owned())),
    }
}

/// A value, unless it is an integer that would lose digits.
fn value_of_number(value: Value, text: &str) -> Result<Value, String> {
    match value {
        Value::Number(number) if number.is_f64() && is_integer(text) => {
            Err(format!("{text} has more than 64 bits; for text write '\"{text}\"'"))
        }
        value => Ok(value),
    }
}

fn is_integer(text: &str) -> bool {
    text.trim().trim_start_matches('-').bytes().all(|byte| byte.is_ascii_digit())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn one(text: &str) -> Result<Value, String> {
        parse(&[format!("k={text}")]).map(|map| map["k"].clone())
    }

    #[test]
    fn values_are_what_they_look_like() {
        for (text, value) in [
            ("1", json!(1)),
            ("-1", json!(-1)),
            ("18446744073709551615", json!(u64::MAX)),
            ("1.5", json!(1.5)),
            ("1e3", json!(1000.0)),
            ("true", json!(true)),
            ("null", Value::Null),
            ("[1,\"a\"]", json!([1, "a"])),
            ("{\"a\":{\"b\":1}}", json!({"a": {"b": 1}})),
            ("\"12\"", json!("12")),
            ("", json!("")),
            ("a=b", json!("a=b")),
            ("007", json!("007")),
            ("True", json!("True")),
            ("nan", json!("nan")),
            ("two words", json!("two words")),
        ] {
            assert_eq!(one(text), Ok(value), "{text}");
        }
    }

    #[test]
    fn mistakes_are_named() {
        assert!(one("[1,2").unwrap_err().starts_with("parameter k: [1,2 is not JSON"));
        assert!(one("{a}").is_err() && one("\"a").is_err());
        assert!(one("18446744073709551616").unwrap_err().contains("more than 64 bits"));
        let refused =
            |params: &[&str]| parse(&params.iter().map(|p| (*p).to_owned()).collect::<Vec<_>>()).unwrap_err();
        for wrong in ["k", "=v"] {
            let text = refused(&[wrong]);
            assert!(text.starts_with(&format!("invalid parameter {wrong:?}: expected KEY=VALUE")), "{text}");
        }
        assert!(refused(&["1", "2"]).starts_with("invalid parameter \"1\""));
        assert!(refused(&["18446744073709551616"]).contains("more than 64 bits"));
        assert_eq!(refused(&["k=1", "k=2"]), "parameter k: given twice");
    }

    #[test]
    fn keys_keep_their_order() {
        let map = parse(&["z=1".to_owned(), "a=2".to_owned()]).unwrap();
        assert_eq!(map.to_string(), r#"{"z":1,"a":2}"#);
    }

    #[test]
    fn one_value_needs_no_key() {
        for (text, value) in
            [("150", json!(150)), ("\"on\"", json!("on")), ("[1,2]", json!([1, 2])), ("null", Value::Null)]
        {
            assert_eq!(parse(&[text.to_owned()]), Ok(value));
        }
    }
}
