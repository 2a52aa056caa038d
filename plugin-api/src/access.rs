//! Access rules: who may be a client under which name, and what a client may do. Owns their form and its checks; the
//! broker judges by them, and only once a plugin has handed them over.
//!
//! They cross the boundary as text. A key that the broker does not know is refused: a rule must not be passed over.

mod pattern;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};
use std::{fmt, str::FromStr};

pub use pattern::{Piece, Syntax, check_mask, check_pattern, pieces};

/// Rules that one list may have.
pub const MAX_RULES: usize = 1000;

/// What a rule says of what it matches, and a table of what no rule matches.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// It may.
    Allow,
    /// It may not.
    #[default]
    Deny,
}

/// A rule of a list: `allow PATTERN` or `deny PATTERN`. The first one that matches decides.
///
/// In a pattern `{name}` stands for the primary name of the client, `{user}` for the user it runs as. In a filter of topics
/// a name with a slash in it matches nothing. `{*}`, `{?}`, `{+}`, `{#}` and `{{}` are the characters themselves.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Rule {
    /// What it says.
    pub verdict: Verdict,
    /// Of which targets: a mask of names or methods, or a filter of topics.
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

/// One of several things a client may be: all that is given must hold.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Identity {
    /// It runs as this user (of a UNIX socket, as the kernel says).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub uid: Option<u32>,
    /// Its user's primary group is the first of these, or its user is one of the others.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub group: Option<(u32, Vec<u32>)>,
    /// Its process belongs to this unit of systemd.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub unit: Option<String>,
    /// It connects from this network.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub address: Option<IpNet>,
    /// Its verified certificate has a name like this: `*` stands for anything but dots, `{name}` for the client's name. With
    /// `dns:`, `uri:`, `email:` or `cn:` in front the name is of that kind; without, of any kind, but the common name
    /// counts only where the certificate has no other name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub certificate: Option<String>,
}

/// What one client may have of the broker. Nothing given is no limit beside that of transport and broker.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ClientLimits {
    /// Bytes that may wait for it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub queue_bytes: Option<u64>,
    /// Bytes of one frame it sends.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub frame_bytes: Option<u64>,
    /// Frames it sends in a second. It is read from more slowly; nothing is refused.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub messages_per_second: Option<u64>,
    /// Bytes it sends in a second, likewise.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bytes_per_second: Option<u64>,
    /// Subscriptions, and exclusions as many.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub subscriptions: Option<u64>,
    /// Segments of one filter.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub filter_depth: Option<u64>,
    /// Clients at once that the same table of rules is for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub clients: Option<u64>,
    /// How many of them may register in a second; those beyond are refused as busy.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub connects_per_second: Option<u64>,
    /// Whether it may hold those who send to it for any time, rather than for its hold budget.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub may_hold: Option<bool>,
}

impl ClientLimits {
    /// The limits by name.
    pub fn each(&self) -> [(&'static str, Option<u64>); 8] {
        [
            ("queue_bytes", self.queue_bytes),
            ("frame_bytes", self.frame_bytes),
            ("messages_per_second", self.messages_per_second),
            ("bytes_per_second", self.bytes_per_second),
            ("subscriptions", self.subscriptions),
            ("filter_depth", self.filter_depth),
            ("clients", self.clients),
            ("connects_per_second", self.connects_per_second),
        ]
    }
}

/// What a client may do, as far as rules can say: each kind has a list.
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
    /// All of them.
    pub const ALL: [Action; 5] =
        [Action::Send, Action::Broadcast, Action::Publish, Action::Subscribe, Action::Call];

    /// Its key in a table of rules.
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

/// The rules for the clients of one mask. A client is judged by the first of them whose mask its primary name matches.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ClientRules {
    /// A mask of names.
    pub name: String,
    /// What it must be, one of these; with none given it may be anybody.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub who: Vec<Identity>,
    /// Names it may send to; masks.
    pub send: Vec<Rule>,
    /// Masks it may broadcast to: allowed where the rule's mask covers all of it, denied where it has anything of it.
    pub broadcast: Vec<Rule>,
    /// Topics it may publish to; filters.
    pub publish: Vec<Rule>,
    /// Filters it may subscribe to: allowed where the rule's filter covers all of it, denied where it has anything of it.
    pub subscribe: Vec<Rule>,
    /// Control methods it may call; masks.
    pub call: Vec<Rule>,
    /// What it may have.
    pub limits: ClientLimits,
}

impl ClientRules {
    /// The list for an action.
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
    /// The key that is wrong, within this table, and what is wrong with it.
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

/// All rules.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct AccessRules {
    /// For names that no mask matches, and for what no rule of a list does.
    pub default: Verdict,
    /// What `{user}` stands for.
    pub user_names: Vec<(u32, String)>,
    /// By mask; the first one that matches a name is the one for it.
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
    fn they_survive_the_way_across_the_boundary() {
        let identity = Identity {
            uid: Some(1),
            group: Some((2, vec![3])),
            unit: Some("a.service".to_owned()),
            address: Some("10.0.0.0/8".parse().unwrap()),
            certificate: Some("{name}".to_owned()),
        };
        let client = ClientRules {
            name: "a.*".to_owned(),
            who: vec![identity, Identity::default()],
            send: vec!["allow b".parse().unwrap(), "deny *".parse().unwrap()],
            limits: ClientLimits { clients: Some(5), ..ClientLimits::default() },
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
