//! Access rules of ELBUS: which identities can register under a name, and what a client can do.
//!
//! It owns the configuration: its form, its validation, and the users and groups that it names. It makes no
//! decisions: the broker does, by the rules that the plugin passes to it at its start, and keeps them even if
//! the plugin fails.
//!
//! ```toml
//! [[plugin]]
//! name = "access"
//! library = "elbus_acl"
//! [plugin.config]
//! default = "deny"
//! [[plugin.config.client]]
//! name = "eva.plc.*"                       # the first mask that matches a client's name applies
//! who = [{ user = "plc" }, { certificate = "{name}" }]
//! send = ["deny eva.core.secret", "allow eva.core.*"]   # the first match decides, else the default
//! publish = ["allow plc/{name}/#"]
//! limits = { messages_per_second = 10000 }
//! ```
#![deny(unsafe_code)]

mod table;

use elbus_plugin_api::{Config, Host, Plugin, PluginError, Status, access::AccessRules};
use parking_lot::Mutex;
use table::AccessTable;

/// The access rules of one configuration.
pub struct Acl {
    host: Host,
    table: AccessTable,
    /// The rules of the table; users and groups can change. Locked while rules are passed to the broker, so
    /// that the newest are passed last.
    rules: Mutex<AccessRules>,
}

impl Plugin for Acl {
    const ABOUT: &'static str = "access rules: who can register under a name, and what a client can do";

    fn create(host: Host, config: &Config) -> Result<Self, PluginError> {
        let table: AccessTable = config.read()?;
        let rules = Mutex::new(table.rules()?);
        Ok(Acl { host, table, rules })
    }

    fn start(&self) -> Result<(), PluginError> {
        // before any transport serves, so that no client registers without the rules
        self.host.set_access_rules(&self.rules.lock())
    }

    fn refresh(&self) -> Result<(), PluginError> {
        let new = self.table.rules()?;
        let mut rules = self.rules.lock();
        if *rules != new {
            self.host.set_access_rules(&new)?;
            *rules = new;
        }
        Ok(())
    }

    fn status(&self) -> Status {
        let clients = self.rules.lock().clients.len();
        Status::with_detail(format!("rules for {clients} name masks"))
    }
}

/// A separate module, since the macro's code contains unsafe attributes.
mod export {
    #![allow(unsafe_code)]
    elbus_plugin_api::export_plugin!(crate::Acl);
}
pub use export::plugin;
