//! The table of control methods: adds, finds and calls them. Calls are authorised by
//! [`authorization`](super::authorization).

use elbus_plugin_api::{
    Call, CallError, Method, MethodTraits,
    abi::{self, FromRaw, IntoRaw},
};
use elbus_protocol::rpc::METHOD_NOT_FOUND;
use parking_lot::RwLock;
use serde::Serialize;
use std::{
    collections::BTreeMap,
    sync::{Arc, OnceLock},
};

use super::{authorization::Authorizer, params::encode_result};
use crate::{
    access::Decision,
    callbacks::{self, Callback},
    routing::{RegisteredClient, Router},
};

type OwnHandler = dyn Fn(&Call<'_>) -> Result<Vec<u8>, CallError> + Send + Sync;

/// The function behind a method.
#[derive(Clone)]
pub(crate) enum Handler {
    /// A method of the broker itself.
    Own(Arc<OwnHandler>),
    /// A method that a plugin has added.
    Plugin(Arc<abi::HandlerObject>),
}

struct Entry {
    owner: u32,
    params: String,
    about: String,
    traits: MethodTraits,
    handler: Handler,
}

/// The methods by name, and their description once it has been requested.
#[derive(Default)]
struct Methods {
    entries: BTreeMap<String, Entry>,
    description: OnceLock<Arc<[u8]>>,
}

/// All control methods.
pub(crate) struct ControlTable {
    authorizer: Authorizer,
    /// Never held while a handler runs.
    methods: RwLock<Methods>,
}

/// The owner of the methods of the broker itself.
pub(crate) const BROKER_OWNER: u32 = 0;

#[derive(Serialize)]
struct Described<'a> {
    name: &'a str,
    params: &'a str,
    about: &'a str,
    admin: bool,
}

impl ControlTable {
    pub(crate) fn new(router: Arc<Router>, remote_admin: bool) -> Arc<Self> {
        let authorizer = Authorizer::new(router, remote_admin);
        Arc::new(ControlTable { authorizer, methods: RwLock::default() })
    }

    /// Allows or denies administrative methods to clients of other machines.
    pub(crate) fn set_remote_admin(&self, remote_admin: bool) {
        self.authorizer.set_remote_admin(remote_admin);
    }

    /// Adds a method.
    ///
    /// # Errors
    /// The name is empty or taken.
    pub(crate) fn add(&self, owner: u32, method: &Method<'_>, handler: Handler) -> Result<(), String> {
        let name = method.name;
        if name.is_empty() {
            return Err("a control method needs a name".to_owned());
        }
        let mut methods = self.methods.write();
        if methods.entries.contains_key(name) {
            return Err(format!(
                "another plugin or the broker has the control method {name:?}: two instances of a plugin whose \
                 methods have fixed names cannot run at the same time"
            ));
        }
        let (params, about) = (method.params.to_owned(), method.about.to_owned());
        let traits = MethodTraits { slow: method.slow, admin: method.admin, query: method.query };
        methods.entries.insert(name.to_owned(), Entry { owner, params, about, traits, handler });
        methods.description = OnceLock::new();
        Ok(())
    }

    /// Adds a method of the broker, whose name is known to be free.
    pub(crate) fn add_own(
        &self,
        method: &Method<'_>,
        handler: impl Fn(&Call<'_>) -> Result<Vec<u8>, CallError> + Send + Sync + 'static,
    ) {
        if let Err(error) = self.add(BROKER_OWNER, method, Handler::Own(Arc::new(handler))) {
            tracing::error!(error, "control method not added");
        }
    }

    /// Removes the methods of an instance.
    pub(crate) fn remove_owner(&self, owner: u32) {
        let mut methods = self.methods.write();
        let entries = std::mem::take(&mut methods.entries).into_iter();
        let (removed, remaining) = entries.partition(|(_, entry)| entry.owner == owner);
        *methods = Methods { entries: remaining, description: OnceLock::new() };
        drop(methods);
        drop::<BTreeMap<_, _>>(removed); // runs code of the plugin: outside the lock
    }

    /// Returns the properties that decide where a method runs; `None` if it does not exist.
    pub(crate) fn traits(&self, name: &str) -> Option<MethodTraits> {
        self.methods.read().entries.get(name).map(|entry| entry.traits)
    }

    /// Checks whether a call is allowed now.
    ///
    /// # Errors
    /// No such method, or access denied.
    pub(crate) fn authorize(&self, call: &Call<'_>) -> Result<(), CallError> {
        let admin = self.methods.read().entries.get(call.method).map(|entry| entry.traits.admin);
        self.authorizer.authorize(call, admin).map(drop)
    }

    /// Returns why a client cannot call a method although the access rules allow it; `None` if it can.
    pub(super) fn admin_refusal(
        &self,
        client: &RegisteredClient,
        method: &str,
        decision: Option<&Decision>,
    ) -> Option<String> {
        let admin = self.methods.read().entries.get(method).is_some_and(|entry| entry.traits.admin);
        admin.then(|| self.authorizer.admin_refusal(client, method, decision)).flatten()
    }

    /// Calls a method, if the caller is allowed to now.
    ///
    /// # Errors
    /// No such method, access denied, or the error of the method.
    pub(crate) fn call(&self, call: &Call<'_>) -> Result<Vec<u8>, CallError> {
        let found = self.methods.read().entries.get(call.method).map(|entry| {
            let callback = if entry.traits.slow { Callback::SlowMethod } else { Callback::Method };
            (entry.handler.clone(), entry.traits, (entry.owner, callback))
        });
        let admin = found.as_ref().map(|(_, traits, _)| traits.admin);
        let caller = self.authorizer.authorize(call, admin)?;
        let (handler, traits, (owner, callback)) =
            found.ok_or_else(|| CallError::new(METHOD_NOT_FOUND, ""))?;
        let call = Call { caller: caller.name(), ..*call };
        // a call that changes nothing can be repeated every second
        if traits.admin && !traits.query {
            tracing::info!(caller = call.caller, method = call.method, "control method called");
        }
        match handler {
            Handler::Own(handler) => handler(&call),
            Handler::Plugin(handler) => {
                let result = callbacks::for_caller(owner, callback, call.caller, || {
                    handler.call(&call.into_raw()).into_result()
                });
                result.map(Into::into).map_err(CallError::from_raw)
            }
        }
    }

    /// Returns the result of `method.list`. It is encoded once after each change.
    ///
    /// # Errors
    /// It cannot be encoded.
    pub(super) fn describe(&self) -> Result<Arc<[u8]>, CallError> {
        let methods = self.methods.read();
        if let Some(description) = methods.description.get() {
            return Ok(description.clone());
        }
        let described = methods.entries.iter().map(|(name, entry)| Described {
            name,
            params: &entry.params,
            about: &entry.about,
            admin: entry.traits.admin,
        });
        let encoded = encode_result(&BTreeMap::from([("methods", described.collect::<Vec<_>>())]))?;
        Ok(methods.description.get_or_init(|| encoded.into()).clone())
    }
}

#[cfg(all(test, not(elbus_model)))]
mod tests {
    use super::*;
    use crate::{routing::RouterSettings, settings::BrokerSettings};

    #[test]
    fn the_list_of_methods_is_encoded_once_after_each_change() {
        let router = Router::new(RouterSettings::of(&BrokerSettings::default()));
        let table = ControlTable::new(router, false);
        let has = |name: &str| {
            let description = table.describe().unwrap();
            assert!(
                Arc::ptr_eq(&description, &table.describe().unwrap()),
                "the same encoding until the table changes"
            );
            description.windows(name.len()).any(|bytes| bytes == name.as_bytes())
        };
        assert!(!has("later.method"));
        let handler: Arc<OwnHandler> = Arc::new(|_| Ok(vec![]));
        let method = Method::new("later.method");
        table.add(7, &method, Handler::Own(handler)).unwrap();
        assert!(has("later.method"));
        table.remove_owner(7);
        assert!(!has("later.method"));
    }
}
