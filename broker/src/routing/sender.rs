//! The sending side of a client: resolves each run, hands it to the recipients, flushes at the end of the batch.
//!
//! Owned by one reader at a time, so its memo needs no lock. Steady traffic takes no lock of the broker: the peers
//! that were sent to last are remembered as long as they are registered, the recipients of a topic or mask as long as
//! their epoch lasts.

use abi_stable::{
    sabi_trait::TD_Opaque,
    std_types::{RArc, RStr},
};
use elbus_plugin_api::{
    BROKER_NAME, Code, Delivery, Dispatch, Encoding, FrameKind, Op, Request, Run,
    abi::{RawClient, RawWake, RawWake_TO, WakeObject},
    access::Action,
};
use elbus_protocol::name::primary_of;
use std::{cell::Cell, collections::HashMap, sync::Arc};

use super::{
    Hashing,
    member::Member,
    peers::Peers,
    recipients::Recipients,
    router::{Resolved, Router},
};
use crate::{
    access::Admission,
    sync::{
        Mutex,
        atomic::{AtomicUsize, Ordering},
    },
};

/// Bytes of an acknowledgement on the wire, as the counters count it (protocol section 7).
const ACK_BYTES: usize = 6;
/// Bytes that a sender may have waiting at its recipients beyond their limits although it was told to wait: it ignores
/// that. Those who read no more until they are called never come near it.
const UNHEEDED_BYTES: usize = 64 << 20;
/// Topics or masks whose recipients a sender remembers.
const REMEMBERED_ROUTES: usize = 4096;

thread_local! {
    /// The wire form of the run under way. Taken out for the time of a dispatch, since a sink may dispatch itself.
    /// Boxed, as it is moved for every run.
    static ENCODING: Cell<Option<Box<Encoding>>> = const { Cell::new(None) };
}

/// See [`Client`](elbus_plugin_api::Client). Dropping it unregisters.
pub(crate) struct Sender {
    router: Arc<Router>,
    /// `None` for a speaker.
    member: Option<Arc<Member>>,
    name: Arc<str>,
    reach: Reach,
    /// What the client may do, as of an epoch of access.
    admission: Option<Arc<Admission>>,
    access_epoch: u64,
    why: String,
}

/// Whom a sender reaches: what it remembers of the way there, and what it owes on arrival.
#[derive(Default)]
struct Reach {
    peers: Peers,
    topics: Option<Box<Routes>>,
    masks: Option<Box<Routes>>,
    /// Those owed a flush. A sink is in it once: it says dirty only to the first.
    dirty: Vec<Arc<Member>>,
    congested: Vec<Arc<Member>>,
    /// Whether a recipient of the request under way is over its limit.
    met_full: bool,
    /// Whether the sender was told to wait, and has not asked since when it may go on.
    waits: bool,
    /// Bytes it has sent to recipients over their limit nevertheless.
    unheeded: usize,
    /// Whether the request under way has looked already how much of that has drained.
    recounted: bool,
    flood: Flood,
}

/// Whether a sender was refused something since it did not wait. Said once.
#[derive(Default, PartialEq, Eq)]
enum Flood {
    #[default]
    Never,
    Begins,
    Said,
}

/// Recipients by topic or mask, all of one epoch.
#[derive(Default)]
struct Routes {
    epoch: u64,
    last_target: String,
    last: Option<Arc<Recipients>>,
    by_target: HashMap<Box<str>, Arc<Recipients>, Hashing>,
}

impl Routes {
    #[inline]
    fn get(&mut self, epoch: u64, target: &str, resolve: impl FnOnce() -> Resolved) -> Arc<Recipients> {
        if let Some(last) = &self.last
            && self.epoch == epoch
            && self.last_target == target
        {
            return last.clone();
        }
        self.look_up(epoch, target, resolve)
    }

    #[cold]
    fn look_up(&mut self, epoch: u64, target: &str, resolve: impl FnOnce() -> Resolved) -> Arc<Recipients> {
        if self.epoch != epoch || self.by_target.len() >= REMEMBERED_ROUTES {
            self.by_target.clear();
        }
        let recipients = match self.by_target.get(target).filter(|_| self.epoch == epoch) {
            Some(recipients) => recipients.clone(),
            None => {
                let resolved = resolve();
                if resolved.epoch != self.epoch {
                    self.by_target.clear();
                    self.epoch = resolved.epoch;
                }
                self.by_target.insert(target.into(), resolved.recipients.clone());
                resolved.recipients
            }
        };
        self.last_target.clear();
        self.last_target.push_str(target);
        self.last = Some(recipients.clone());
        recipients
    }
}

impl Sender {
    pub(super) fn new(router: Arc<Router>, member: Option<Arc<Member>>) -> Self {
        let name = member.as_ref().map_or_else(|| BROKER_NAME.into(), |member| member.name.clone());
        // first, so that what is older is asked again
        let access_epoch = router.access.epoch();
        let admission = member.as_ref().and_then(|member| member.admission());
        Sender { router, member, name, reach: Reach::default(), admission, access_epoch, why: String::new() }
    }

    fn is_gone(&self) -> bool {
        self.member.as_ref().is_some_and(|member| member.is_gone())
    }

    fn carry(&mut self, op: Op, request: &Request<'_>, body_bytes: usize) -> (Code, u32) {
        let kind = match op {
            Op::Message => FrameKind::Message,
            Op::Broadcast => FrameKind::Broadcast,
            _ => FrameKind::Publish,
        };
        let Sender { router, name, reach, admission, .. } = self;
        let access = admission.as_deref();
        let (target, receiver) = (request.target(), request.receiver());
        let topic = if kind == FrameKind::Publish { target } else { "" };
        let mut encoding = ENCODING.take().unwrap_or_default();
        encoding.reset();
        let mut run =
            Run::new(kind, request.qos(), name, topic, request.payloads(), request.shared(), &mut encoding);
        let result = match op {
            Op::Message => reach.send_to(router, access, target, &mut run, body_bytes),
            Op::Broadcast => {
                let recipients = reach.matching(router, access, target);
                reach.fan_out(router, &recipients, |_| true, &mut run, body_bytes)
            }
            Op::PublishFor => {
                let recipients = reach.subscribed(router, access, target);
                let is_for = |member: &Member| primary_of(&member.name) == receiver;
                reach.fan_out(router, &recipients, is_for, &mut run, body_bytes)
            }
            _ => {
                let recipients = reach.subscribed(router, access, target);
                reach.fan_out(router, &recipients, |_| true, &mut run, body_bytes)
            }
        };
        ENCODING.set(Some(encoding));
        if result.0 == Code::AccessDenied {
            self.denied(op, target, request.payloads().len());
        }
        result
    }

    #[cold]
    fn denied(&self, op: Op, target: &str, frames: usize) {
        let action = match op {
            Op::Message => Action::Send,
            Op::Broadcast => Action::Broadcast,
            _ => Action::Publish,
        };
        if let Some(admission) = &self.admission {
            admission.deny(action, target, frames);
        }
    }

    /// Access rules were replaced: what was remembered may be allowed no longer, or is now.
    #[cold]
    fn ask_anew(&mut self, epoch: u64) {
        self.access_epoch = epoch;
        self.admission = self.member.as_ref().and_then(|member| member.admission());
        self.reach.forget();
    }

    #[inline]
    fn route(&mut self, request: &Request<'_>) -> Dispatch {
        if self.is_gone() {
            return Dispatch::gone();
        }
        let epoch = self.router.access.epoch();
        if epoch != self.access_epoch {
            self.ask_anew(epoch);
        }
        (self.reach.met_full, self.reach.recounted) = (false, false);
        let Some(op) = request.op() else { return Dispatch::new(Code::NotSupported, 0) };
        let payloads = request.payloads();
        let (frames, body_bytes, (code, reached));
        if op.is_topic_op() {
            (frames, body_bytes) = (1, request.target().len());
            let code_of = |member| self.router.change_filters(member, op, request.target());
            (code, reached) = (self.member.as_ref().map_or(Code::NotSupported, code_of), 0);
        } else {
            let receiver = if op == Op::PublishFor { request.receiver().len() + 1 } else { 0 };
            let head = request.target().len() + 1 + receiver;
            frames = payloads.len();
            body_bytes = frames * head + payloads.iter().map(|payload| payload.len()).sum::<usize>();
            (code, reached) = self.carry(op, request, body_bytes);
            if self.reach.flood == Flood::Begins {
                self.reach.flood = Flood::Said;
                let (client, limit) = (&*self.name, UNHEEDED_BYTES);
                tracing::warn!(client, limit, "goes on sending to full queues though it is to wait: refused");
            }
        }
        if let Some(member) = &self.member {
            member.counts.received(frames, body_bytes);
            if request.qos().wants_ack() {
                member.counts.sent(frames, frames * ACK_BYTES);
            }
        }
        Dispatch::new(code, reached).congested(self.reach.met_full)
    }
}

impl Reach {
    /// Forgets whom it reaches, not what it owes.
    fn forget(&mut self) {
        self.peers = Peers::default();
        self.topics = None;
        self.masks = None;
    }

    fn matching(&mut self, router: &Router, access: Option<&Admission>, mask: &str) -> Arc<Recipients> {
        let routes = self.masks.get_or_insert_default();
        let epoch = router.names_epoch();
        routes.get(epoch, mask, || match access {
            Some(access) if !access.allows(Action::Broadcast, mask) => Resolved::denied(epoch),
            _ => router.resolve_mask(mask),
        })
    }

    fn subscribed(&mut self, router: &Router, access: Option<&Admission>, topic: &str) -> Arc<Recipients> {
        let epoch = router.topics_epoch();
        let resolve = || match access {
            Some(access) if !access.allows(Action::Publish, topic) => Resolved::denied(epoch),
            _ => router.resolve_topic(topic),
        };
        if topic.starts_with(BROKER_NAME) {
            // everybody is subscribed to one of these from the start, which changes no epoch
            return resolve().recipients;
        }
        let routes = self.topics.get_or_insert_default();
        routes.get(epoch, topic, resolve)
    }

    #[inline]
    fn send_to(
        &mut self,
        router: &Router,
        access: Option<&Admission>,
        target: &str,
        run: &mut Run<'_>,
        body_bytes: usize,
    ) -> (Code, u32) {
        let may_send = || access.is_none_or(|access| allows_message(access, target));
        let Some(peer) = self.peers.get(target, |name| router.find(name).filter(|_| may_send())) else {
            // also of who is not there: whether somebody is, is not for everybody to know
            return (if may_send() { Code::NotRegistered } else { Code::AccessDenied }, 0);
        };
        let delivery = self.hand(router, peer, run, body_bytes);
        if delivery.is_taken() {
            (Code::Ok, 1)
        } else if delivery.has(Delivery::REFUSED) {
            (Code::NotDelivered, 0)
        } else {
            (Code::NotRegistered, 0)
        }
    }

    #[inline]
    fn fan_out(
        &mut self,
        router: &Router,
        recipients: &Recipients,
        is_meant: impl Fn(&Member) -> bool,
        run: &mut Run<'_>,
        body_bytes: usize,
    ) -> (Code, u32) {
        if recipients.is_denied() {
            return (Code::AccessDenied, 0);
        }
        let (mut reached, mut refused) = (0, false);
        for member in recipients.iter().filter(|member| is_meant(member)) {
            let delivery = self.hand(router, member, run, body_bytes);
            reached += u32::from(delivery.is_taken());
            refused |= delivery.has(Delivery::REFUSED);
        }
        // reaching nobody is fine, but not if those who are there were all too full
        (if refused && reached == 0 { Code::NotDelivered } else { Code::Ok }, reached)
    }

    #[inline]
    fn hand(
        &mut self,
        router: &Router,
        member: Arc<Member>,
        run: &mut Run<'_>,
        body_bytes: usize,
    ) -> Delivery {
        let delivery = if self.waits && self.floods(&member) {
            Delivery::REFUSED
        } else {
            Delivery::from_bits(member.sink.deliver(run))
        };
        if delivery.is_taken() {
            member.counts.sent(run.payloads().len(), body_bytes);
        } else if delivery.has(Delivery::REFUSED) {
            router.count_refused(run.payloads().len());
        }
        if delivery.has(Delivery::FULL) {
            self.met_full = true;
            self.unheeded += if self.waits { body_bytes } else { 0 };
            if !self.congested.iter().any(|other| Arc::ptr_eq(other, &member)) {
                self.congested.push(member.clone());
            }
        }
        if delivery.has(Delivery::DIRTY) {
            self.dirty.push(member);
        }
        delivery
    }
}

/// Whatever is sent to the broker itself: its methods have rules of their own.
fn allows_message(access: &Admission, target: &str) -> bool {
    target == BROKER_NAME || access.allows(Action::Send, target)
}

impl Reach {
    /// Whether so much that was sent against being told to wait is waiting still that a recipient over its limit gets
    /// no more.
    #[cold]
    fn floods(&mut self, member: &Arc<Member>) -> bool {
        if self.unheeded <= UNHEEDED_BYTES || !self.congested.iter().any(|other| Arc::ptr_eq(other, member)) {
            return false;
        }
        if !std::mem::replace(&mut self.recounted, true) {
            // what has drained since is not held against it, though it has not asked
            let waiting = self.congested.iter().filter(|member| !member.is_gone());
            let waiting = waiting.map(|member| member.sink.queued().bytes).fold(0, u64::saturating_add);
            self.unheeded = self.unheeded.min(usize::try_from(waiting).unwrap_or(usize::MAX));
        }
        let floods = self.unheeded > UNHEEDED_BYTES;
        if floods && self.flood == Flood::Never {
            self.flood = Flood::Begins;
        }
        floods
    }
}

impl RawClient for Sender {
    fn dispatch(&mut self, request: &Request<'_>) -> Dispatch {
        let result = self.route(request);
        if request.ends_batch() { result.congested(self.end_batch()) } else { result }
    }

    fn end_batch(&mut self) -> bool {
        let Reach { dirty, congested, .. } = &mut self.reach;
        if !dirty.is_empty() {
            for member in dirty.drain(..) {
                member.sink.flush();
            }
        }
        if congested.is_empty() {
            return false;
        }
        // those who left meanwhile hold nobody up
        congested.retain(|member| !member.is_gone());
        let waits = !congested.is_empty();
        self.reach.waits = waits;
        waits
    }

    fn when_ready(&mut self, wake: WakeObject) {
        let congested = std::mem::take(&mut self.reach.congested);
        (self.reach.waits, self.reach.unheeded) = (false, 0);
        if congested.is_empty() {
            return wake.wake();
        }
        let countdown =
            RArc::new(Countdown(Arc::new((AtomicUsize::new(congested.len()), Mutex::new(Some(wake))))));
        for member in congested {
            member.sink.when_drained(RawWake_TO::from_ptr(countdown.clone(), TD_Opaque));
        }
    }

    fn leaving(&mut self, why: RStr<'_>) {
        self.why = why.as_str().to_owned();
    }
}

impl Drop for Sender {
    fn drop(&mut self) {
        // a batch that was not ended: its sinks would wait for their flush for ever
        self.end_batch();
        if let Some(member) = self.member.take() {
            let why = if self.why.is_empty() { "disconnected" } else { &self.why };
            self.router.leave(&member, why);
        }
    }
}

/// Wakes once it was itself woken as often as there were recipients to wait for.
#[derive(Clone)]
struct Countdown(Arc<(AtomicUsize, Mutex<Option<WakeObject>>)>);

impl RawWake for Countdown {
    fn wake(&self) {
        let (left, wake) = &*self.0;
        if left.fetch_sub(1, Ordering::AcqRel) == 1 {
            let wake = wake.lock().take();
            if let Some(wake) = wake {
                wake.wake();
            }
        }
    }
}
