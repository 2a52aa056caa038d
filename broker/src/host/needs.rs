//! What plugins require of one another: that each one that an instance needs is declared beside it. Knows names only, and
//! nothing of what they stand for.

use std::path::Path;

use crate::error::BrokerError;

/// What an instance is, and what it requires.
#[derive(Debug, Clone)]
pub(super) struct Needs {
    instance: String,
    plugin: String,
    requires: Vec<String>,
}

impl Needs {
    /// As the record of its plugin says.
    pub(super) fn new(instance: &str, plugin: &str, requires: &str) -> Self {
        let requires = requires.split_whitespace().map(str::to_owned).collect();
        Needs { instance: instance.to_owned(), plugin: plugin.to_owned(), requires }
    }

    /// Of an instance whose library cannot be loaded, which is an error of its own: it counts as what its file is named after.
    pub(super) fn unloaded(instance: &str, code: &str) -> Self {
        let name = Path::new(code).file_name().and_then(|name| name.to_str()).unwrap_or(code);
        let stem = name.strip_suffix(".so").unwrap_or(name);
        Self::new(instance, &stem.strip_prefix("lib").unwrap_or(stem).replace('_', "-"), "")
    }
}

/// An error for each plugin that an instance requires and that is not among them.
pub(super) fn missing(all: &[Needs]) -> Vec<BrokerError> {
    let is_there = |required: &String| all.iter().any(|other| other.plugin == *required);
    let error = |needs: &Needs, required: &String| BrokerError::Requires {
        plugin: needs.instance.clone(),
        required: required.clone(),
    };
    let of_one = |needs: &Needs| -> Vec<_> {
        needs
            .requires
            .iter()
            .filter(|required| !is_there(required))
            .map(|required| error(needs, required))
            .collect()
    };
    all.iter().flat_map(of_one).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_declared_is_not_missing() {
        let server = Needs::new("server", "my-server", "elbus-inproc  elbus-rpc");
        let rpc = Needs::new("rpc", "elbus-rpc", "");
        let said = |all: &[Needs]| missing(all).iter().map(ToString::to_string).collect::<Vec<_>>();
        assert_eq!(
            said(&[server.clone(), rpc.clone()]),
            [
                "plugin \"server\" requires the plugin elbus-inproc, which is not declared; add a [[plugin]] with \
              library = \"elbus_inproc\""
            ]
        );
        for code in ["elbus_inproc", "/usr/lib/elbus/libelbus_inproc.so", "elbus-inproc"] {
            let inproc = Needs::unloaded("clients", code);
            assert_eq!(said(&[server.clone(), rpc.clone(), inproc]), [""; 0], "{code}");
        }
    }
}
