//! The configuration of the plugin, and its conversion into access rules. Owns its validation; looks up only
//! users and groups.

use elbus_plugin_api::{
    PluginError,
    access::{AccessRules, Action, ClientLimits, ClientRules, Identity, Rule, Verdict},
    config::Overflow,
    os::{UserOrGroup, user_names},
};
use ipnet::IpNet;
use serde::Deserialize;
use std::net::IpAddr;

/// The suffixes of units that can have processes.
const UNIT_SUFFIXES: [&str; 5] = [".service", ".scope", ".socket", ".mount", ".swap"];

/// `[plugin.config]`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct AccessTable {
    /// Applies to names that no mask matches, and to operations that no rule matches.
    #[serde(default)]
    default: Verdict,
    #[serde(default)]
    client: Vec<ClientTable>,
}

/// `[[plugin.config.client]]`.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct ClientTable {
    name: String,
    who: Option<Vec<Who>>,
    send: Vec<Rule>,
    broadcast: Vec<Rule>,
    publish: Vec<Rule>,
    subscribe: Vec<Rule>,
    call: Vec<Rule>,
    overflow: Option<Overflow>,
    limits: ClientLimits,
}

/// An entry of `who`: all its keys must match.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Who {
    user: Option<UserOrGroup>,
    group: Option<UserOrGroup>,
    unit: Option<String>,
    address: Option<String>,
    certificate: Option<String>,
    token: Option<String>,
    node: Option<String>,
}

impl AccessTable {
    /// Returns the rules, with the current users and groups.
    pub(crate) fn rules(&self) -> Result<AccessRules, PluginError> {
        let clients = self.client.iter().enumerate().map(|(index, table)| table.rules(index));
        let clients = clients.collect::<Result<Vec<_>, _>>()?;
        let names_users = |table: &ClientRules| {
            let names_user = |rule: &Rule| rule.pattern.contains("{user}");
            Action::ALL.into_iter().any(|action| table.rules(action).iter().any(names_user))
        };
        let user_names = if clients.iter().any(names_users) { user_names("client")? } else { vec![] };
        Ok(AccessRules { default: self.default, user_names, clients })
    }
}

impl ClientTable {
    fn rules(&self, index: usize) -> Result<ClientRules, PluginError> {
        if self.name.is_empty() {
            let message = "missing key `name`, a mask of client names such as \"plant.*\" or \"*\"";
            return Err(PluginError::of_key(format!("client[{index}]"), message));
        }
        if self.who.as_ref().is_some_and(Vec::is_empty) {
            let message = "is empty, so no client could use the name; without the key any client can";
            return Err(PluginError::of_key(format!("client[{index}].who"), message));
        }
        let who = self.who.iter().flatten().enumerate();
        let who = who.map(|(at, who)| who.identity(&format!("client[{index}].who[{at}]")));
        let rules = ClientRules {
            name: self.name.clone(),
            who: who.collect::<Result<_, _>>()?,
            send: self.send.clone(),
            broadcast: self.broadcast.clone(),
            publish: self.publish.clone(),
            subscribe: self.subscribe.clone(),
            call: self.call.clone(),
            overflow: self.overflow,
            limits: self.limits,
        };
        let error = |(key, reason)| PluginError::of_key(format!("client[{index}].{key}"), reason);
        rules.check().map_err(error)?;
        Ok(rules)
    }
}

impl Who {
    fn identity(&self, key: &str) -> Result<Identity, PluginError> {
        let Who { user, group, unit, address, certificate, token, node } = self;
        if *self == Who::default() {
            let message =
                "is empty; expected one or more of user, group, unit, address, certificate, token, node";
            return Err(PluginError::of_key(key, message));
        }
        let others = Who { node: None, ..self.clone() };
        if node.is_some() && others != Who::default() {
            let message =
                "has further keys beside `node`; of a client at another node, only the node is known";
            return Err(PluginError::of_key(key, message));
        }
        let group = group.as_ref().map(|group| group.group_members(&format!("{key}.group"))).transpose()?;
        Ok(Identity {
            uid: user.as_ref().map(|user| user.user_id(&format!("{key}.user"))).transpose()?,
            group: group.map(|group| (group.gid, group.uids)),
            unit: unit.as_ref().map(|text| unit_name(text, &format!("{key}.unit"))).transpose()?,
            address: address.as_ref().map(|text| network(text, &format!("{key}.address"))).transpose()?,
            certificate: certificate
                .as_ref()
                .map(|text| name_pattern(text, &format!("{key}.certificate")))
                .transpose()?,
            token: token.as_ref().map(|text| name_pattern(text, &format!("{key}.token"))).transpose()?,
            node: node.as_ref().map(|text| node_name(text, &format!("{key}.node"))).transpose()?,
        })
    }
}

/// Checks the full name of a systemd unit that can have processes.
fn unit_name(text: &str, key: &str) -> Result<String, PluginError> {
    let is_part = |c: char| c.is_ascii_alphanumeric() || ":-_.\\@".contains(c);
    let stem = UNIT_SUFFIXES.iter().find_map(|suffix| text.strip_suffix(suffix));
    if stem.is_some_and(|stem| !stem.is_empty()) && text.chars().all(is_part) {
        return Ok(text.to_owned());
    }
    let message = if !text.is_empty() && text.chars().all(is_part) && !text.ends_with(".slice") {
        format!("{text:?} is not the full name of a unit: write \"{text}.service\"")
    } else {
        format!("{text:?} is not the name of a unit, such as \"plc.service\"; there are no wildcards")
    };
    Err(PluginError::of_key(key, message))
}

/// Checks a pattern of names in certificates or of tokens.
fn name_pattern(text: &str, key: &str) -> Result<String, PluginError> {
    let rest = text.replace("{name}", "").replace("{user}", "");
    if rest.contains('{') {
        let message = format!("{text:?} contains a brace that begins neither {{name}} nor {{user}}");
        return Err(PluginError::of_key(key, message));
    }
    Ok(text.to_owned())
}

/// Checks the name of a node of a bridged bus: it is a segment of the names of its clients.
fn node_name(text: &str, key: &str) -> Result<String, PluginError> {
    let is_segment = !text.is_empty() && !text.contains(['.', '*', '?', '{', '@']);
    if is_segment {
        return Ok(text.to_owned());
    }
    let message = format!("{text:?} is not the name of a node, such as \"mill\"; there are no wildcards");
    Err(PluginError::of_key(key, message))
}

fn network(text: &str, key: &str) -> Result<IpNet, PluginError> {
    let alone = || text.parse::<IpAddr>().map(IpNet::from);
    text.parse::<IpNet>().or_else(|_| alone()).map_err(|_| {
        let message =
            format!("{text:?} is not an address or a network, such as \"10.0.0.5\" or \"10.0.0.0/8\"");
        PluginError::of_key(key, message)
    })
}
