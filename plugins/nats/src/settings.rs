//! The table of an instance: reads and checks it, the key and the certificates included. Connects to nothing.

use async_nats::{ConnectOptions, ServerAddr, Subject};
use elbus_bridge::{
    Exports, Imports, Key, Limits, SettingsError,
    mirror::{Mirror, subject_covers},
};
use elbus_plugin_api::{Config, PluginError, config::check_range};
use elbus_protocol::{subscription::has_options, topic};
use elbus_tls::{ClientFiles, Part};
use serde::Deserialize;
use std::{path::PathBuf, time::Duration};

use crate::secret;

/// Servers, masks, filters or aliases of one list.
const MAX_LIST: usize = 1000;
/// Time for a TCP connection, TLS and the handshake of NATS.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// Batches that the client of NATS keeps until they are written. Further ones are not assembled.
const QUEUED_BATCHES: usize = 32;

#[derive(Deserialize)]
struct Table {
    servers: Vec<String>,
    bus: String,
    node: String,
    key_file: PathBuf,
    credentials: Option<PathBuf>,
    user: Option<String>,
    password_file: Option<PathBuf>,
    token_file: Option<PathBuf>,
    tls: Option<TlsTable>,
    #[serde(default)]
    export: Lists,
    #[serde(default)]
    import: Lists,
    #[serde(default)]
    mirror: Vec<String>,
    #[serde(default)]
    mirror_subjects: MirrorSubjects,
    #[serde(default = "default_max_nodes")]
    max_nodes: usize,
    #[serde(default = "default_max_names")]
    max_names: usize,
    #[serde(default = "default_max_filters")]
    max_filters: usize,
    #[serde(default = "default_max_message_bytes")]
    max_message_bytes: usize,
    #[serde(default = "default_node_bytes")]
    node_bytes: usize,
    #[serde(default = "default_receiver_bytes")]
    receiver_bytes: usize,
}

#[derive(Deserialize, Default)]
#[serde(default, deny_unknown_fields)]
struct Lists {
    names: Vec<String>,
    topics: Vec<String>,
}

/// How subjects of mirrored topics begin.
#[derive(Deserialize, Clone, Copy, PartialEq, Eq, Default)]
#[serde(rename_all = "lowercase")]
enum MirrorSubjects {
    /// As the topic.
    #[default]
    Bare,
    /// With `BUS.topic.`.
    Prefixed,
}

#[derive(Deserialize, Clone, Default)]
#[serde(default, deny_unknown_fields)]
struct TlsTable {
    ca: Option<PathBuf>,
    certificate: Option<PathBuf>,
    key: Option<PathBuf>,
}

fn default_max_nodes() -> usize {
    Limits::default().max_nodes
}

fn default_max_names() -> usize {
    Limits::default().max_names
}

fn default_max_filters() -> usize {
    Limits::default().max_filters
}

fn default_max_message_bytes() -> usize {
    Limits::default().max_message_bytes
}

fn default_node_bytes() -> usize {
    Limits::default().pair_credit
}

fn default_receiver_bytes() -> usize {
    Limits::default().receiver_window
}

/// The settings of an instance, checked.
#[derive(Debug)]
pub(crate) struct Settings {
    pub(crate) servers: Vec<ServerAddr>,
    pub(crate) login: Login,
    pub(crate) bridge: elbus_bridge::Settings,
    /// Topics that are shared with NATS programs.
    pub(crate) mirror: Vec<String>,
    /// How their topics become subjects.
    pub(crate) mapping: Mirror,
}

/// By what the broker authenticates itself to a server. Files are read for each connection.
#[derive(Debug)]
pub(crate) struct Login {
    credentials: Option<PathBuf>,
    user: Option<String>,
    password_file: Option<PathBuf>,
    token_file: Option<PathBuf>,
    tls: Option<ClientFiles>,
    name: String,
}

impl Settings {
    /// Reads and checks the table, and the files that it names.
    ///
    /// # Errors
    /// The first key that is wrong.
    pub(crate) fn read(config: &Config) -> Result<Self, PluginError> {
        let table: Table = config.read()?;
        if table.servers.is_empty() {
            let text = "expected at least one address, such as \"nats://10.0.0.1:4222\"";
            return Err(PluginError::of_key("servers", text));
        }
        for (key, list) in [
            ("servers", &table.servers),
            ("export.names", &table.export.names),
            ("export.topics", &table.export.topics),
            ("import.names", &table.import.names),
            ("import.topics", &table.import.topics),
            ("mirror", &table.mirror),
        ] {
            if list.len() > MAX_LIST {
                let text = format!("{} entries; the limit is {MAX_LIST}", list.len());
                return Err(PluginError::of_key(key, text));
            }
        }
        let servers = table.servers.iter().enumerate().map(|(index, text)| server(index, text));
        let servers = servers.collect::<Result<_, _>>()?;
        let key = secret::read(&table.key_file).map_err(|text| PluginError::of_key("key_file", text))?;
        let key = Key::new(&key)
            .map_err(|error| PluginError::of_key("key_file", format!("{:?}: {error}", table.key_file)))?;
        elbus_bridge::check_node_name(&table.bus).map_err(|error| of_key("bus", &error))?;
        elbus_bridge::check_node_name(&table.node).map_err(|error| of_key("node", &error))?;
        let mut bridge = elbus_bridge::Settings::new(&table.bus, &table.node, key)
            .map_err(|error| of_key("node", &error))?;
        bridge.exports = exports(&table.export)?;
        bridge.imports = imports(&table.import)?;
        bridge.limits = limits(&table)?;
        check_filters("mirror", &table.mirror)?;
        let login = Login::new(&table)?;
        login.check()?;
        let mapping = Mirror::new(&table.bus, table.mirror_subjects == MirrorSubjects::Bare);
        if let Some(filter) = table.mirror.iter().find(|filter| mapping.subject_of_filter(filter).is_none()) {
            let text = format!("{filter:?} is too long for a subject of NATS");
            return Err(PluginError::of_key("mirror", text));
        }
        Ok(Settings { servers, login, bridge, mirror: table.mirror, mapping })
    }

    /// Returns the subjects to subscribe to for the mirrored topics: none that another one covers, since the
    /// server sends a message once for each subscription that it matches.
    pub(crate) fn mirrored_subjects(&self) -> Vec<Subject> {
        // the filters were checked when the table was read
        let subjects = self.mirror.iter().filter_map(|filter| self.mapping.subject_of_filter(filter));
        let mut all: Vec<String> = Vec::new();
        for subject in subjects {
            if !all.iter().any(|wider| subject_covers(wider, &subject)) {
                all.retain(|narrower| !subject_covers(&subject, narrower));
                all.push(subject);
            }
        }
        all.into_iter().map(Subject::from).collect()
    }
}

fn of_key(key: &str, error: &SettingsError) -> PluginError {
    PluginError::of_key(key, error.to_string())
}

fn server(index: usize, text: &str) -> Result<ServerAddr, PluginError> {
    let refuse = |why: &str| PluginError::of_key(format!("servers[{index}]"), format!("{text:?}: {why}"));
    let address: ServerAddr = text.parse().map_err(|error: std::io::Error| refuse(&error.to_string()))?;
    if !matches!(address.scheme(), "nats" | "tls") {
        return Err(refuse("expected nats://HOST:PORT or tls://HOST:PORT"));
    }
    if address.has_user_pass() {
        return Err(refuse("a password in an address would be logged: set user and password_file"));
    }
    Ok(address)
}

/// Checks that each entry is a filter that a topic can match.
fn check_filters(key: &str, filters: &[String]) -> Result<(), PluginError> {
    for filter in filters {
        let why = match &**filter {
            "" => "is empty",
            text if text.contains('\0') || text.len() > 1024 => "is longer than 1024 bytes or contains a NUL",
            text if has_options(text) => "begins with options: write the filter without them",
            text if topic::matches(text, ".broker") || text.starts_with(".broker") || text == "#" => {
                // `#` is a valid filter: topics of the broker itself do not leave it in any case
                if text.starts_with(".broker") {
                    "names topics of the broker, which stay local"
                } else {
                    continue;
                }
            }
            _ => continue,
        };
        return Err(PluginError::of_key(key, format!("{filter:?} {why}")));
    }
    Ok(())
}

fn exports(lists: &Lists) -> Result<Exports, PluginError> {
    check_filters("export.topics", &lists.topics)?;
    if let Some(mask) = lists.names.iter().find(|mask| mask.starts_with('@')) {
        let text = format!("{mask:?}: clients of other nodes are not exported again");
        return Err(PluginError::of_key("export.names", text));
    }
    Exports::new(&lists.names, &lists.topics).map_err(|error| of_key("export.names", &error))
}

fn imports(lists: &Lists) -> Result<Imports, PluginError> {
    check_filters("import.topics", &lists.topics)?;
    let is_remote = |mask: &&String| !mask.starts_with(['@', '*', '?']);
    if let Some(mask) = lists.names.iter().find(is_remote) {
        let text = format!("{mask:?} matches no client of another node: write \"@NODE.{mask}\"");
        return Err(PluginError::of_key("import.names", text));
    }
    Imports::new(&lists.names, &lists.topics).map_err(|error| of_key("import.names", &error))
}

fn limits(table: &Table) -> Result<Limits, PluginError> {
    check_range("max_nodes", table.max_nodes, 1..=1000)?;
    check_range("max_names", table.max_names, 1..=1_000_000)?;
    check_range("max_filters", table.max_filters, 1..=100_000)?;
    check_range("max_message_bytes", table.max_message_bytes, 1024..=1 << 30)?;
    check_range("node_bytes", table.node_bytes, 1 << 20..=1 << 30)?;
    check_range("receiver_bytes", table.receiver_bytes, 64 << 10..=1 << 28)?;
    let defaults = Limits::default();
    Ok(Limits {
        max_nodes: table.max_nodes,
        max_names: table.max_names,
        max_names_bytes: defaults.max_names_bytes.max(table.max_names.saturating_mul(100)),
        max_filters: table.max_filters,
        max_filters_bytes: defaults.max_filters_bytes.max(table.max_filters.saturating_mul(64)),
        max_message_bytes: table.max_message_bytes,
        pair_credit: table.node_bytes,
        receiver_window: table.receiver_bytes,
        publication_window: defaults.publication_window.max(table.receiver_bytes),
        node_window: defaults.node_window.max(table.node_bytes),
        ..defaults
    })
}

impl Login {
    fn new(table: &Table) -> Result<Self, PluginError> {
        let ways = [table.credentials.is_some(), table.user.is_some(), table.token_file.is_some()];
        if ways.into_iter().filter(|way| *way).count() > 1 {
            let text = "a server takes one of credentials, user and token_file";
            return Err(PluginError::of_key("credentials", text));
        }
        if table.user.is_some() != table.password_file.is_some() {
            return Err(PluginError::of_key("user", "user and password_file belong together"));
        }
        let tls = table.tls.clone().map(|TlsTable { ca, certificate, key }| match (certificate, key) {
            (Some(certificate), Some(key)) => {
                Ok(ClientFiles { roots: ca, identity: Some((certificate, key)) })
            }
            (None, None) => Ok(ClientFiles { roots: ca, identity: None }),
            _ => Err(PluginError::of_key("tls", "certificate and key belong together")),
        });
        Ok(Login {
            credentials: table.credentials.clone(),
            user: table.user.clone(),
            password_file: table.password_file.clone(),
            token_file: table.token_file.clone(),
            tls: tls.transpose()?,
            name: format!("elbus {} of bus {}", table.node, table.bus),
        })
    }

    /// Checks the files.
    ///
    /// # Errors
    /// The first that cannot be used.
    pub(crate) fn check(&self) -> Result<(), PluginError> {
        self.options().map(drop)?;
        if let Some(tls) = &self.tls {
            tls.load().map_err(|error| {
                let key = match error.part {
                    Part::Certificate => "tls.certificate",
                    Part::Key => "tls.key",
                    Part::Roots => "tls.ca",
                };
                PluginError::of_key(key, error.to_string())
            })?;
        }
        Ok(())
    }

    /// Returns the name of a connection, as the server shows it.
    pub(crate) fn name(&self, about: &str) -> String {
        format!("{}{about}", self.name)
    }

    /// Returns the options of a new connection, with the files as they are now.
    ///
    /// # Errors
    /// A file that cannot be used.
    pub(crate) fn options(&self) -> Result<ConnectOptions, PluginError> {
        let of = |key: &'static str| move |text: String| PluginError::of_key(key, text);
        let mut options = ConnectOptions::new()
            .no_echo()
            .connection_timeout(CONNECT_TIMEOUT)
            .client_capacity(QUEUED_BATCHES)
            .max_reconnects(1)
            .skip_subject_validation(true);
        if let Some(path) = &self.credentials {
            // the parser expects a line end after the last line
            let text = secret::read_text(path).map_err(of("credentials"))? + "\n";
            options = options
                .credentials(&text)
                .map_err(|error| PluginError::of_key("credentials", format!("{path:?}: {error}")))?;
        }
        if let (Some(user), Some(path)) = (&self.user, &self.password_file) {
            let password = secret::read_text(path).map_err(of("password_file"))?;
            options = options.user_and_password(user.clone(), password);
        }
        if let Some(path) = &self.token_file {
            options = options.token(secret::read_text(path).map_err(of("token_file"))?);
        }
        if let Some(tls) = &self.tls {
            options = options.require_tls(true);
            if let Some(roots) = &tls.roots {
                options = options.add_root_certificates(roots.clone());
            }
            if let Some((certificate, key)) = &tls.identity {
                options = options.add_client_certificate(certificate.clone(), key.clone());
            }
        }
        Ok(options)
    }
}

#[cfg(test)]
mod tests;
