//! The description of every type that crosses the boundary, compared with the one that is checked in. Owns
//! its form; changes nothing.

use abi_stable::{
    StableAbi,
    type_layout::{TLData, TypeLayout},
};
use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write,
    path::Path,
};

use super::PluginRef;

/// Describes all types of this crate that can be reached from the root module of a plugin.
fn describe() -> String {
    let mut found: BTreeMap<String, &'static TypeLayout> = BTreeMap::new();
    let mut visited = BTreeSet::new();
    let mut open: Vec<&'static TypeLayout> = vec![<PluginRef as StableAbi>::LAYOUT];
    while let Some(layout) = open.pop() {
        if !visited.insert(std::ptr::from_ref(layout).addr()) {
            continue;
        }
        open.extend(layout.shared_vars().type_layouts().iter().map(|layout| layout()));
        if layout.package().as_str() == env!("CARGO_PKG_NAME") {
            let module = layout.mod_path().to_string();
            let module = module.trim_start_matches("elbus_plugin_api::");
            found.insert(format!("{module}::{}", layout.full_type()), layout);
        }
    }
    found.iter().map(|(name, layout)| description(name, layout)).collect()
}

fn description(name: &str, layout: &'static TypeLayout) -> String {
    let mut text = String::new();
    let (size, alignment) = (layout.size(), layout.alignment());
    _ = writeln!(text, "{name}: {size} bytes, aligned to {alignment}");
    if let TLData::PrefixType(prefix) = layout.data() {
        _ = writeln!(text, "  in every version: the first {} fields", prefix.first_suffix_field);
    }
    if let TLData::Enum(variants) = layout.data() {
        for name in variants.variant_names_iter() {
            _ = writeln!(text, "  variant {name}");
        }
    }
    for field in layout.get_fields().into_iter().flatten() {
        if field.is_function() {
            for function in field.function_range().iter() {
                let signature = function.to_string();
                _ = writeln!(text, "  {}: {}", field.name(), signature.lines().next().unwrap_or_default());
            }
        } else {
            _ = writeln!(text, "  {}: {}", field.name(), field.full_type());
        }
    }
    text.push('\n');
    text
}

/// To accept a change on purpose, run the test with `ELBUS_UPDATE_LAYOUT=1`, and see ADR 28 for what the
/// version must then be.
#[test]
fn the_layout_is_the_one_that_is_checked_in() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("layout.txt");
    let now = describe();
    assert!(now.contains("RawHost") && now.contains("RawSink"), "{now}");
    if std::env::var_os("ELBUS_UPDATE_LAYOUT").is_some() {
        std::fs::write(&path, &now).unwrap();
    }
    let before = std::fs::read_to_string(&path).unwrap_or_default();
    let difference = now.lines().zip(before.lines()).find(|(now, before)| now != before);
    assert!(now == before, "layout.txt differs, first in {difference:?}; see ADR 28 before it is changed");
}
