//! Names of nodes and remote clients, and what is exported and imported.

use crate::{settings_error::SettingsError, wire::MAX_NODE_NAME_BYTES};
use elbus_protocol::{name, subscription, topic};

/// Checks the name of a node or of a bus: 1 to [`MAX_NODE_NAME_BYTES`] letters of ASCII, digits, `-` and `_`.
///
/// # Errors
/// The name is another one.
pub fn check_node_name(text: &str) -> Result<(), SettingsError> {
    let is_valid = (1..=MAX_NODE_NAME_BYTES).contains(&text.len())
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'));
    if is_valid { Ok(()) } else { Err(SettingsError::NodeName { name: text.to_owned() }) }
}

/// Splits the name of a remote client, `@NODE.NAME`, into node and name; `None` if it is another name.
pub fn split_remote_name(text: &str) -> Option<(&str, &str)> {
    let (node, client) = text.strip_prefix('@')?.split_once('.')?;
    (check_node_name(node).is_ok() && !client.is_empty()).then_some((node, client))
}

/// Returns whether a client of this name can be announced to other nodes.
pub(crate) fn can_travel(client: &str, max_bytes: usize) -> bool {
    name::check_name(client).is_ok()
        && client.len() <= max_bytes
        && !client.starts_with('@')
        && !client.split('.').any(|segment| matches!(segment, "?" | "*"))
}

/// What leaves this node: masks of client names, and filters of topics.
#[derive(Debug, Clone, Default)]
pub struct Exports {
    names: Vec<String>,
    topics: Vec<String>,
}

impl Exports {
    /// Creates exports.
    ///
    /// # Errors
    /// A mask or filter is invalid.
    pub fn new<T: AsRef<str>>(names: &[T], topics: &[T]) -> Result<Self, SettingsError> {
        Ok(Exports { names: patterns(names)?, topics: filters(topics)? })
    }

    /// Returns whether a client is announced.
    pub fn has_name(&self, client: &str) -> bool {
        self.names.iter().any(|mask| name::mask_matches(mask, client))
    }

    /// Returns whether publications to a topic leave the node. Those of the broker itself never do: topics
    /// that begin with a dot.
    pub fn has_topic(&self, topic: &str) -> bool {
        !topic.starts_with('.') && self.topics.iter().any(|filter| topic::matches(filter, topic))
    }

    /// Returns the filters of topics.
    pub fn topics(&self) -> &[String] {
        &self.topics
    }
}

/// What this node takes of others: masks of remote names (`@NODE.NAME`), filters of topics, and aliases.
#[derive(Debug, Clone, Default)]
pub struct Imports {
    names: Vec<String>,
    topics: Vec<String>,
    aliases: Vec<(String, String)>,
}

impl Imports {
    /// Creates imports. A name is a mask of remote names, as `@mill.*`, or an alias, as
    /// `@mill.plant.pump as plant.pump`.
    ///
    /// # Errors
    /// A mask, filter or alias is invalid.
    pub fn new<T: AsRef<str>>(names: &[T], topics: &[T]) -> Result<Self, SettingsError> {
        let mut imports = Imports { topics: filters(topics)?, ..Imports::default() };
        for text in names {
            let text = text.as_ref();
            match text.split_once(" as ") {
                Some((remote, local)) => imports.aliases.push(alias(text, remote.trim(), local.trim())?),
                None => imports.names.extend(patterns(&[text])?),
            }
        }
        Ok(imports)
    }

    /// Returns the local name of a client of a node, or `None` if it is not imported. Secondaries have the
    /// alias of their primary.
    pub fn local_name(&self, node: &str, client: &str) -> Option<String> {
        let remote = format!("@{node}.{client}");
        let primary = name::primary_of(&remote);
        if let Some((from, to)) = self.aliases.iter().find(|(from, _)| from == primary) {
            return Some(format!("{to}{}", remote.get(from.len()..).unwrap_or_default()));
        }
        self.names.iter().any(|mask| name::mask_matches(mask, &remote)).then_some(remote)
    }

    /// Returns whether publications of other nodes to a topic are taken.
    pub fn has_topic(&self, topic: &str) -> bool {
        !topic.starts_with('.') && self.topics.iter().any(|filter| topic::matches(filter, topic))
    }

    /// Returns the filters of topics.
    pub fn topics(&self) -> &[String] {
        &self.topics
    }
}

fn alias(text: &str, remote: &str, local: &str) -> Result<(String, String), SettingsError> {
    let has_wildcard = |name: &str| name.split('.').any(|segment| matches!(segment, "?" | "*"));
    let is_valid = split_remote_name(remote).is_some()
        && !has_wildcard(remote)
        && !name::is_secondary(remote)
        && name::check_name(local).is_ok()
        && !has_wildcard(local)
        && !name::is_secondary(local);
    if is_valid {
        Ok((remote.to_owned(), local.to_owned()))
    } else {
        Err(SettingsError::Alias { text: text.to_owned() })
    }
}

fn patterns<T: AsRef<str>>(masks: &[T]) -> Result<Vec<String>, SettingsError> {
    let check = |mask: &T| match mask.as_ref() {
        text if text.is_empty() || text.len() > 1024 || text.contains('\0') => {
            Err(SettingsError::Pattern { pattern: text.to_owned() })
        }
        text => Ok(text.to_owned()),
    };
    masks.iter().map(check).collect()
}

fn filters<T: AsRef<str>>(texts: &[T]) -> Result<Vec<String>, SettingsError> {
    if let Some(text) = texts.iter().find(|text| subscription::has_options(text.as_ref())) {
        return Err(SettingsError::Pattern { pattern: text.as_ref().to_owned() });
    }
    patterns(texts)
}

#[cfg(test)]
mod tests;
