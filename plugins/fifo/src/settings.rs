//! The configuration of an instance: its keys, defaults and checks. Never touches the FIFO.

use elbus_plugin_api::{PluginError, config::check_range, os::UserOrGroup};
use serde::Deserialize;
use std::path::PathBuf;

/// Only the broker's user can write; with a group, also its members.
const DEFAULT_MODE: u32 = 0o600;
const DEFAULT_GROUP_MODE: u32 = 0o620;
const DEFAULT_LINE_BYTES: usize = 65_536;
const MAX_LINE_BYTES: usize = 16 * 1024 * 1024;

/// The keys as written in the file.
#[derive(Debug, Deserialize)]
pub(crate) struct Settings {
    /// The path of the FIFO.
    path: PathBuf,
    /// Its permissions in octal, regardless of the umask.
    mode: Option<String>,
    /// Its group, a name or a number.
    group: Option<UserOrGroup>,
    /// Whether its lines can call administrative methods if no access rule decides.
    #[serde(default)]
    admin: bool,
    /// The longest line, without its line feed.
    #[serde(default = "default_line_bytes")]
    max_line_bytes: usize,
}

fn default_line_bytes() -> usize {
    DEFAULT_LINE_BYTES
}

/// The checked values.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Checked {
    pub(crate) path: PathBuf,
    pub(crate) mode: u32,
    pub(crate) group: Option<u32>,
    pub(crate) admin: bool,
    /// Neither `mode` nor `group` is given.
    pub(crate) is_default_mode: bool,
    pub(crate) max_line_bytes: usize,
}

impl Settings {
    /// Returns the checked values, or the error of the first wrong one.
    pub(crate) fn check(self) -> Result<Checked, PluginError> {
        if self.path.as_os_str().is_empty() {
            return Err(PluginError::of_key("path", "is empty; expected the path of the fifo"));
        }
        let is_default_mode = self.mode.is_none() && self.group.is_none();
        let group = self.group.map(|group| group.group_id("group")).transpose()?;
        let default = if group.is_some() { DEFAULT_GROUP_MODE } else { DEFAULT_MODE };
        let mode = self.mode.map(|mode| octal(&mode)).transpose()?.unwrap_or(default);
        let max_line_bytes = self.max_line_bytes;
        check_range("max_line_bytes", max_line_bytes, 1..=MAX_LINE_BYTES)?;
        let (path, admin) = (self.path, self.admin);
        Ok(Checked { path, mode, group, admin, is_default_mode, max_line_bytes })
    }
}

fn octal(mode: &str) -> Result<u32, PluginError> {
    u32::from_str_radix(mode, 8).ok().filter(|mode| *mode <= 0o777).ok_or_else(|| {
        let message = format!("{mode:?} is not a file mode; expected octal up to \"0777\", such as \"0620\"");
        PluginError::of_key("mode", message)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use elbus_plugin_api::Config;

    fn check(text: &str) -> Result<Checked, PluginError> {
        Config::parse(text).unwrap().read::<Settings>()?.check()
    }

    #[test]
    fn defaults() {
        let expected = |mode, group, is_default_mode| Checked {
            path: "/x".into(),
            mode,
            group,
            admin: false,
            is_default_mode,
            max_line_bytes: 65_536,
        };
        assert_eq!(check("path = '/x'"), Ok(expected(0o600, None, true)));
        assert_eq!(check("path = '/x'\ngroup = 7"), Ok(expected(0o620, Some(7), false)));
        assert_eq!(check("path = '/x'\ngroup = 7\nmode = '0600'"), Ok(expected(0o600, Some(7), false)));
        assert_eq!(check("path = '/x'\nmode = '0622'"), Ok(expected(0o622, None, false)));
    }

    #[test]
    fn wrong_values_name_their_key() {
        for (text, key) in [
            ("path = ''", "path"),
            ("path = '/x'\nmode = '0999'", "mode"),
            ("path = '/x'\nmode = '7777'", "mode"),
            ("path = '/x'\nmode = 622", "mode"),
            ("path = '/x'\ngroup = 'no-such-group'", "group"),
            ("path = '/x'\nadmin = 'yes'", "admin"),
            ("path = '/x'\nmax_line_bytes = 0", "max_line_bytes"),
            ("path = '/x'\nmax_line_bytes = 99999999", "max_line_bytes"),
        ] {
            assert_eq!(check(text).unwrap_err().key, key, "{text}");
        }
        assert!(check("").unwrap_err().message.contains("path"));
    }
}
