//! The clients of other nodes: registers them, dispatches what they send, and keeps the results that are
//! supplied later. Used by the thread of the instance only.

use elbus_bridge::{Bridge, Delivery, Outbox, ProxyId, RemoveReason, Ticket};
use elbus_plugin_api::{
    Client, ClientInfo, Code, Completion, Departure, Host, Locality, Notifier, Op, Payload, PendingResult,
    Qos, Request, SHARE_FROM_BYTES, SharedBytes,
};
use elbus_protocol::rpc;
use smallvec::SmallVec;
use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Instant,
};

use crate::{
    inputs::{Input, Inputs},
    log_limit::LogLimit,
    own_clients::KIND,
    report::leave_reason,
    sinks::{ProxyNames, ProxySink, Waiters},
};

/// Clients that were not registered and that are logged by name, per second. All are counted.
const LOGGED_REFUSALS: u32 = 20;

/// A registered client of another node.
struct Proxy {
    client: Client,
    name: Arc<str>,
    node: Arc<str>,
    waiters: Arc<Waiters>,
    /// A notifier will report that its receivers have drained.
    waits: bool,
    /// It has dispatched since the last end of a batch.
    is_dirty: bool,
}

/// A result that the broker supplies later.
struct Pending {
    result: PendingResult,
    ticket: Ticket,
    messages: usize,
}

/// The clients of other nodes.
pub(crate) struct Proxies {
    host: Host,
    inputs: Arc<Inputs>,
    names: Arc<ProxyNames>,
    registered: HashMap<ProxyId, Proxy>,
    dirty: Vec<ProxyId>,
    pending: HashMap<u64, Pending>,
    last_pending: u64,
    refusals: LogLimit,
}

impl Proxies {
    pub(crate) fn new(host: Host, inputs: Arc<Inputs>, names: Arc<ProxyNames>) -> Self {
        Proxies {
            host,
            inputs,
            names,
            registered: HashMap::new(),
            dirty: Vec::new(),
            pending: HashMap::new(),
            last_pending: 0,
            refusals: LogLimit::new(LOGGED_REFUSALS),
        }
    }

    /// Returns how many are registered.
    pub(crate) fn len(&self) -> usize {
        self.registered.len()
    }

    /// Registers a client.
    pub(crate) fn register(
        &mut self,
        bridge: &mut Bridge<Completion>,
        proxy: ProxyId,
        node: Arc<str>,
        name: Arc<str>,
        outbox: Arc<Outbox<Completion>>,
    ) {
        let (waiters, registration) = (Arc::<Waiters>::default(), Arc::<AtomicU64>::default());
        let sink = ProxySink {
            proxy,
            outbox,
            inputs: self.inputs.clone(),
            waiters: waiters.clone(),
            proxies: self.names.clone(),
            registration: registration.clone(),
        };
        let info = ClientInfo::new(KIND, Locality::Remote).with_node(&*node);
        // before it can receive anything that it could answer
        self.names.add(&name);
        match self.host.register(&name, &info, sink) {
            Ok(client) => {
                registration.store(client.id(), Ordering::Release);
                let added = Proxy { client, name, node, waiters, waits: false, is_dirty: false };
                self.registered.insert(proxy, added);
            }
            Err(code) => {
                self.names.remove(&name);
                if let Some(suppressed) = self.refusals.permit(Instant::now()) {
                    tracing::warn!(
                        client = &*name,
                        node = &*node,
                        code = code.to_string(),
                        suppressed,
                        "client of another node is not registered: its name is taken or denied"
                    );
                }
                bridge.proxy_refused(proxy);
            }
        }
    }

    /// Ends the registration of a client.
    pub(crate) fn remove(&mut self, proxy: ProxyId, reason: RemoveReason) {
        let Some(node) = self.registered.get(&proxy).map(|proxy| proxy.node.clone()) else { return };
        self.end(proxy, &leave_reason(&node, reason));
    }

    fn end(&mut self, proxy: ProxyId, reason: &str) {
        if let Some(mut removed) = self.registered.remove(&proxy) {
            removed.client.set_close_reason(reason);
            removed.client.set_departure(Departure::Closed);
            self.names.remove(&removed.name);
            drop(removed.client);
            removed.waiters.close();
        }
    }

    /// The broker has ended a registration.
    pub(crate) fn closed(&mut self, bridge: &mut Bridge<Completion>, proxy: ProxyId, registration: u64) {
        let is_current = |of: &&Proxy| registration == 0 || of.client.id() == registration;
        if self.registered.get(&proxy).filter(is_current).is_some() {
            self.end(proxy, "");
            bridge.proxy_refused(proxy);
        }
    }

    /// Senders to a client can continue.
    pub(crate) fn drained(&self, proxy: ProxyId) {
        if let Some(drained) = self.registered.get(&proxy) {
            drained.waiters.notify();
        }
    }

    /// The receivers of a client have drained.
    pub(crate) fn ready(&mut self, bridge: &mut Bridge<Completion>, proxy: ProxyId) {
        if let Some(ready) = self.registered.get_mut(&proxy) {
            ready.waits = false;
        }
        bridge.ready(proxy);
    }

    /// Dispatches a run.
    pub(crate) fn dispatch(&mut self, bridge: &mut Bridge<Completion>, delivery: Delivery) {
        let Some(proxy) = self.registered.get_mut(&delivery.sender) else {
            return bridge.dispatched(&delivery.ticket, Some(Code::NotDelivered));
        };
        let payloads: SmallVec<[Payload<'_>; 16]> = delivery.payloads.iter().map(Payload::from).collect();
        let only = delivery.payloads.only().filter(|only| only.len() >= SHARE_FROM_BYTES);
        let shared = only.map(SharedBytes::from);
        let mut request = Request::new(delivery.op, delivery.qos, delivery.target(), &payloads).blocking();
        if delivery.wants_result() {
            request = request.deferrable();
        }
        if let Some(shared) = &shared {
            request = request.with_shared(shared);
        }
        let result = proxy.client.dispatch(&request);
        if !std::mem::replace(&mut proxy.is_dirty, true) {
            self.dirty.push(delivery.sender);
        }
        if result.is_blocked() {
            let sender = delivery.sender;
            drop(payloads);
            bridge.blocked(delivery);
            return self.wait(sender);
        }
        if result.has_frame_codes() {
            // the result of a run is that of its first message that failed
            proxy.client.take_frame_codes();
        }
        if result.is_pending()
            && let Some(result) = proxy.client.take_pending()
        {
            let (ticket, messages) = (delivery.ticket, payloads.len());
            bridge.dispatched(&ticket, None);
            self.last_pending += 1;
            self.pending.insert(self.last_pending, Pending { result, ticket, messages });
            return self.ask_result(bridge, self.last_pending);
        }
        bridge.dispatched(&delivery.ticket, Some(result.code()));
    }

    /// Asks for a result that was pending.
    pub(crate) fn ask_result(&mut self, bridge: &mut Bridge<Completion>, number: u64) {
        let Some(pending) = self.pending.get(&number) else { return };
        let inputs = self.inputs.clone();
        let notifier = Notifier::new(move || inputs.push(Input::Result { number }));
        if !pending.result.when_complete(notifier) {
            return;
        }
        let codes = (0..pending.messages).filter_map(|message| pending.result.code(message));
        let code = codes.into_iter().find(|code| *code != Code::Ok).unwrap_or(Code::Ok);
        let ticket = pending.ticket;
        self.pending.remove(&number);
        bridge.result(&ticket, code);
    }

    /// Ends the batches of all clients that have dispatched. Those whose receivers are full are held.
    pub(crate) fn end_batches(&mut self, bridge: &mut Bridge<Completion>) {
        for sender in std::mem::take(&mut self.dirty) {
            let Some(proxy) = self.registered.get_mut(&sender) else { continue };
            proxy.is_dirty = false;
            if proxy.client.end_batch() && !proxy.waits {
                bridge.hold(sender);
                self.wait(sender);
            }
        }
    }

    fn wait(&mut self, sender: ProxyId) {
        let Some(proxy) = self.registered.get_mut(&sender).filter(|proxy| !proxy.waits) else { return };
        proxy.waits = true;
        proxy.client.end_batch();
        let inputs = self.inputs.clone();
        proxy.client.when_ready(Notifier::new(move || inputs.push(Input::Ready { proxy: sender })));
    }

    /// Answers a call to a client of a lost node with an error, as the client itself would.
    pub(crate) fn reply_error(&mut self, caller: &str, callee: ProxyId, call_id: u32) {
        let text = "the node of the client is lost; the call may have been carried out";
        let reply = rpc::encode_error(call_id, Code::Timeout.rpc_code(), text.as_bytes());
        let payloads = [Payload::from(&*reply)];
        let request = Request::new(Op::Message, Qos::NO, caller, &payloads).ending_batch();
        match self.registered.get_mut(&callee) {
            Some(proxy) => _ = proxy.client.dispatch(&request),
            None => tracing::debug!(caller, call_id, "no error reply: the client of the lost node is gone"),
        }
    }

    /// Ends all registrations.
    pub(crate) fn clear(&mut self, reason: &str) {
        for proxy in self.registered.keys().copied().collect::<Vec<_>>() {
            self.end(proxy, reason);
        }
    }
}
