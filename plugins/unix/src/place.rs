//! Where the socket is and who may use it, as the table says. Owns the judgement of these keys; touches nothing.

use elbus_plugin_api::{Account, Config, PluginError};
use serde::Deserialize;
use std::path::PathBuf;

/// Bytes of a path that an address of the kernel has room for, its NUL not counted.
pub(crate) const MAX_PATH_BYTES: usize = 107;

#[derive(Deserialize)]
struct Keys {
    path: String,
    #[serde(default = "default_mode")]
    mode: String,
    owner: Option<Account>,
    group: Option<Account>,
}

fn default_mode() -> String {
    "0660".to_owned()
}

/// Where the socket is and who may use it.
#[derive(Debug, Clone)]
pub(crate) struct Place {
    pub(crate) path: PathBuf,
    pub(crate) mode: u32,
    pub(crate) owner: Option<Account>,
    pub(crate) group: Option<Account>,
}

impl Place {
    pub(crate) fn read(config: &Config) -> Result<Self, PluginError> {
        let Keys { path, mode, owner, group } = config.read()?;
        if path.is_empty() || path.ends_with('/') || path.contains('\0') {
            return Err(PluginError::of_key("path", format!("{path:?} is not the path of a file")));
        }
        if path.len() > MAX_PATH_BYTES {
            let message = format!("{path:?} has {} bytes, which exceeds {MAX_PATH_BYTES}", path.len());
            return Err(PluginError::of_key("path", message));
        }
        let octal = u32::from_str_radix(&mode, 8).ok().filter(|mode| *mode <= 0o777).ok_or_else(|| {
            PluginError::of_key("mode", format!("{mode:?} is not an octal number up to \"0777\""))
        })?;
        Ok(Place { path: path.into(), mode: octal, owner, group })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    fn read(text: &str) -> Result<Place, PluginError> {
        Place::read(&Config::parse(text).unwrap())
    }

    #[test]
    fn defaults_and_values() {
        let place = read("path = 'x.sock'").unwrap();
        assert_eq!((place.mode, place.path.as_path()), (0o660, Path::new("x.sock")));
        let place = read("path = '/run/x.sock'\nmode = '600'\nowner = 5\ngroup = 'bus'").unwrap();
        assert_eq!((place.mode, place.path.as_path()), (0o600, Path::new("/run/x.sock")));
        assert_eq!(place.owner, Some(Account::Number(5)));
        assert_eq!(place.group, Some(Account::Name("bus".into())));
    }

    #[test]
    fn errors_name_the_key() {
        for (text, message) in [
            ("", "missing key `path`"),
            ("path = ''", "path: \"\" is not the path of a file"),
            ("path = 'x'\nmode = '0888'", "mode: \"0888\" is not an octal number up to \"0777\""),
            ("path = 'x'\nmode = '1777'", "mode: \"1777\" is not an octal number up to \"0777\""),
            ("path = 'x'\nowner = true", "owner: a name or a number"),
        ] {
            assert_eq!(read(text).unwrap_err().to_string(), message);
        }
        let long = read(&format!("path = '/{}'", "x".repeat(107))).unwrap_err();
        assert!(long.to_string().ends_with(" has 108 bytes, which exceeds 107"), "{long}");
    }
}
