//! Access rules of ELBUS: who may be a client under which name, and what a client may do.
//!
//! It owns the table: its form, its checks, the users and groups it names. It judges nobody; the broker does, by the rules
//! it is handed when the plugin starts, and keeps them also where the plugin fails.
//!
//! ```toml
//! [[plugin]]
//! name = "access"
//! library = "elbus_acl"
//! [plugin.config]
//! default = "deny"
//! [[plugin.config.client]]
//! name = "eva.plc.*"                       # the first mask that matches the name of a client is for it
//! who = [{ user = "plc" }, { certificate = "{name}" }]
//! send = ["deny eva.core.secret", "allow eva.core.*"]   # the first rule that matches decides, else the default
//! publish = ["allow plc/{name}/#"]
//! limits = { messages_per_second = 10000 }
//! ```
#![deny(unsafe_code)]

mod table;

use elbus_plugin_api::{Config, Host, Plugin, PluginError, Status, access::AccessRules};
use parking_lot::Mutex;
use table::AccessTable;

/// The rules of one table.
pub struct Acl {
    host: Host,
    table: AccessTable,
    /// What the table comes to; users and groups may change. Held while rules are handed over, so that the newest are last.
    rules: Mutex<AccessRules>,
}

impl Plugin for Acl {
    const ABOUT: &'static str = "access rules: who may be a client, and what a client may do";

    fn create(host: Host, config: &Config) -> Result<Self, PluginError> {
        let table: AccessTable = config.read()?;
        let rules = Mutex::new(table.rules()?);
        Ok(Acl { host, table, rules })
    }

    fn start(&self) -> Result<(), PluginError> {
        // before any transport serves: nobody comes in ahead of the rules
        self.host.set_access_rules(&self.rules.lock())
    }

    fn refresh(&self) -> Result<(), PluginError> {
        let fresh = self.table.rules()?;
        let mut rules = self.rules.lock();
        if *rules != fresh {
            self.host.set_access_rules(&fresh)?;
            *rules = fresh;
        }
        Ok(())
    }

    fn status(&self) -> Status {
        let clients = self.rules.lock().clients.len();
        Status::with_detail(format!("rules for {clients} masks of names"))
    }
}

/// Apart from the rest, since what the macro writes needs unsafe attributes.
mod export {
    #![allow(unsafe_code)]
    elbus_plugin_api::export_plugin!(crate::Acl);
}
pub use export::plugin;
