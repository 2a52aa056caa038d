//! The configuration of the plugin, and its conversion into rules. Owns its validation.

use elbus_plugin_api::{
    PluginError,
    access::{Syntax, check_pattern},
    config::check_range,
    hooks::{HookScope, MAX_HOOK_FILTERS},
};
use elbus_protocol::subscription::has_options;
use serde::Deserialize;
use std::{collections::BTreeSet, path::PathBuf};

use crate::{
    rule::{Encoding, Rule},
    rules::Limits,
    schema::Schema,
};

/// Rules of an instance; a set of them is a 64-bit mask.
pub(crate) const MAX_RULES: usize = 64;

/// `[plugin.config]`.
#[derive(Debug, Deserialize)]
pub(crate) struct ValidateTable {
    #[serde(default = "a_mebibyte")]
    max_bytes: usize,
    #[serde(default = "ten_thousand")]
    max_values: usize,
    #[serde(default)]
    rule: Vec<RuleTable>,
}

fn a_mebibyte() -> usize {
    1 << 20
}

fn ten_thousand() -> usize {
    10_000
}

/// `[[plugin.config.rule]]`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct RuleTable {
    #[serde(default)]
    filters: Vec<String>,
    #[serde(default)]
    names: Vec<String>,
    method: Option<String>,
    format: Option<Encoding>,
    schema: Option<PathBuf>,
}

impl ValidateTable {
    /// Returns the limits of messages.
    pub(crate) fn limits(&self) -> Result<Limits, PluginError> {
        check_range("max_bytes", self.max_bytes, 1..)?;
        check_range("max_values", self.max_values, 1..)?;
        Ok(Limits { max_bytes: self.max_bytes, max_values: self.max_values })
    }

    /// Returns the rules. Reads the schemas.
    pub(crate) fn rules(&self) -> Result<Vec<Rule>, PluginError> {
        if self.rule.is_empty() {
            let message = "missing key `rule`: expected at least one [[plugin.config.rule]]";
            return Err(PluginError::new(message));
        }
        if self.rule.len() > MAX_RULES {
            let message = format!("{} rules; the limit is {MAX_RULES}", self.rule.len());
            return Err(PluginError::of_key("rule", message));
        }
        self.rule.iter().enumerate().map(|(index, table)| table.rule(index)).collect()
    }

    /// Returns everything that a rule applies to.
    pub(crate) fn scope(&self) -> Result<HookScope, PluginError> {
        let all = |of: fn(&RuleTable) -> &Vec<String>| self.rule.iter().flat_map(of).collect::<BTreeSet<_>>();
        let (filters, names) = (all(|rule| &rule.filters), all(|rule| &rule.names));
        let count = filters.len() + names.len();
        if count > MAX_HOOK_FILTERS {
            let message = format!(
                "{count} different filters and names in all rules; the limit is {MAX_HOOK_FILTERS}: use \
                 wildcards, or declare another instance of the plugin"
            );
            return Err(PluginError::of_key("rule", message));
        }
        // a broadcast reaches names as well
        let broadcasts = !names.is_empty();
        let scope = HookScope::new().publications(filters).messages(names);
        Ok(if broadcasts { scope.broadcasts() } else { scope })
    }
}

impl RuleTable {
    fn rule(&self, index: usize) -> Result<Rule, PluginError> {
        let RuleTable { filters, names, method, format, schema } = self;
        let refuse = |key: &str, message: &str| PluginError::of_key(format!("rule[{index}]{key}"), message);
        if filters.is_empty() && names.is_empty() {
            let message =
                "missing key `filters` (publications) or `names` (messages): the rule applies to nothing";
            return Err(refuse("", message));
        }
        if let Some(at) = filters.iter().position(|filter| has_options(filter)) {
            let message = "options of subscriptions mean nothing here: write the filter alone";
            return Err(refuse(&format!(".filters[{at}]"), message));
        }
        for (key, syntax, patterns) in [("filters", Syntax::Topic, filters), ("names", Syntax::Name, names)] {
            for (at, pattern) in patterns.iter().enumerate() {
                let at = format!(".{key}[{at}]");
                check_pattern(syntax, pattern).map_err(|message| refuse(&at, &message))?;
                if pattern.starts_with('.') {
                    let message =
                        "names and topics that begin with a dot are the broker's: they are not checked";
                    return Err(refuse(&at, message));
                }
            }
        }
        if let Some(method) = method {
            if !filters.is_empty() {
                return Err(refuse(
                    ".filters",
                    "publications are not calls: a rule with `method` has only `names`",
                ));
            }
            if method.is_empty() || method.contains('\0') {
                return Err(refuse(".method", "expected the name of a method, or \"*\" for every call"));
            }
        }
        let format = match (format, schema, method) {
            (None, None, _) => {
                return Err(refuse("", "missing key `schema` or `format`: the rule checks nothing"));
            }
            (Some(Encoding::Utf8), Some(_), _) => {
                return Err(refuse(".format", "a schema describes json or msgpack, not utf8"));
            }
            (Some(format), ..) => *format,
            (None, Some(_), Some(_)) => Encoding::Msgpack,
            (None, Some(_), None) => Encoding::Json,
        };
        let load = |path: &PathBuf| Schema::load(path).map_err(|message| refuse(".schema", &message));
        let schema = schema.as_ref().map(load).transpose()?;
        Ok(Rule::new(filters.clone(), names.clone(), method.clone(), format, schema))
    }
}
