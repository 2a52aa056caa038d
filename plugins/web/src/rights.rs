//! What a caller may see of what the plugin has collected: what the access rules let it learn anyway. Owns
//! the questions to the broker; decides about names, never about their connection.

use elbus_plugin_api::{Call, CallError, Host};
use elbus_protocol::name::primary_of;
use serde::{Deserialize, Serialize};
use std::{cell::RefCell, collections::HashMap};

use crate::figures::{ask, encode};

/// The methods by which clients, plugins and the traffic can be seen.
const CLIENTS: &str = "client.list";
const PLUGINS: &str = "plugin.list";
const TRAFFIC: &str = "monitor.start";
/// An administrative method that every broker has: the plugin `monitor` may not be there.
const ADMINISTRATION: &str = "client.kick";

/// A caller, and what it may see.
pub(crate) struct Viewer<'a> {
    host: &'a Host,
    /// The primary name of the caller.
    name: &'a str,
    clients: bool,
    plugins: bool,
    flows: bool,
    contents: bool,
    /// Whether it may subscribe, by filter.
    filters: RefCell<HashMap<Box<str>, bool>>,
}

#[derive(Serialize)]
struct Question<'a> {
    action: &'a str,
    name: &'a str,
    target: &'a str,
}

#[derive(Deserialize)]
struct Explained {
    allowed: bool,
    registered: bool,
}

impl<'a> Viewer<'a> {
    /// Asks the broker what a caller may see. The broker itself may see everything.
    ///
    /// # Errors
    /// The broker cannot explain its rules.
    pub(crate) fn of(host: &'a Host, call: &Call<'a>) -> Result<Self, CallError> {
        let is_broker = call.caller_id == 0;
        let may_call = |method: &str| -> Result<bool, CallError> {
            Ok(is_broker || may(host, call.caller, "call", method)?)
        };
        let contents = may_call(TRAFFIC)? && (host.is_slow(TRAFFIC).is_some() || may_call(ADMINISTRATION)?);
        Ok(Viewer {
            host,
            name: primary_of(call.caller),
            clients: may_call(CLIENTS)?,
            plugins: may_call(PLUGINS)?,
            // without rules, every client could have every name
            flows: contents || !host.has_access_rules(),
            contents,
            filters: RefCell::default(),
        })
    }

    /// Returns whether it may see that a client exists, and what the broker counts of it.
    pub(crate) fn sees_client(&self, name: &str) -> bool {
        self.clients || self.is_own(name)
    }

    /// Returns whether it may see the plugins.
    pub(crate) fn sees_plugins(&self) -> bool {
        self.plugins
    }

    /// Returns whether it may see the contents of what passes the bus, and the log.
    pub(crate) fn sees_contents(&self) -> bool {
        self.contents
    }

    /// Returns whether it may see that one client sends messages to another.
    pub(crate) fn sees_messages(&self, from: &str, to: &str) -> bool {
        self.flows || self.is_own(from) || self.is_own(to)
    }

    /// Returns whether it may see that a client publishes to a topic, or to the topics of a filter: if it
    /// could subscribe to all of them.
    pub(crate) fn sees_publications(&self, from: &str, filter: &str) -> bool {
        if self.flows || self.is_own(from) {
            return true;
        }
        self.clients && self.may_subscribe(filter)
    }

    /// Returns whether a name is that of the caller or of one of its secondaries.
    pub(crate) fn is_own(&self, name: &str) -> bool {
        primary_of(name) == self.name
    }

    fn may_subscribe(&self, filter: &str) -> bool {
        if let Some(known) = self.filters.borrow().get(filter) {
            return *known;
        }
        let allowed = may(self.host, self.name, "subscribe", filter).unwrap_or(false);
        self.filters.borrow_mut().insert(filter.into(), allowed);
        allowed
    }
}

/// Returns whether the rules allow something to a registered client. Unlike an attempt, a question is neither
/// counted nor logged.
fn may(host: &Host, name: &str, action: &str, target: &str) -> Result<bool, CallError> {
    let question = encode(&Question { action, name, target })?;
    let Explained { allowed, registered } = ask(host, "explain", &question)?;
    Ok(allowed && registered)
}
