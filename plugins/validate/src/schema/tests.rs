//! Tests of schema files: what is refused, and how long the hardest documents take.

use super::*;
use serde_json::json;
use std::fmt::Write as _;

fn load(text: &str) -> Result<Schema, String> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("s.json");
    std::fs::write(&path, text).unwrap();
    Schema::load(&path).map_err(|message| message.replace(&*path.to_string_lossy(), "s.json"))
}

fn matches(schema: &Value, document: &Value) -> bool {
    load(&schema.to_string()).unwrap().matches(document)
}

#[test]
fn files_that_are_no_usable_schema_are_refused() {
    for (text, expected) in [
        ("", "\"s.json\" is not JSON: EOF while parsing a value at line 1 column 0"),
        ("{\n\"type\": }", "\"s.json\" is not JSON: expected value at line 2 column 9"),
        (
            "{\"type\":\"object\",\"type\":\"array\"}",
            "\"s.json\" is not JSON: a map contains a key twice at line 1",
        ),
        ("[]", "\"s.json\" is not a usable schema: [] is not of types \"boolean\", \"object\""),
        (r#"{"properties":{"a":{"type":"strin"}}}"#, "(at \"/properties/a/type\")"),
        (r#"{"$ref":"https://example.com/s.json"}"#, "references must stay within the file"),
        (r#"{"$ref":"file:///etc/passwd"}"#, "references must stay within the file"),
        (r#"{"$ref":"other.json#/a"}"#, "other.json"),
        (r##"{"$ref":"#/$defs/missing"}"##, "Pointer '/$defs/missing' does not exist"),
        (
            r#"{"$schema":"https://example.com/draft"}"#,
            "Unknown meta-schema: 'https://example.com/draft': expected that of draft 4, 6, 7, ",
        ),
        (
            r#"{"format":"dat-time"}"#,
            "Unknown format: 'dat-time': remove it, or use one that JSON Schema defines (at \"/format\")",
        ),
        (r#"{"type":"objekt"}"#, "\"objekt\" is not a type: expected array, boolean, integer"),
        (r#"{"items":{"format":"regex"}}"#, "uses the format \"regex\", which is not supported"),
        // not linear
        (r#"{"pattern":"(a)\\1"}"#, "(at \"/pattern\")"),
        (
            r#"{"pattern":"a(?!b)"}"#,
            "\"a(?!b)\" is not a usable regular expression: expected one without look-around and \
             back-references, of at most 1024 KiB when compiled (at \"/pattern\")",
        ),
        (r#"{"patternProperties":{"((a{1000}){1000}){100}":{}}}"#, "is not a usable schema"),
    ] {
        let message = load(text).err().unwrap_or_else(|| panic!("{text} is a schema"));
        assert!(message.starts_with("\"s.json\" ") && message.contains(expected), "{text}\n{message}");
    }
}

#[test]
fn only_regular_files_of_limited_length_are_read() {
    let folder = tempfile::tempdir().unwrap();
    let refused = |path: &Path| Schema::load(path).unwrap_err();
    assert!(refused(&folder.path().join("none")).ends_with("No such file or directory (os error 2)"));
    for path in [folder.path(), Path::new("/dev/zero")] {
        assert!(refused(path).ends_with("it must be a regular file"), "{path:?}");
    }
    let path = folder.path().join("huge");
    let schema = format!("{{\"description\":\"{}\"}}", "x".repeat(MAX_FILE_BYTES as usize - 18));
    std::fs::write(&path, &schema).unwrap();
    assert!(Schema::load(&path).is_ok());
    std::fs::write(&path, schema + " ").unwrap();
    assert!(refused(&path).ends_with("is longer than 1048576 bytes"));
}

#[test]
fn deep_schemas_and_long_chains_of_references_are_refused() {
    let deep = |levels: usize| format!("{}{{}}{}", "{\"items\":".repeat(levels), "}".repeat(levels));
    assert!(load(&deep(60)).is_ok());
    assert!(load(&deep(100_000)).unwrap_err().contains("nested deeper than 64 levels"));
    let chain = |links: usize, key: &str| {
        let mut text = "{\"$ref\":\"#/$defs/n0\",\"$defs\":{".to_owned();
        for link in 0..links {
            let _ = write!(
                text,
                "\"n{link}\":{{{}}},",
                key.replace('@', &format!("{{\"$ref\":\"#/$defs/n{}\"}}", link + 1))
            );
        }
        format!("{text}\"n{links}\":{{}}}}}}")
    };
    // through which one value can be checked, and through which each leads to a part of it
    let (same, part) = ("\"oneOf\":[false,@]", "\"properties\":{\"a\":@}");
    assert!(load(&chain(20, same)).is_ok() && load(&chain(490, part)).is_ok());
    assert!(load(&chain(40, same)).unwrap_err().contains("more than 64 schemas that apply to one value"));
    assert!(
        load(&chain(600, part)).unwrap_err().contains("refers to 601 different targets; the limit is 500")
    );
}

#[test]
fn the_deepest_documents_are_checked_against_the_longest_chains_in_the_stack_of_a_thread() {
    let mut schema = json!({"properties": {"a": {"$ref": "#/$defs/n0"}}, "items": {"$ref": "#/$defs/n0"}});
    for link in 0..19 {
        let next = if link == 18 { "#".to_owned() } else { format!("#/$defs/n{}", link + 1) };
        schema["$defs"][format!("n{link}")] =
            json!({"oneOf": [false, {"if": {"type": "null"}, "else": {"$ref": next}}]});
    }
    let schema = load(&schema.to_string()).unwrap();
    let (mut maps, mut lists) = (json!({}), json!([]));
    for _ in 0..crate::document::MAX_DEPTH {
        (maps, lists) = (json!({"a": maps}), json!([lists]));
    }
    // the stack of a thread unless it is created with another
    let check = move || schema.matches(&maps) && schema.matches(&lists);
    assert!(std::thread::Builder::new().stack_size(2 << 20).spawn(check).unwrap().join().unwrap());
}

#[test]
fn schemas_that_refer_to_themselves_end() {
    for schema in [
        json!({"allOf": [{"$ref": "#"}]}),
        json!({"$defs": {"a": {"$ref": "#/$defs/b"}, "b": {"anyOf": [{"$ref": "#/$defs/a"}]}}, "$ref": "#/$defs/a"}),
        json!({"$dynamicAnchor": "n", "allOf": [{"$dynamicRef": "#n"}], "unevaluatedItems": false}),
    ] {
        let _ = matches(&schema, &json!({"a": [1, {}]}));
    }
}

/// Each of the branches refers to the whole schema, so an unlucky checker visits a document 2^60 times.
#[test]
fn recursive_schemas_take_no_exponential_time() {
    let both = |more: Value| {
        let mut branch = json!({"properties": {"a": {"$ref": "#"}}});
        branch.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        branch
    };
    let mut document = json!({"a": 1});
    for _ in 0..60 {
        document = json!({"a": document});
    }
    for schema in [
        json!({"type": "object", "anyOf": [both(json!({"required": ["x"]})), both(json!({"required": ["y"]}))]}),
        json!({"type": "object", "oneOf": [both(json!({"maxProperties": 0})), both(json!({"x": 1}))]}),
        json!({"type": "object", "allOf": [both(json!({})), both(json!({"x": 1}))], "unevaluatedProperties": false}),
        json!({"type": "object", "if": both(json!({})), "then": both(json!({"x": 1})), "else": both(json!({}))}),
    ] {
        let schema = load(&schema.to_string()).unwrap();
        assert!(!schema.matches(&document));
        assert_eq!(schema.explain(&document), None, "would take exponential time");
    }
}

/// A hostile text for each expression: without a limit, 20,000 bytes take 20 s in an optimised build.
#[test]
fn documents_are_too_short_for_a_slow_expression_to_take_long() {
    for pattern in ["^(a*)*(a{1,500}){1,20}$", "a[ab]{100}$", "^(a{0,60}){0,60}b$", "^.*a.{0,200}$"] {
        let schema = load(&json!({"pattern": pattern}).to_string()).unwrap();
        let bytes = schema.max_bytes().unwrap_or(1 << 20).min(1 << 20);
        let start = std::time::Instant::now();
        for text in ["a".repeat(bytes), "ab".repeat(bytes / 2), "aab".repeat(bytes / 3) + "c"] {
            schema.matches(&json!(text));
        }
        // three texts, and a build without optimisation
        assert!(start.elapsed().as_secs() < 30, "{pattern}: {bytes} bytes took {:?}", start.elapsed());
    }
}

#[test]
fn formats_are_checked_and_refusals_explained_without_contents() {
    assert!(matches(&json!({"format": "date-time"}), &json!("2026-11-29T10:00:00Z")));
    assert!(!matches(&json!({"format": "date-time"}), &json!("tomorrow")));
    let schema = load(r#"{"properties":{"unit":{"enum":["C","K"]}},"required":["value"]}"#).unwrap();
    let explained = |document: Value| schema.explain(&document).unwrap();
    assert_eq!(explained(json!({})), "\"value\" is a required property (/required of the schema)");
    let reason = explained(json!({"value": 1, "unit": "secret"}));
    assert!(
        reason.ends_with("(/properties/unit/enum of the schema)") && !reason.contains("secret"),
        "{reason}"
    );
}

#[test]
fn refusals_are_explained_without_names_of_properties() {
    let extra = "1 properties that the schema does not allow (/";
    for (schema, expected) in [
        (json!({"additionalProperties": false}), "False schema does not allow value (/additionalProperties"),
        (json!({"unevaluatedProperties": false}), extra),
        (json!({"propertyNames": {"maxLength": 3}}), "the name of a property is not allowed (/propertyNames"),
        (
            json!({"propertyNames": {"pattern": "^a"}}),
            "the name of a property is not allowed (/propertyNames",
        ),
        (json!({"propertyNames": false}), ""),
        (json!({"additionalProperties": {"type": "null"}}), "value is not of type \"null\" (/additionalP"),
        (json!({"patternProperties": {"^s": {"const": 1}}}), "1 was expected (/patternProperties/"),
        (json!({"additionalProperties": {"additionalProperties": {"items": false}}}), ""),
        (json!({"not": {"required": []}}), "{\"required\":[]} is not allowed for value (/not of the schema)"),
        (json!({"maxProperties": 0}), "value has more than 0 properties (/maxProperties of the schema)"),
        (json!(false), "False schema does not allow value (/ of the schema)"),
    ] {
        let document = json!({"secret": {"secret": ["secret"]}});
        let reason = load(&schema.to_string()).unwrap().explain(&document).unwrap();
        assert!(reason.starts_with(expected) && !reason.contains("secret"), "{schema}: {reason}");
    }
}
