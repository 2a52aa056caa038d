//! The table of an instance in `broker.toml`: which keys there are, and what is right. Touches nothing outside.

use elbus_plugin_api::PluginError;
use serde::Deserialize;
use std::path::PathBuf;

const DEFAULT_MODE: &str = "0622";
const DEFAULT_LINE_BYTES: usize = 65_536;
const LARGEST_LINE_BYTES: usize = 16 * 1024 * 1024;

/// As it stands in the file.
#[derive(Debug, Deserialize)]
pub(crate) struct Settings {
    /// Where the FIFO is made.
    path: PathBuf,
    /// Its permissions, octal, whatever the umask.
    #[serde(default = "default_mode")]
    mode: String,
    /// The longest line, without its end.
    #[serde(default = "default_line_bytes")]
    max_line_bytes: usize,
}

fn default_mode() -> String {
    DEFAULT_MODE.to_owned()
}

fn default_line_bytes() -> usize {
    DEFAULT_LINE_BYTES
}

/// As the instance uses it.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Checked {
    pub(crate) path: PathBuf,
    pub(crate) mode: u32,
    pub(crate) max_line_bytes: usize,
}

impl Settings {
    /// What is wrong with a value, or all of them as the instance uses them.
    pub(crate) fn check(self) -> Result<Checked, PluginError> {
        if self.path.as_os_str().is_empty() {
            return Err(PluginError::of_key("path", "is empty; it is where the fifo is made"));
        }
        let mode =
            u32::from_str_radix(&self.mode, 8).ok().filter(|mode| *mode <= 0o777).ok_or_else(|| {
                let message =
                    format!("{:?} is no file mode; octal up to \"0777\", such as \"0622\"", self.mode);
                PluginError::of_key("mode", message)
            })?;
        let max_line_bytes = self.max_line_bytes;
        if !(1..=LARGEST_LINE_BYTES).contains(&max_line_bytes) {
            let message = format!("{max_line_bytes} is not between 1 and {LARGEST_LINE_BYTES}");
            return Err(PluginError::of_key("max_line_bytes", message));
        }
        Ok(Checked { path: self.path, mode, max_line_bytes })
    }
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
        let expected = Checked { path: "/x".into(), mode: 0o622, max_line_bytes: 65_536 };
        assert_eq!(check("path = '/x'"), Ok(expected));
    }

    #[test]
    fn wrong_values_name_their_key() {
        for (text, key) in [
            ("path = ''", "path"),
            ("path = '/x'\nmode = '0999'", "mode"),
            ("path = '/x'\nmode = '7777'", "mode"),
            ("path = '/x'\nmode = 622", "mode"),
            ("path = '/x'\nmax_line_bytes = 0", "max_line_bytes"),
            ("path = '/x'\nmax_line_bytes = 99999999", "max_line_bytes"),
        ] {
            assert_eq!(check(text).unwrap_err().key, key, "{text}");
        }
        assert!(check("").unwrap_err().message.contains("path"));
    }
}
