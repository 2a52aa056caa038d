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

const CONTAINS_NUL: &str = "contains a NUL, which no program can be given";

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
        if count == 0 {
            let text =
                format!("missing key `service`: expected 1 to {MAX_SERVICES} [[plugin.config.service]]");
            return Err(PluginError::new(text));
        }
        if count > MAX_SERVICES {
            let text = format!("{count} services; the limit is {MAX_SERVICES}");
            return Err(PluginError::of_key("service", text));
        }
        let mut definitions: Vec<Definition> = Vec::new();
        for (index, table) in self.services.into_iter().enumerate() {
            let definition = table.check(index)?;
            if definitions.iter().any(|other| other.name == definition.name) {
                return Err(PluginError::of_key(format!("service[{index}].name"), "is defined twice"));
            }
            definitions.push(definition);
        }
        Ok(definitions)
    }
}

impl ServiceTable {
    fn check(self, index: usize) -> Result<Definition, PluginError> {
        let name = self.name;
        let key = |key: &str| format!("service[{index}].{key}");
        let error = |name: &str, text: &str| PluginError::of_key(key(name), text);
        if name.is_empty() || name.starts_with('.') || name.contains(['*', '?', '\0']) {
            return Err(error("name", "expected the name of a client, without wildcards"));
        }
        if name.contains("%%") {
            let text = "a secondary client registers after its primary: expected the name of the primary";
            return Err(error("name", text));
        }
        check_range(&key("start_seconds"), self.start_seconds, 0.1..=60.0)?;
        check_range(&key("restart_limit"), self.restart_limit, 1..=1000)?;
        let has_rights = self.user.is_some() || self.group.is_some();
        let program = match (self.exec, self.unit) {
            (Some(command), None) => {
                if !command.first().is_some_and(|program| program.starts_with('/')) {
                    return Err(error("exec", "expected the absolute path of a program, and its arguments"));
                }
                if let Some(at) = command.iter().position(|argument| argument.contains('\0')) {
                    return Err(error(&format!("exec[{at}]"), CONTAINS_NUL));
                }
                let user = self.user.map(|user| user.user_id(&key("user"))).transpose()?;
                let group = self.group.map(|group| group.group_id(&key("group"))).transpose()?;
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
                    return Err(error("user", "missing key `group`: another user needs the group as well"));
                }
                let (directory, environment) = (self.directory, self.environment);
                if directory.as_ref().is_some_and(|directory| !directory.is_absolute()) {
                    return Err(error("directory", "expected an absolute path"));
                }
                for (variable, value) in &environment {
                    let key = format!("environment.{variable}");
                    if variable.is_empty() || variable.contains(['=', '\0']) {
                        return Err(error(&key, "expected the name of a variable, without `=`"));
                    }
                    if value.contains('\0') {
                        return Err(error(&key, CONTAINS_NUL));
                    }
                }
                Program::Exec { command, user, group, directory, environment }
            }
            (None, Some(unit)) if unit.is_empty() || unit.starts_with('-') || unit.contains('\0') => {
                return Err(error("unit", "expected the name of a unit"));
            }
            (None, Some(_)) if has_rights || self.directory.is_some() || !self.environment.is_empty() => {
                return Err(error(
                    "unit",
                    "user, group, directory and environment are those of the unit file",
                ));
            }
            (None, Some(unit)) => Program::Unit(unit),
            (Some(_), Some(_)) => return Err(error("unit", "expected either exec or unit, not both")),
            (None, None) => {
                let text = "missing key `exec` or `unit`: what starts the service";
                return Err(PluginError::of_key(format!("service[{index}]"), text));
            }
        };
        let start_limit = seconds(self.start_seconds);
        let restart_limit = self.restart_limit as usize;
        Ok(Definition { name, program, start_limit, restart_limit, stop: self.stop })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use elbus_plugin_api::Config;

    fn checked(services: &str) -> Result<Vec<Definition>, PluginError> {
        Config::parse(services)?.read::<Settings>()?.check()
    }

    #[test]
    fn an_error_has_the_key_of_its_service() {
        let good = "[[service]]\nname = 'good'\nexec = ['/a']\n";
        for (service, key, text) in [
            ("name = 's'", "service[1]", "missing key `exec` or `unit`"),
            ("name = 's'\nexec = ['/a']\nunit = 'b'", "service[1].unit", "not both"),
            ("name = 's'\nexec = ['a']", "service[1].exec", "absolute path"),
            ("name = 's'\nexec = ['/a', \"b\\u0000\"]", "service[1].exec[1]", "NUL"),
            ("name = 's.*'\nunit = 'b'", "service[1].name", "without wildcards"),
            ("name = 's%%0'\nunit = 'b'", "service[1].name", "the name of the primary"),
            ("name = 'good'\nunit = 'b'", "service[1].name", "is defined twice"),
            ("name = 's'\nunit = '--now'", "service[1].unit", "name of a unit"),
            ("name = 's'\nunit = 'b'\nuser = 'root'", "service[1].unit", "those of the unit file"),
            ("name = 's'\nunit = 'b'\nstart_seconds = 61.0", "service[1].start_seconds", "61 is not"),
            ("name = 's'\nunit = 'b'\nrestart_limit = 0", "service[1].restart_limit", "0 is not"),
            ("name = 's'\nexec = ['/a']\nuser = 'no such user'", "service[1].user", "no such user"),
            ("name = 's'\nexec = ['/a']\ndirectory = 'b'", "service[1].directory", "absolute path"),
            (
                "name = 's'\nexec = ['/a']\nenvironment = { 'A=B' = 'c' }",
                "service[1].environment.A=B",
                "without `=`",
            ),
            (
                "name = 's'\nexec = ['/a']\nenvironment = { A = \"\\u0000\" }",
                "service[1].environment.A",
                "NUL",
            ),
        ] {
            let error = checked(&format!("{good}[[service]]\n{service}\n")).unwrap_err();
            assert_eq!(error.key, key, "{service}: {error}");
            assert!(error.message.contains(text), "{service}: {error}");
        }
        assert!(checked("").unwrap_err().message.starts_with("missing key `service`"));
        assert_eq!(checked(good).unwrap().len(), 1);
    }
}
