//! The keys of the socket: its path, mode and owners. Owns their validation; touches no file.

use elbus_plugin_api::{Config, PluginError, os::UserOrGroup};
use serde::Deserialize;
use std::path::PathBuf;

/// Maximum length of a path in a socket address, without its NUL.
pub(crate) const MAX_PATH_BYTES: usize = 107;

#[derive(Deserialize)]
struct Keys {
    path: String,
    #[serde(default = "default_mode")]
    mode: String,
    owner: Option<UserOrGroup>,
    group: Option<UserOrGroup>,
}

fn default_mode() -> String {
    "0660".to_owned()
}

/// The path of the socket, its mode and owners.
#[derive(Debug, Clone)]
pub(crate) struct SocketPath {
    pub(crate) path: PathBuf,
    pub(crate) mode: u32,
    pub(crate) owner: Option<UserOrGroup>,
    pub(crate) group: Option<UserOrGroup>,
}

impl SocketPath {
    pub(crate) fn read(config: &Config) -> Result<Self, PluginError> {
        let Keys { path, mode, owner, group } = config.read()?;
        if path.is_empty() || path.ends_with('/') || path.contains('\0') {
            return Err(PluginError::of_key("path", format!("{path:?} is not the path of a file")));
        }
        if path.starts_with('@') {
            let message = format!(
                "sockets without a file (abstract ones) are not supported: they have no permissions, so that every user \
                 may connect; for a file of this name write \"./{path}\""
            );
            return Err(PluginError::of_key("path", message));
        }
        if path.len() > MAX_PATH_BYTES {
            let shown: String = path.chars().take(MAX_PATH_BYTES).collect();
            let message = format!(
                "{shown:?}... has {} bytes, and the kernel accepts at most {MAX_PATH_BYTES}; choose a shorter path",
                path.len()
            );
            return Err(PluginError::of_key("path", message));
        }
        let octal = u32::from_str_radix(&mode, 8).ok().filter(|mode| *mode <= 0o777).ok_or_else(|| {
            PluginError::of_key("mode", format!("{mode:?} is not an octal number up to \"0777\""))
        })?;
        // read again at the bind, since ids can change
        owner.as_ref().map(|account| account.user_id("owner")).transpose()?;
        group.as_ref().map(|account| account.group_id("group")).transpose()?;
        Ok(SocketPath { path: path.into(), mode: octal, owner, group })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    fn read(text: &str) -> Result<SocketPath, PluginError> {
        SocketPath::read(&Config::parse(text).unwrap())
    }

    #[test]
    fn defaults_and_values() {
        let socket_path = read("path = 'x.sock'").unwrap();
        assert_eq!((socket_path.mode, socket_path.path.as_path()), (0o660, Path::new("x.sock")));
        let socket_path = read("path = '/run/x.sock'\nmode = '600'\nowner = 5\ngroup = 'root'").unwrap();
        assert_eq!((socket_path.mode, socket_path.path.as_path()), (0o600, Path::new("/run/x.sock")));
        assert_eq!(socket_path.owner, Some(UserOrGroup::Number(5)));
        assert_eq!(socket_path.group, Some(UserOrGroup::Name("root".into())));
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
        assert!(long.to_string().contains(" has 108 bytes, and the kernel accepts at most 107"), "{long}");
        let abstract_one = read("path = '@bus'").unwrap_err().to_string();
        assert!(abstract_one.starts_with("path: sockets without a file (abstract ones) are not supported"));
        let group = read("path = 'x'\ngroup = 'no-such-group'").unwrap_err();
        assert_eq!(group.key, "group");
    }
}
