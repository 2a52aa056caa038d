//! Names of nodes and clients, exports, imports and aliases.

use super::*;

#[test]
fn names_of_nodes_fit_a_token_of_a_subject() {
    for good in ["mill", "A-1_b", &"x".repeat(64)] {
        assert!(check_node_name(good).is_ok());
    }
    for bad in ["", "a.b", "a b", "ü", "*", ">", "a/b", "@a", &"x".repeat(65)] {
        assert!(check_node_name(bad).is_err(), "{bad:?}");
    }
    assert_eq!(split_remote_name("@mill.plant.pump%%1"), Some(("mill", "plant.pump%%1")));
    for other in ["mill.pump", "@mill", "@mill.", "@.pump", "@a b.c"] {
        assert_eq!(split_remote_name(other), None);
    }
}

#[test]
fn some_names_do_not_travel() {
    for bad in ["", ".broker", "a\0b", "@mill.a", "a.?.b", "*", &"x".repeat(101)] {
        assert!(!can_travel(bad, 100), "{bad:?}");
    }
    for good in ["a", "a.b%%0", "a*", "?a", "ü b"] {
        assert!(can_travel(good, 100), "{good:?}");
    }
}

#[test]
fn nothing_is_exported_or_imported_by_default() {
    assert!(!Exports::default().has_name("a") && !Exports::default().has_topic("t"));
    assert!(Imports::default().local_name("mill", "a").is_none() && !Imports::default().has_topic("t"));
}

#[test]
fn topics_of_the_broker_stay() {
    let exports = Exports::new(&["*"], &["#"]).unwrap();
    assert!(exports.has_topic("a/b") && exports.has_topic("") && !exports.has_topic(".broker/warn"));
    let imports = Imports::new(&["*"], &["#"]).unwrap();
    assert!(!imports.has_topic(".broker/warn") && imports.has_topic("$SYS/x"));
}

#[test]
fn masks_apply_to_remote_names_and_aliases_replace_them() {
    let imports = Imports::new(&["@mill.io.*", "@press.plant.pump as plant.pump"], &[]).unwrap();
    assert_eq!(imports.local_name("mill", "io.a").as_deref(), Some("@mill.io.a"));
    assert_eq!(imports.local_name("mill", "other"), None);
    assert_eq!(imports.local_name("press", "plant.pump").as_deref(), Some("plant.pump"));
    assert_eq!(imports.local_name("press", "plant.pump%%1").as_deref(), Some("plant.pump%%1"));
    assert_eq!(imports.local_name("press", "plant.pump2"), None);
}

#[test]
fn invalid_patterns_are_refused_with_a_message() {
    for bad in ["", "a\0"] {
        assert!(Exports::new(&[bad], &[]).is_err() && Exports::new(&[], &[bad]).is_err());
    }
    assert!(Imports::new(&[], &["$share/g/t"]).is_err());
    for alias in
        ["mill.a as b", "@mill.* as b", "@mill.a as .b", "@mill.a as *", "@mill.a as ", "@mill.a%%1 as b"]
    {
        let error = Imports::new(&[alias], &[]).unwrap_err();
        assert!(error.to_string().starts_with("invalid alias"), "{error}");
    }
}
