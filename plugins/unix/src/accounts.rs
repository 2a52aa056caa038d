//! Users and groups by name or number. Reads `/etc/passwd` and `/etc/group` and nothing else: what only a directory
//! service knows must be given as a number.

use elbus_plugin_api::PluginError;
use serde::Deserialize;

/// A user or a group.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(untagged, expecting = "a name or a number")]
pub(crate) enum Account {
    /// By number.
    Number(u32),
    /// By name, or by number as text.
    Name(String),
}

impl Account {
    /// The number, looked up in `file`, a list of lines `name:password:number`; `key` is for the error.
    pub(crate) fn number(&self, key: &str, file: &str) -> Result<u32, PluginError> {
        let name = match self {
            Account::Number(number) => return Ok(*number),
            Account::Name(name) => name,
        };
        if let Ok(number) = name.parse() {
            return Ok(number);
        }
        let text = std::fs::read_to_string(file).map_err(|error| {
            PluginError::of_key(key, format!("cannot look {name:?} up in {file}: {error}"))
        })?;
        number_of(&text, name).ok_or_else(|| {
            PluginError::of_key(key, format!("no {name:?} in {file}; a number is taken as well"))
        })
    }
}

fn number_of(text: &str, name: &str) -> Option<u32> {
    text.lines().find_map(|line| {
        let mut fields = line.split(':');
        (fields.next() == Some(name)).then(|| fields.nth(1)?.parse().ok())?
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_numbers() {
        let file = "root:x:0:0:root:/root:/bin/sh\nbroken\nbus:x:972:\n";
        assert_eq!((number_of(file, "root"), number_of(file, "bus")), (Some(0), Some(972)));
        assert_eq!((number_of(file, "broken"), number_of(file, "")), (None, None));
        assert_eq!(Account::Name("33".into()).number("owner", "/nowhere"), Ok(33));
        assert_eq!(Account::Number(7).number("owner", "/nowhere"), Ok(7));
        let error = Account::Name("no such one".into()).number("owner", "/etc/passwd").unwrap_err();
        assert_eq!(error.to_string(), "owner: no \"no such one\" in /etc/passwd; a number is taken as well");
    }
}
