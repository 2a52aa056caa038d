//! Summarises the layout errors of `abi_stable`, which are tens of kilobytes long, in a few lines.

use abi_stable::{
    abi_stability::abi_checking::{AbiInstability, AbiInstabilityErrors},
    type_layout::{TLField, TLFieldOrFunction, TypeLayout},
};

/// Returns the differences, most important first. The plugin's layout was checked as the interface, so
/// `expected` of abi_stable is the plugin's side and `found` is the broker's.
pub(super) fn explain(errors: &AbiInstabilityErrors) -> Vec<String> {
    let mut lines: Vec<(String, String)> = Vec::new();
    for error in errors.errors.iter().filter(|error| !error.errs.is_empty()) {
        let (mut fields, mut functions) = (Vec::new(), Vec::new());
        for step in error.stack_trace.iter() {
            match (&step.expected, &step.found) {
                (TLFieldOrFunction::Field(plugin), TLFieldOrFunction::Field(broker)) => {
                    fields.push((*plugin, *broker))
                }
                (_, TLFieldOrFunction::Function(function)) => functions.push(function.name.to_string()),
                _ => {}
            }
        }
        functions.dedup();
        let seen = if functions.is_empty() {
            String::new()
        } else {
            format!(" (seen in {})", functions.join(" > "))
        };
        let (plugin, broker) =
            fields.last().map_or((errors.interface, errors.implementation), |(plugin, broker)| {
                (plugin.layout(), broker.layout())
            });
        let owner = fields.iter().rev().nth(1).map_or("", |(_, broker)| broker.layout().name());
        let field = fields.last().map_or("?", |(_, broker)| broker.name());
        for instability in error.errs.iter() {
            let Some(line) = describe(instability, plugin, broker, owner, field) else { continue };
            // a size that follows from a changed field adds no information
            let follows = matches!(instability, AbiInstability::Size(_) | AbiInstability::Alignment(_));
            if follows && (error.errs.len() > 1 || !lines.is_empty()) {
                continue;
            }
            if !lines.iter().any(|(known, _)| *known == line) {
                lines.push((line, seen.clone()));
            }
        }
    }
    lines.into_iter().map(|(line, seen)| line + &seen).collect()
}

fn describe(
    instability: &AbiInstability,
    plugin: &'static TypeLayout,
    broker: &'static TypeLayout,
    owner: &str,
    field: &str,
) -> Option<String> {
    let name = broker.name();
    Some(match instability {
        AbiInstability::Name(names) => {
            format!("{owner}.{field}: {} in the plugin, {} in the broker", names.expected, names.found)
        }
        AbiInstability::UnexpectedField(fields) => {
            let (theirs, ours) = (show(&fields.expected), show(&fields.found));
            format!("{name}: `{theirs}` in the plugin is `{ours}` in the broker")
        }
        AbiInstability::FieldCountMismatch(counts) => {
            match (surplus(plugin, broker), surplus(broker, plugin)) {
                (Some(field), _) => {
                    format!("{name}: the plugin has `{field}`, which the broker does not have")
                }
                (_, Some(field)) => {
                    format!("{name}: the broker has `{field}`, which the plugin does not have")
                }
                _ => format!(
                    "{name}: {} members in the plugin, {} in the broker",
                    counts.expected, counts.found
                ),
            }
        }
        AbiInstability::PackageVersion(versions) => {
            let package = broker.package();
            format!(
                "{name}: from {package} {} in the plugin, {} in the broker",
                versions.expected, versions.found
            )
        }
        AbiInstability::Size(sizes) => {
            format!("{name}: {} bytes in the plugin, {} in the broker", sizes.expected, sizes.found)
        }
        other => {
            let text = format!("{other:?}");
            let kind = text.split(['(', ' ', '{']).next().unwrap_or_default();
            format!("{name}: differs in {kind}")
        }
    })
}

fn show(field: &TLField) -> String {
    format!("{}: {}", field.name(), field.layout().full_type())
}

/// Returns the first field of `a` that `b` does not have.
fn surplus(a: &'static TypeLayout, b: &'static TypeLayout) -> Option<String> {
    let (a, b) = (a.get_fields()?, b.get_fields()?);
    let known: Vec<_> = b.iter().map(|field| field.name()).collect();
    a.iter().find(|field| !known.contains(&field.name())).map(|field| show(&field))
}
