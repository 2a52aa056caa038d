//! The table of services: reads and checks it. Starts nothing.

use elbus_plugin_api::{
    PluginError,
    config::{check_range, seconds},
    hooks::MAX_HOOK_FILTERS,
    os::UserOrGroup,
};
use rustix::process::{getegid, geteuid};
use serde::Deserialize;
use std::{collections::BTreeMap, path::PathBuf, time::Duration};

/// Services of an instance.
const MAX_SERVICES: usize = MAX_HOOK_FILTERS;

#[derive(Deserialize)]
pub(crate) struct Settings {
    #[serde(default, rename = "service")]
    services: Vec<ServiceTable>,
}

#[derive(Deserialize)]
struct ServiceTable {
    name: String,
    exec: Option<Vec<String>>,
    unit: Option<String>,
    user: Option<UserOrGroup>,
    group: Option<UserOrGroup>,
    directory: Option<PathBuf>,
    #[serde(default)]
    environment: BTreeMap<String, String>,
    #[serde(default = "default_start_seconds")]
    start_seconds: f64,
    #[serde(default = "default_restart_limit")]
    restart_limit: u32,
    #[serde(default)]
    stop: bool,
}

fn default_start_seconds() -> f64 {
    10.0
}

fn default_restart_limit() -> u32 {
    5
}

/// A service, checked. Two that are equal are the same service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Definition {
    pub(crate) name: String,
    pub(crate) program: Program,
    /// Time within which it must register.
    pub(crate) start_limit: Duration,
    /// Starts in a minute.
    pub(crate) restart_limit: usize,
    /// Whether it ends with the instance.
    pub(crate) stop: bool,
}

/// What is started.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Program {
    Exec {
        command: Vec<String>,
        user: Option<u32>,
        group: Option<u32>,
        directory: Option<PathBuf>,
        environment: BTreeMap<String, String>,
    },
    Unit(String),
}

impl Program {
    /// Returns what messages call it.
    pub(crate) fn title(&self) -> &str {
        match self {
            Program::Exec { command, .. } => command.first().map_or("", |program| program),
            Program::Unit(unit) => unit,
        }
    }
}

impl Settings {
    /// Checks all services.
    ///
    /// # Errors
    /// The first problem, with its key.
    pub(crate) fn check(self) -> Result<Vec<Definition>, PluginError> {
        let count = self.services.len();
        if count == 0 || count > MAX_SERVICES {
            let text = format!("expected 1 to {MAX_SERVICES} services, not {count}");
            return Err(PluginError::of_key("service", text));
        }
        let mut definitions: Vec<Definition> = Vec::new();
        for table in self.services {
            let definition = table.check()?;
            if definitions.iter().any(|other| other.name == definition.name) {
                let text = format!("the service {:?} is defined twice", definition.name);
                return Err(PluginError::of_key("service", text));
            }
            definitions.push(definition);
        }
        Ok(definitions)
    }
}

impl ServiceTable {
    fn check(self) -> Result<Definition, PluginError> {
        let name = self.name;
        let error = |key: &str, text: &str| {
            PluginError::of_key(format!("service.{key}"), format!("service {name:?}: {text}"))
        };
        if name.is_empty() || name.starts_with('.') || name.contains(['*', '?', '\0']) {
            return Err(error("name", "expected the name of a client, without wildcards"));
        }
        check_range("service.start_seconds", self.start_seconds, 0.1..=60.0)?;
        check_range("service.restart_limit", self.restart_limit, 1..=1000)?;
        let has_rights = self.user.is_some() || self.group.is_some();
        let program = match (self.exec, self.unit) {
            (Some(command), None) => {
                if !command.first().is_some_and(|program| program.starts_with('/')) {
                    return Err(error("exec", "expected the absolute path of a program, and its arguments"));
                }
                let user = self.user.map(|user| user.user_id("service.user")).transpose()?;
                let group = self.group.map(|group| group.group_id("service.group")).transpose()?;
                let own = (geteuid().as_raw(), getegid().as_raw());
                let is_own =
                    user.is_none_or(|user| user == own.0) && group.is_none_or(|group| group == own.1);
                if !is_own && !geteuid().is_root() {
                    return Err(error(
                        "user",
                        "a broker that is not root cannot start it as another user or group",
                    ));
                }
                if user.is_some_and(|user| user != own.0) && group.is_none() {
                    // it would keep the group of the broker
                    return Err(error("group", "expected the group as well as the user"));
                }
                let (directory, environment) = (self.directory, self.environment);
                Program::Exec { command, user, group, directory, environment }
            }
            (None, Some(unit)) if unit.is_empty() || unit.starts_with('-') => {
                return Err(error("unit", "expected the name of a unit"));
            }
            (None, Some(_)) if has_rights || self.directory.is_some() || !self.environment.is_empty() => {
                return Err(error(
                    "unit",
                    "user, group, directory and environment are those of the unit file",
                ));
            }
            (None, Some(unit)) => Program::Unit(unit),
            _ => return Err(error("exec", "expected either exec or unit")),
        };
        let start_limit = seconds(self.start_seconds);
        let restart_limit = self.restart_limit as usize;
        Ok(Definition { name, program, start_limit, restart_limit, stop: self.stop })
    }
}
