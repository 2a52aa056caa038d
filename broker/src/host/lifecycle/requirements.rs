//! Dependencies between plugins: checks that every plugin that an instance requires is declared. Compares
//! names only.

use std::path::Path;

use crate::error::BrokerError;

/// The plugin of an instance, and the plugins that it requires.
#[derive(Debug, Clone)]
pub(super) struct Requirements {
    instance: String,
    plugin: String,
    requires: Vec<String>,
}

impl Requirements {
    /// Creates the requirements from a plugin's manifest; `requires` separates names by spaces.
    pub(super) fn new(instance: &str, plugin: &str, requires: &str) -> Self {
        let requires = requires.split_whitespace().map(str::to_owned).collect();
        Requirements { instance: instance.to_owned(), plugin: plugin.to_owned(), requires }
    }

    /// Creates the requirements of an instance whose library cannot be loaded, which is reported separately:
    /// the plugin's name is derived from the file name.
    pub(super) fn unloaded(instance: &str, code: &str) -> Self {
        let name = Path::new(code).file_name().and_then(|name| name.to_str()).unwrap_or(code);
        let stem = name.strip_suffix(".so").unwrap_or(name);
        Self::new(instance, &stem.strip_prefix("lib").unwrap_or(stem).replace('_', "-"), "")
    }
}

/// Returns an error for each required plugin that is not declared.
pub(super) fn missing_plugins(all: &[Requirements]) -> Vec<BrokerError> {
    let is_declared = |required: &String| all.iter().any(|other| other.plugin == *required);
    let error = |requirements: &Requirements, required: &String| BrokerError::Requires {
        plugin: requirements.instance.clone(),
        required: required.clone(),
    };
    let of_one = |requirements: &Requirements| -> Vec<_> {
        requirements
            .requires
            .iter()
            .filter(|required| !is_declared(required))
            .map(|required| error(requirements, required))
            .collect()
    };
    all.iter().flat_map(of_one).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_declared_plugin_is_not_missing() {
        let server = Requirements::new("server", "my-server", "elbus-inproc  elbus-rpc");
        let rpc = Requirements::new("rpc", "elbus-rpc", "");
        let texts =
            |all: &[Requirements]| missing_plugins(all).iter().map(ToString::to_string).collect::<Vec<_>>();
        assert_eq!(
            texts(&[server.clone(), rpc.clone()]),
            ["plugin \"server\" requires the plugin elbus-inproc, which is not declared; add a [[plugin]] \
                 with library = \"elbus_inproc\""]
        );
        for code in ["elbus_inproc", "/usr/lib/elbus/libelbus_inproc.so", "elbus-inproc"] {
            let inproc = Requirements::unloaded("clients", code);
            assert_eq!(texts(&[server.clone(), rpc.clone(), inproc]), [""; 0], "{code}");
        }
    }
}
