//! Access rules: which programs can be clients under which name, and what a client can do. Owns their form
//! and its checks. The broker enforces them, once a plugin has set them.
//!
//! They cross the boundary as text. A key that the broker does not know is refused: no rule may be ignored.

mod pattern;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};
use std::{fmt, str::FromStr};

use crate::config::{Limit, Overflow};

pub use pattern::{Piece, Syntax, check_mask, check_pattern, pieces};

/// Rules that one list can have.
pub const MAX_RULES: usize = 1000;

/// What a rule decides about what it matches, and a table about what no rule matches.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// Allowed.
    Allow,
    /// Denied.
    #[default]
    Deny,
}

/// A rule of a list: `allow PATTERN` or `deny PATTERN`. The first rule that matches decides.
///
/// In a pattern `{name}` stands for the primary name of the client, `{user}` for the user it runs as. In a
/// topic filter a name that contains a slash matches nothing. `{*}`, `{?}`, `{+}`, `{#}` and `{{}` are the
/// characters themselves.
///
/// # Examples
/// ```
/// use elbus_plugin_api::access::{Rule, Verdict};
///
/// let rule: Rule = "allow plant/{name}/#".parse().unwrap();
/// assert_eq!((rule.verdict, rule.pattern.as_str()), (Verdict::Allow, "plant/{name}/#"));
/// assert!("permit plant".parse::<Rule>().is_err());
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Rule {
    /// What it decides.
    pub verdict: Verdict,
    /// Targets: a mask of names or methods, or a topic filter.
    pub pattern: String,
}

impl FromStr for Rule {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (verdict, pattern) = text.trim().split_once(char::is_whitespace).unwrap_or((text.trim(), ""));
        let verdict = match verdict {
            "allow" => Verdict::Allow,
            "deny" => Verdict::Deny,
            _ => {
                return Err(format!(
                    "{text:?} is not a rule; expected \"allow PATTERN\" or \"deny PATTERN\""
                ));
            }
        };
        let pattern = pattern.trim().to_owned();
        if let Some(wrong) = pattern::unknown_placeholder(&pattern) {
            let escapes = pattern::escapes();
            return Err(format!(
                "{wrong:?} in {text:?} is not a placeholder; there are {{name}} and {{user}}, and {escapes}"
            ));
        }
        Ok(Rule { verdict, pattern })
    }
}

impl TryFrom<String> for Rule {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl From<Rule> for String {
    fn from(rule: Rule) -> String {
        rule.to_string()
    }
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let verdict = if self.verdict == Verdict::Allow { "allow" } else { "deny" };
        write!(f, "{verdict} {}", self.pattern)
    }
}

/// One entry of `who`: all of the given conditions must hold.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Identity {
    /// It runs as this user (on a UNIX socket, as the kernel reports it).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub uid: Option<u32>,
    /// The primary group of its user is the first of these, or its user is one of the others.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub group: Option<(u32, Vec<u32>)>,
    /// Its process belongs to this unit of systemd.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub unit: Option<String>,
    /// It connects from this network.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub address: Option<IpNet>,
    /// Its verified certificate has a matching name: `*` stands for anything but dots, `{name}` for the
    /// client's name. With `dns:`, `uri:`, `email:` or `cn:` in front only names of that kind match;
    /// without, all do, but the common name counts only if the certificate has no other name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub certificate: Option<String>,
    /// It has authenticated itself with a token of a matching name: `*` stands for anything but dots,
    /// `{name}` for the client's name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub token: Option<String>,
    /// It is a client at this node of a bridged bus. No other condition holds for such a client.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub node: Option<String>,
}

/// Limits of one client. The effective limit is the stricter of these and those of the transport and the
/// broker.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ClientLimits {
    /// Bytes that can be queued for it.
    #[serde(skip_serializing_if = "Limit::is_none")]
    pub queue_bytes: Limit,
    /// Bytes of one frame it sends.
    #[serde(alias = "frame_bytes", skip_serializing_if = "Limit::is_none")]
    pub max_frame_bytes: Limit,
    /// Frames it sends per second. It is read more slowly; nothing is refused.
    #[serde(skip_serializing_if = "Limit::is_none")]
    pub messages_per_second: Limit,
    /// Bytes it sends per second, likewise.
    #[serde(skip_serializing_if = "Limit::is_none")]
    pub bytes_per_second: Limit,
    /// Subscriptions, and exclusions likewise.
    #[serde(alias = "subscriptions", skip_serializing_if = "Limit::is_none")]
    pub max_filters: Limit,
    /// Segments of a filter.
    #[serde(alias = "filter_depth", skip_serializing_if = "Limit::is_none")]
    pub max_filter_depth: Limit,
    /// Clients at once that match the same table of rules.
    #[serde(alias = "clients", skip_serializing_if = "Limit::is_none")]
    pub max_clients: Limit,
    /// Registrations of these per second; those beyond are refused as busy.
    #[serde(skip_serializing_if = "Limit::is_none")]
    pub connects_per_second: Limit,
    /// Whether its full queue can hold its senders indefinitely rather than for its hold budget.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub may_hold: Option<bool>,
}

/// An operation that rules control; each has a list.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Action {
    /// Send a message to a client.
    Send,
    /// Broadcast to a mask.
    Broadcast,
    /// Publish to a topic.
    Publish,
    /// Subscribe to a filter.
    Subscribe,
    /// Call a control method of the broker.
    Call,
}

impl Action {
    /// All actions.
    pub const ALL: [Action; 5] =
        [Action::Send, Action::Broadcast, Action::Publish, Action::Subscribe, Action::Call];

    /// Returns its key in a table of rules.
    pub fn key(self) -> &'static str {
        match self {
            Action::Send => "send",
            Action::Broadcast => "broadcast",
            Action::Publish => "publish",
            Action::Subscribe => "subscribe",
            Action::Call => "call",
        }
    }
}

/// The rules for the clients of one mask. The first table whose mask matches the primary name of a client
/// applies to it.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ClientRules {
    /// A mask of names.
    pub name: String,
    /// Identities, one of which the client must have; empty allows any.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub who: Vec<Identity>,
    /// Names it can send to; masks.
    pub send: Vec<Rule>,
    /// Masks it can broadcast to: allowed if the rule's mask covers all of it, denied if it has anything in
    /// common with it.
    pub broadcast: Vec<Rule>,
    /// Topics it can publish to; filters.
    pub publish: Vec<Rule>,
    /// Filters it can subscribe to: allowed if the rule's filter covers all of it, denied if it has anything
    /// in common with it.
    pub subscribe: Vec<Rule>,
    /// Control methods it can call; masks.
    pub call: Vec<Rule>,
    /// What happens to messages for it when its queue is full; else the policy of its transport.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub overflow: Option<Overflow>,
    /// Its limits.
    pub limits: ClientLimits,
}

impl ClientRules {
    /// Returns the list for an action.
    pub fn rules(&self, action: Action) -> &[Rule] {
        match action {
            Action::Send => &self.send,
            Action::Broadcast => &self.broadcast,
            Action::Publish => &self.publish,
            Action::Subscribe => &self.subscribe,
            Action::Call => &self.call,
        }
    }

    /// Checks the mask and the lists.
    ///
    /// # Errors
    /// The invalid key, within this table, and what is wrong with it.
    pub fn check(&self) -> Result<(), (String, String)> {
        check_mask(&self.name).map_err(|why| ("name".to_owned(), why))?;
        for action in Action::ALL {
            let rules = self.rules(action);
            if rules.len() > MAX_RULES {
                let why = format!("{} rules are more than {MAX_RULES}; use wildcards", rules.len());
                return Err((action.key().to_owned(), why));
            }
            for (index, rule) in rules.iter().enumerate() {
                check_pattern(action.syntax(), &rule.pattern)
                    .map_err(|why| (format!("{}[{index}]", action.key()), why))?;
            }
        }
        Ok(())
    }
}

/// A set of access rules.
///
/// # Examples
/// ```
/// use elbus_plugin_api::access::{AccessRules, ClientRules, Verdict};
///
/// let sensors = ClientRules {
///     name: "sensor.*".into(),
///     publish: vec!["allow sensors/{name}/#".parse().unwrap()],
///     ..ClientRules::default()
/// };
/// assert_eq!(sensors.check(), Ok(()));
/// let rules = AccessRules { default: Verdict::Deny, clients: vec![sensors], ..AccessRules::default() };
/// ```
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct AccessRules {
    /// For names that no mask matches, and for what no rule of a list matches.
    pub default: Verdict,
    /// The user names that `{user}` stands for, by number.
    pub user_names: Vec<(u32, String)>,
    /// The tables by mask; the first that matches a name applies.
    pub clients: Vec<ClientRules>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rules_are_a_verdict_and_a_pattern() {
        let rule: Rule = " allow  a/{name}/# ".parse().unwrap();
        assert_eq!(rule, Rule { verdict: Verdict::Allow, pattern: "a/{name}/#".to_owned() });
        assert_eq!(rule.to_string().parse(), Ok(rule));
        assert_eq!("deny".parse::<Rule>().unwrap().pattern, "", "the empty topic");
        for wrong in ["", "permit a", "a/b", "ALLOW a"] {
            assert!(wrong.parse::<Rule>().unwrap_err().contains("is not a rule; expected"), "{wrong}");
        }
        for wrong in ["allow {names}", "allow {", "deny a/{user}/{}"] {
            assert!(
                wrong.parse::<Rule>().unwrap_err().contains("is not a placeholder; there are"),
                "{wrong}"
            );
        }
    }

    #[test]
    fn rules_cross_the_boundary_as_text() {
        let identity = Identity {
            uid: Some(1),
            group: Some((2, vec![3])),
            unit: Some("a.service".to_owned()),
            address: Some("10.0.0.0/8".parse().unwrap()),
            certificate: Some("{name}".to_owned()),
            token: Some("{name}".to_owned()),
            node: Some("mill".to_owned()),
        };
        let client = ClientRules {
            name: "a.*".to_owned(),
            who: vec![identity, Identity::default()],
            send: vec!["allow b".parse().unwrap(), "deny *".parse().unwrap()],
            overflow: Some(Overflow::Latest),
            limits: ClientLimits { max_clients: Limit::new(5), ..ClientLimits::default() },
            ..ClientRules::default()
        };
        let rules = AccessRules {
            default: Verdict::Allow,
            user_names: vec![(0, "root".to_owned())],
            clients: vec![client, ClientRules::default()],
        };
        assert_eq!(toml::from_str::<AccessRules>(&toml::to_string(&rules).unwrap()).unwrap(), rules);
    }
}
