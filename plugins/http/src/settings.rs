//! The keys that the plugins share. Owns their defaults and their validation; reads the files that they name.

use elbus_network::{Addresses, TlsKeys};
use elbus_plugin_api::PluginError;
use serde::Deserialize;
use std::path::PathBuf;

use crate::{forwarding::TrustedProxies, origin::AllowedOrigins};

/// Maximum length of a path.
const MAX_PATH_BYTES: usize = 1024;

/// The keys of every plugin that has this server.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub(crate) struct Keys {
    pub(crate) bind: Addresses,
    #[serde(default)]
    allowed_origins: Texts,
    #[serde(default)]
    trusted_proxies: Texts,
    pub(crate) tokens_file: Option<PathBuf>,
    #[serde(default = "default_cookie")]
    pub(crate) token_cookie: String,
    #[serde(default)]
    pub(crate) token_in_query: bool,
    pub(crate) tls: Option<TlsKeys>,
}

/// One text, as a command line has it, or several.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(untagged, expecting = "a text, or a list of texts")]
enum Texts {
    One(String),
    Several(Vec<String>),
}

impl Default for Texts {
    fn default() -> Self {
        Texts::Several(Vec::new())
    }
}

impl Texts {
    fn to_vec(&self) -> Vec<String> {
        match self {
            Texts::One(text) => vec![text.clone()],
            Texts::Several(texts) => texts.clone(),
        }
    }
}

fn default_cookie() -> String {
    "elbus_token".to_owned()
}

impl Keys {
    /// Checks the values; returns those that have been converted.
    pub(crate) fn check(&self) -> Result<(AllowedOrigins, TrustedProxies), PluginError> {
        self.bind.check()?;
        let is_token = |c: char| c.is_ascii_alphanumeric() || "!#$%&'*+-.^_`|~".contains(c);
        if self.token_cookie.is_empty() || !self.token_cookie.chars().all(is_token) {
            let message = format!("{:?} is not the name of a cookie", self.token_cookie);
            return Err(PluginError::of_key("token_cookie", message));
        }
        let proxies = TrustedProxies::new(&self.trusted_proxies.to_vec())?;
        Ok((AllowedOrigins::new(self.allowed_origins.to_vec())?, proxies))
    }

    /// Returns the host names in `bind`, without the addresses.
    pub(crate) fn names(&self) -> Vec<String> {
        let hosts = self.bind.each().iter().filter_map(|address| Some(address.rsplit_once(':')?.0));
        hosts
            .filter(|host| host.chars().any(|c| c.is_ascii_alphabetic()) && !host.contains(':'))
            .map(str::to_owned)
            .collect()
    }
}

/// Checks the path of the WebSocket, the value of the key `path`.
pub(crate) fn check_path(path: &str) -> Result<(), PluginError> {
    let is_visible = |c: char| c.is_ascii_graphic() && !"?#".contains(c);
    if path.starts_with('/') && path.len() <= MAX_PATH_BYTES && path.chars().all(is_visible) {
        return Ok(());
    }
    let message = format!(
        "{path:?} is not a path such as \"/bus\": it begins with a slash, and has no query and at most \
         {MAX_PATH_BYTES} visible ASCII characters"
    );
    Err(PluginError::of_key("path", message))
}
