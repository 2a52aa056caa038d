//! The table of control methods: adding, finding, calling. Who may call is decided by
//! [`authority`](super::authority).

use elbus_plugin_api::{Call, CallError, Method, MethodTraits, abi};
use elbus_protocol::rpc::{INTERNAL_ERROR, INVALID_PARAMS, METHOD_NOT_FOUND, PARSE_ERROR};
use parking_lot::RwLock;
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use std::{
    collections::BTreeMap,
    sync::{Arc, OnceLock},
};

use super::authority::Authority;
use crate::{
    access::Decision,
    calls::{self, Callback},
    routing::{RegisteredClient, Router},
};

type OwnHandler = dyn Fn(&Call<'_>) -> Result<Vec<u8>, CallError> + Send + Sync;

/// What serves a method.
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

/// The methods by name, and their description once somebody has asked for it.
#[derive(Default)]
struct Methods {
    entries: BTreeMap<String, Entry>,
    description: OnceLock<Arc<[u8]>>,
}

/// All control methods.
pub(crate) struct ControlTable {
    authority: Authority,
    /// Never held while a handler runs.
    methods: RwLock<Methods>,
}

/// Length of the name in the parameters of a method: as long as the wire allows.
pub(crate) const MAX_NAME_BYTES: usize = 65_535;

/// The owner of the broker's own methods.
pub(crate) const BROKER_ITSELF: u32 = 0;

#[derive(Serialize)]
struct Described<'a> {
    name: &'a str,
    params: &'a str,
    about: &'a str,
    admin: bool,
}

impl ControlTable {
    pub(crate) fn new(router: Arc<Router>, remote_admin: bool) -> Arc<Self> {
        let authority = Authority::new(router, remote_admin);
        Arc::new(ControlTable { authority, methods: RwLock::default() })
    }

    /// Lets clients of other machines change the broker, or no longer.
    pub(crate) fn set_remote_admin(&self, remote_admin: bool) {
        self.authority.set_remote_admin(remote_admin);
    }

    /// Adds a method.
    ///
    /// # Errors
    /// A sentence, where the name is empty or taken.
    pub(crate) fn add(&self, owner: u32, method: &Method<'_>, handler: Handler) -> Result<(), String> {
        let name = method.name;
        if name.is_empty() {
            return Err("a control method needs a name".to_owned());
        }
        let mut methods = self.methods.write();
        if methods.entries.contains_key(name) {
            return Err(format!("there is a control method {name:?} already"));
        }
        let (params, about) = (method.params.to_owned(), method.about.to_owned());
        let traits = MethodTraits { slow: method.slow, admin: method.admin, query: method.query };
        methods.entries.insert(name.to_owned(), Entry { owner, params, about, traits, handler });
        methods.description = OnceLock::new();
        Ok(())
    }

    /// Adds a method of the broker itself, whose name is known to be free.
    pub(crate) fn add_own(
        &self,
        method: &Method<'_>,
        handler: impl Fn(&Call<'_>) -> Result<Vec<u8>, CallError> + Send + Sync + 'static,
    ) {
        if let Err(error) = self.add(BROKER_ITSELF, method, Handler::Own(Arc::new(handler))) {
            tracing::error!(error, "control method not added");
        }
    }

    /// Removes what an instance has added.
    pub(crate) fn remove_owner(&self, owner: u32) {
        let mut methods = self.methods.write();
        let entries = std::mem::take(&mut methods.entries).into_iter();
        let (gone, kept) = entries.partition(|(_, entry)| entry.owner == owner);
        *methods = Methods { entries: kept, description: OnceLock::new() };
        drop(methods);
        drop::<BTreeMap<_, _>>(gone); // runs code of the plugin: outside the lock
    }

    /// What decides where a method runs; `None` if there is none of that name.
    pub(crate) fn traits(&self, name: &str) -> Option<MethodTraits> {
        self.methods.read().entries.get(name).map(|entry| entry.traits)
    }

    /// Whether a call would be carried out now.
    ///
    /// # Errors
    /// No such method, or access denied.
    pub(crate) fn authorize(&self, call: &Call<'_>) -> Result<(), CallError> {
        let admin = self.methods.read().entries.get(call.method).map(|entry| entry.traits.admin);
        self.authority.authorize(call, admin).map(drop)
    }

    /// Why a client may not call a method that the rules allow it, if so.
    pub(super) fn admin_refusal(
        &self,
        member: &RegisteredClient,
        method: &str,
        decision: Option<&Decision>,
    ) -> Option<String> {
        let admin = self.methods.read().entries.get(method).is_some_and(|entry| entry.traits.admin);
        admin.then(|| self.authority.admin_refusal(member, method, decision)).flatten()
    }

    /// Calls a method, if the caller is allowed to at this moment.
    ///
    /// # Errors
    /// No such method, access denied, or what the method says.
    pub(crate) fn call(&self, call: &Call<'_>) -> Result<Vec<u8>, CallError> {
        let found = self.methods.read().entries.get(call.method).map(|entry| {
            let callback = if entry.traits.slow { Callback::SlowMethod } else { Callback::Method };
            (entry.handler.clone(), entry.traits.admin, (entry.owner, callback))
        });
        let admin = found.as_ref().map(|(_, admin, _)| *admin);
        let caller = self.authority.authorize(call, admin)?;
        let (handler, admin, (owner, callback)) =
            found.ok_or_else(|| CallError::new(METHOD_NOT_FOUND, ""))?;
        let call = Call { caller: caller.name(), ..*call };
        if admin {
            tracing::info!(caller = call.caller, method = call.method, "control method called");
        }
        match handler {
            Handler::Own(handler) => handler(&call),
            Handler::Plugin(handler) => {
                let result =
                    calls::other(owner, callback, call.caller, || handler.call(&call.to_raw()).into_result());
                result.map(Into::into).map_err(CallError::from_raw)
            }
        }
    }

    /// Returns the table itself in msgpack. It is encoded once after each change.
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

/// A result in msgpack, structs as maps.
pub(crate) fn encode_result(result: &impl Serialize) -> Result<Vec<u8>, CallError> {
    rmp_serde::to_vec_named(result).map_err(|error| CallError::new(INTERNAL_ERROR, error.to_string()))
}

/// Parameters from msgpack; none at all is the default.
pub(crate) fn decode_params<T: DeserializeOwned + Default>(params: &[u8]) -> Result<T, CallError> {
    if params.is_empty() {
        return Ok(T::default());
    }
    rmp_serde::from_slice(params).map_err(|error| CallError::new(PARSE_ERROR, error.to_string()))
}

/// The `name` of methods that take `{name: str}`.
pub(crate) fn name_param(call: &Call<'_>) -> Result<String, CallError> {
    #[derive(Deserialize, Default)]
    struct Named {
        name: String,
    }
    match decode_params::<Named>(call.params)?.name {
        name if name.is_empty() => Err(CallError::new(INVALID_PARAMS, "expected {name: text}")),
        name if name.len() > MAX_NAME_BYTES => {
            let text = format!("name has {} bytes, the limit is {MAX_NAME_BYTES}", name.len());
            Err(CallError::new(INVALID_PARAMS, text))
        }
        name => Ok(name),
    }
}

/// As much of a text from a client as an error shows of it.
pub(crate) fn shown(text: &str) -> String {
    const SHOWN: usize = 64;
    match text.char_indices().nth(SHOWN) {
        Some((end, _)) => format!("{}...", text.get(..end).unwrap_or_default()),
        None => text.to_owned(),
    }
}

/// For methods that take no parameters.
pub(crate) fn no_params(call: &Call<'_>) -> Result<(), CallError> {
    if call.params.is_empty() { Ok(()) } else { Err(CallError::new(INVALID_PARAMS, "")) }
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
            assert!(Arc::ptr_eq(&description, &table.describe().unwrap()), "as long as nothing changes");
            description.windows(name.len()).any(|bytes| bytes == name.as_bytes())
        };
        assert!(!has("later.method"));
        let handler: Arc<OwnHandler> = Arc::new(|_| Ok(vec![]));
        let method = Method { name: "later.method", ..Method::default() };
        table.add(7, &method, Handler::Own(handler)).unwrap();
        assert!(has("later.method"));
        table.remove_owner(7);
        assert!(!has("later.method"));
    }
}
