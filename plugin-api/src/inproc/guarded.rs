//! Connectors and endpoints of a plugin behind the panic barrier.

use abi_stable::{
    sabi_trait::TD_Opaque,
    std_types::{RResult, RStr},
};
use elbus_protocol::Code;
use std::sync::Arc;

use super::{InprocConnector, InprocEndpoint, owned_run::RunBatch};
use crate::{
    abi::{
        EndpointObject, NotifierObject, RawConnector, RawEndpoint, RawEndpoint_TO,
        guard::{Guarded, PanicScope},
    },
    notifier::Notifier,
    request::{Dispatch, Request},
};

/// The connector behind the panic barrier; its endpoints are behind it as well.
pub(crate) struct GuardedConnector<C> {
    connector: Arc<Guarded<C>>,
    scope: Arc<PanicScope>,
}

impl<C: InprocConnector> GuardedConnector<C> {
    pub(crate) fn new(connector: C, scope: Arc<PanicScope>) -> Self {
        GuardedConnector { connector: Arc::new(Guarded::new(connector, scope.clone())), scope }
    }
}

impl<C> Clone for GuardedConnector<C> {
    fn clone(&self) -> Self {
        GuardedConnector { connector: self.connector.clone(), scope: self.scope.clone() }
    }
}

impl<C: InprocConnector> RawConnector for GuardedConnector<C> {
    fn connect(&self, name: RStr<'_>) -> RResult<EndpointObject, u8> {
        let refused = |_: &str| Err(Code::Other);
        self.connector
            .run("connect", refused, |connector| connector.connect(name.as_str()))
            .map(|endpoint| RawEndpoint_TO::from_value(Guarded::new(endpoint, self.scope.clone()), TD_Opaque))
            .map_err(|code| code as u8)
            .into()
    }
}

impl<E: InprocEndpoint> RawEndpoint for Guarded<E> {
    fn dispatch(&self, request: &Request<'_>) -> Dispatch {
        self.run("dispatch", |_| Dispatch::gone(), |endpoint| endpoint.dispatch(request))
    }

    fn when_ready(&self, notifier: NotifierObject) {
        let fallback = notifier.clone();
        self.run("when_ready", |_| fallback.notify(), |endpoint| endpoint.when_ready(Notifier(notifier)));
    }

    fn receive(&self, into: &mut RunBatch, waits: bool) -> bool {
        self.run("receive", |_| false, |endpoint| endpoint.receive(into, waits))
    }

    fn set_notifier(&self, notifier: NotifierObject) {
        self.run("set_notifier", |_| (), |endpoint| endpoint.set_notifier(Notifier(notifier)));
    }

    fn close(&self) {
        self.run("close", |_| (), E::close);
    }

    fn drain(&self) {
        self.run("drain", |_| (), E::drain);
    }
}
