//! Parses the parameters of a call: `KEY=VALUE` for each key of a map, or a single JSON value. Owns which
//! type a value has.

use serde_json::{Map, Value};

/// Returns a map in the order of the command line, or the single value.
///
/// # Errors
/// A parameter is neither; the error names it.
pub(crate) fn parse(params: &[String]) -> Result<Value, String> {
    if let [param] = params
        && let Ok(value) = serde_json::from_str::<Value>(param)
    {
        return check_integer(value, param);
    }
    let mut map = Map::new();
    for param in params {
        let (key, text) = param
            .split_once('=')
            .filter(|(key, _)| !key.is_empty())
            .ok_or_else(|| {
                format!("invalid parameter {param:?}: expected KEY=VALUE, or a single JSON value such as 150 or '\"on\"'")
            })?;
        let value = parse_value(text).map_err(|error| format!("parameter {key}: {error}"))?;
        if map.insert(key.to_owned(), value).is_some() {
            return Err(format!("parameter {key} is given twice"));
        }
    }
    Ok(Value::Object(map))
}

/// Returns the value of JSON, and other text as a string.
fn parse_value(text: &str) -> Result<Value, String> {
    match serde_json::from_str::<Value>(text) {
        Ok(value) => check_integer(value, text),
        // text that starts like this is meant as JSON
        Err(error) if text.starts_with(['[', '{', '"']) => Err(format!(
            "{text} is not valid JSON ({error}); to send it as text, write a JSON string in quotes"
        )),
        Err(_) => Ok(Value::String(text.to_owned())),
    }
}

/// Refuses an integer that would lose digits.
fn check_integer(value: Value, text: &str) -> Result<Value, String> {
    match value {
        Value::Number(number) if number.is_f64() && is_integer(text) => {
            Err(format!("integer {text} exceeds 64 bits; to send it as text, write '\"{text}\"'"))
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
    fn json_values_keep_their_type_and_other_values_are_text() {
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
    fn errors_name_the_parameter() {
        assert!(one("[1,2").unwrap_err().starts_with("parameter k: [1,2 is not valid JSON"));
        assert!(one("{a}").is_err() && one("\"a").is_err());
        assert!(one("18446744073709551616").unwrap_err().contains("exceeds 64 bits"));
        let refused =
            |params: &[&str]| parse(&params.iter().map(|p| (*p).to_owned()).collect::<Vec<_>>()).unwrap_err();
        for wrong in ["k", "=v"] {
            let text = refused(&[wrong]);
            assert!(text.starts_with(&format!("invalid parameter {wrong:?}: expected KEY=VALUE")), "{text}");
        }
        assert!(refused(&["1", "2"]).starts_with("invalid parameter \"1\""));
        assert!(refused(&["18446744073709551616"]).contains("exceeds 64 bits"));
        assert_eq!(refused(&["k=1", "k=2"]), "parameter k is given twice");
    }

    #[test]
    fn keys_keep_their_order() {
        let map = parse(&["z=1".to_owned(), "a=2".to_owned()]).unwrap();
        assert_eq!(map.to_string(), r#"{"z":1,"a":2}"#);
    }

    #[test]
    fn a_single_json_value_needs_no_key() {
        for (text, value) in
            [("150", json!(150)), ("\"on\"", json!("on")), ("[1,2]", json!([1, 2])), ("null", Value::Null)]
        {
            assert_eq!(parse(&[text.to_owned()]), Ok(value));
        }
    }
}
