//! The sending side of a client: authorises and counts each run, and has it [delivered](super::fan_out).
//! Owned by one reader at a time, so it needs no lock.

use abi_stable::std_types::{ROption, RSlice, RSliceMut, RStr, RVec};
use elbus_plugin_api::{
    BROKER_NAME, Code, Departure, Dispatch, Frame, FrameKind, Locality, MixedDispatch, Op, Request, Run,
    abi::{Deferral, NotifierObject, PendingObject, RawClient},
    access::Action,
};
use std::{cell::Cell, ops::Range, sync::Arc};

use super::{
    fan_out::{
        ENCODING, FanOut, Scope,
        congestion::UNHEEDED_BYTES,
        hooked::{Leading, Route},
        mixed::{MixedSender, Progress},
    },
    registered_client::RegisteredClient,
    router::Router,
    run_results::RunResults,
};
use crate::{access::PolicySnapshot, callbacks, hooks::HookTable, sync::atomic::AtomicUsize};

/// Bytes of an acknowledgement on the wire, as the counters count it (protocol section 7).
const ACK_BYTES: usize = 6;

/// See [`Client`](elbus_plugin_api::Client). Dropping it unregisters.
pub(crate) struct Sender {
    router: Arc<Router>,
    /// `None` for a sender without a registration, which sends as `.broker`.
    member: Option<Arc<RegisteredClient>>,
    /// The name in its frames: that of the client, or `.broker`.
    name: Arc<str>,
    /// The id of its registration; 0 without one.
    id: u64,
    pub(super) fan_out: FanOut,
    /// The policy of the client, as of `access_epoch`.
    policy: Option<Arc<PolicySnapshot>>,
    access_epoch: u64,
    /// Reason for leaving, if one was given.
    close_reason: Option<Box<str>>,
    departure: Departure,
    /// Whether it has unregistered by its own request. It may still send messages: answers to what it has
    /// received.
    draining: bool,
    /// Exists while the client is not read because its own queue is full.
    waits_for_itself: Option<Arc<AtomicUsize>>,
    /// The codes of the messages of the last run, if interceptors made them differ.
    pub(super) frame_codes: Vec<u8>,
    /// The result of the last run, if it is supplied later.
    pub(super) pending: Option<PendingObject>,
}

impl Sender {
    /// Creates the sender of a client or, without one, a sender that sends as `.broker`.
    pub(crate) fn new(router: Arc<Router>, member: Option<Arc<RegisteredClient>>) -> Self {
        // first: an older policy is then refreshed
        let access_epoch = router.access.epoch();
        let policy = member.as_ref().and_then(|member| member.policy());
        let client = member.as_ref().filter(|member| member.system.is_none());
        let name = client.map_or_else(|| BROKER_NAME.into(), |member| member.name.clone());
        let id = member.as_ref().map_or(0, |member| member.id);
        let fan_out = FanOut::new(member.as_ref(), router.cache_memory.clone(), router.hooks.table());
        Sender {
            router,
            member,
            name,
            id,
            fan_out,
            policy,
            access_epoch,
            close_reason: None,
            departure: Departure::default(),
            draining: false,
            waits_for_itself: None,
            frame_codes: Vec::new(),
            pending: None,
        }
    }

    fn is_gone(&self) -> bool {
        self.member.as_ref().is_some_and(|member| member.is_gone())
    }

    pub(super) fn name(&self) -> &str {
        &self.name
    }

    pub(super) fn sender_id(&self) -> u64 {
        self.id
    }

    /// Returns the instance that has registered the client; `None` if it is not in the broker's process.
    pub(super) fn own_instance(&self) -> Option<u32> {
        let member = self.member.as_ref()?;
        (member.origin.locality == Locality::InProcess && member.system.is_none()).then_some(member.owner)
    }

    /// Returns whether it sends as a part of the broker, rather than as a client or a system sender.
    pub(super) fn is_of_broker(&self) -> bool {
        self.member.as_ref().is_none_or(|member| member.origin.internal)
    }

    pub(super) fn router(&self) -> &Arc<Router> {
        &self.router
    }

    pub(super) fn max_target_bytes(&self) -> usize {
        self.router.max_topic_bytes()
    }

    pub(super) fn find_hooks(&mut self, table: &HookTable, op: Op, target: &str) -> Route {
        self.fan_out.find_hooks(&self.router, self.policy.as_deref(), table, op, target)
    }

    pub(super) fn is_held(&mut self, op: Op, request: &Request<'_>, body_bytes: usize) -> bool {
        self.fan_out.is_held(&self.router, self.policy.as_deref(), op, request, body_bytes)
    }

    /// Delivers a run to its recipients.
    pub(super) fn deliver(&mut self, op: Op, request: &Request<'_>, body_bytes: usize) -> (Code, u32) {
        let kind = match op {
            Op::Message => FrameKind::Message,
            Op::Broadcast => FrameKind::Broadcast,
            _ => FrameKind::Publish,
        };
        let Sender { router, name, id, fan_out, policy, .. } = self;
        let access = policy.as_deref();
        let target = request.target();
        let topic = if kind == FrameKind::Publish { target } else { "" };
        // an ending thread has none any more
        let mut encoding = ENCODING.try_with(Cell::take).ok().flatten().unwrap_or_default();
        encoding.reset();
        let mut deferral = Deferral::default();
        let mut run =
            Run::new(kind, request.qos(), name, topic, request.payloads(), request.shared(), &mut encoding)
                .with_sender_id(*id);
        let result = match op {
            Op::Message => {
                if request.is_deferrable() {
                    run = run.with_deferral(&mut deferral);
                }
                fan_out.send_to(router, access, (target, request.receiver_id()), &mut run, body_bytes)
            }
            _ => {
                let recipients = match op {
                    Op::Broadcast => fan_out.mask_recipients(router, access, target),
                    _ => fan_out.topic_recipients(router, access, target),
                };
                fan_out.deliver_to_all(router, &recipients, Scope::of(op, request), &mut run, body_bytes)
            }
        };
        _ = ENCODING.try_with(|cell| cell.set(Some(encoding)));
        if deferral.is_used() && result.0 == Code::Ok {
            self.pending = deferral.take();
        }
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
        if let (Some(policy), Some(member)) = (&self.policy, &self.member) {
            policy.deny(action, target, frames, &member.origin);
        }
    }

    #[cold]
    fn too_long(&self, bytes: usize) -> (Code, u32) {
        let client = self.member.as_deref().map_or(BROKER_NAME, |member| &member.name);
        let limit = self.router.max_topic_bytes();
        tracing::debug!(client, bytes, limit, "frame refused: its target is longer than max_topic_bytes");
        (Code::BadData, 0)
    }

    /// Reads policy and hooks again and clears the caches: access rules or hooks were replaced.
    #[cold]
    fn refresh_policy(&mut self, epoch: u64) {
        self.access_epoch = epoch;
        self.policy = self.member.as_ref().and_then(|member| member.policy());
        self.fan_out.forget();
        self.fan_out.hooks = self.router.hooks.table();
    }

    #[inline]
    fn route(&mut self, request: &Request<'_>) -> Dispatch {
        if self.is_gone() {
            match request.op() {
                Some(Op::Message) if self.draining => {}
                _ if self.draining => return Dispatch::new(Code::NotSupported, 0),
                _ => return Dispatch::gone(),
            }
        }
        if self.pending.is_some() {
            self.pending = None;
        }
        let epoch = self.router.access.epoch();
        if epoch != self.access_epoch {
            self.refresh_policy(epoch);
        }
        self.fan_out.begin(request.may_block() && !request.qos().is_realtime(), request.is_best_effort());
        let Some(op) = request.op() else { return Dispatch::new(Code::NotSupported, 0) };
        let payloads = request.payloads();
        let (frames, body_bytes, (code, reached));
        if op.is_topic_op() {
            (frames, body_bytes) = (1, request.target().len());
            let code_of = |member| self.router.change_filters(member, op, request.target());
            let client = self.member.as_ref().filter(|member| member.system.is_none());
            (code, reached) = (client.map_or(Code::NotSupported, code_of), 0);
        } else {
            let receiver = if op == Op::PublishFor { request.receiver().len() + 1 } else { 0 };
            let head = request.target().len() + 1 + receiver;
            frames = payloads.len();
            body_bytes = frames * head + payloads.iter().map(|payload| payload.len()).sum::<usize>();
            let longest = request.target().len().max(request.receiver().len());
            (code, reached) = if longest > self.router.max_topic_bytes() {
                self.too_long(longest)
            } else if let Some(table) = self.fan_out.hooks.clone() {
                self.route_hooked(&table, op, request, body_bytes)
            } else {
                self.deliver(op, request, body_bytes)
            };
            if self.fan_out.is_blocked() {
                return Dispatch::blocked();
            }
            if self.fan_out.flood_begins() {
                let (client, limit) = (&*self.name, UNHEEDED_BYTES);
                let origin = self.member.as_ref().map(|member| &member.origin);
                let source = origin.and_then(|origin| origin.source.as_deref());
                let uid = origin.and_then(|origin| origin.uid());
                tracing::warn!(
                    client,
                    source,
                    uid,
                    limit,
                    "client ignores back-pressure; further messages are refused"
                );
            }
        }
        if let Some(member) = &self.member {
            member.counts.received(frames, body_bytes);
            if request.qos().wants_ack() {
                member.counts.sent(frames, frames * ACK_BYTES);
            }
        }
        let result = Dispatch::new(code, reached).congested(self.fan_out.has_met_full());
        if self.pending.is_some() {
            result.pending()
        } else if self.fan_out.hooks.is_none() || self.frame_codes.is_empty() {
            result
        } else {
            result.with_frame_codes()
        }
    }
}

impl Sender {
    fn route_mixed(&mut self, frames: &[Frame<'_>], codes: &mut [u8]) -> MixedDispatch {
        if self.is_gone() {
            // frames of a draining client are checked one by one
            return if self.draining { MixedDispatch::alone() } else { MixedDispatch::gone() };
        }
        let epoch = self.router.access.epoch();
        if epoch != self.access_epoch {
            self.refresh_policy(epoch);
        }
        self.fan_out.begin(true, false);
        match self.fan_out.hooks.clone() {
            Some(table) if table.has_interceptors() => self.route_mixed_hooked(&table, frames, codes),
            _ => self.route_collected(frames, codes, 0),
        }
    }

    /// Routes the first frames of a mixed run, to which no interceptors apply. `work` was done before.
    #[inline]
    pub(super) fn route_collected(
        &mut self,
        frames: &[Frame<'_>],
        codes: &mut [u8],
        work: u32,
    ) -> MixedDispatch {
        let Sender { router, name, id, fan_out, policy, .. } = self;
        let sender = MixedSender { router, policy: policy.as_deref(), name, id: *id, marks: &[] };
        let mut progress = fan_out.dispatch_mixed(&sender, frames, codes);
        progress.work = progress.work.saturating_add(work);
        if progress.denied {
            self.denied_frames(frames.get(..progress.frames).unwrap_or_default(), codes);
        }
        let pending = std::mem::take(&mut self.fan_out.pending);
        self.finish_mixed(&progress, codes, pending)
    }

    /// Finds the first frames of a mixed run to which the same interceptors apply.
    pub(super) fn find_leading(&mut self, table: &HookTable, frames: &[Frame<'_>]) -> Leading {
        self.fan_out.find_leading(&self.router, self.policy.as_deref(), table, frames)
    }

    /// Collects and delivers the first frames of a mixed run that have passed interceptors, those whose code
    /// is 0. The others have their code already. `marks` are those of the frames.
    pub(super) fn route_intercepted(
        &mut self,
        frames: &[Frame<'_>],
        codes: &mut [u8],
        marks: &[u64],
    ) -> Progress {
        let Sender { router, name, id, fan_out, policy, .. } = self;
        let sender = MixedSender { router, policy: policy.as_deref(), name, id: *id, marks };
        fan_out.dispatch_mixed(&sender, frames, codes)
    }

    /// Returns the observers of a target.
    pub(super) fn observers_of(&self, table: &HookTable, op: Op, target: &str) -> u64 {
        self.fan_out.observers_of(table, self.router.topics_epoch(), op, target)
    }

    /// Counts the frames of a mixed run that were dispatched, and keeps the results that are supplied later.
    #[inline]
    pub(super) fn finish_mixed(
        &mut self,
        progress: &Progress,
        codes: &[u8],
        pending: Vec<(Range<usize>, PendingObject)>,
    ) -> MixedDispatch {
        if let Some(member) = &self.member {
            member.counts.received(progress.frames, progress.body_bytes);
            if progress.acks > 0 {
                member.counts.sent(progress.acks, progress.acks * ACK_BYTES);
            }
        }
        let result =
            MixedDispatch::new(progress.frames as u32, progress.work).next_alone(progress.next_alone);
        if pending.is_empty() {
            return result;
        }
        let codes = codes.get(..result.dispatched()).unwrap_or_default().to_vec();
        self.pending = Some(RunResults { codes, pending }.into_object());
        result.pending()
    }

    #[cold]
    fn denied_frames(&self, frames: &[Frame<'_>], codes: &[u8]) {
        for (frame, code) in frames.iter().zip(codes) {
            if *code == Code::AccessDenied as u8
                && let Some(op) = frame.op()
            {
                self.denied(op, frame.target(), 1);
            }
        }
    }
}

impl RawClient for Sender {
    fn dispatch(&mut self, request: &Request<'_>) -> Dispatch {
        callbacks::set_client(self.id);
        let result = self.route(request);
        if request.ends_batch() { result.congested(self.end_batch()) } else { result }
    }

    fn dispatch_mixed(
        &mut self,
        frames: RSlice<'_, Frame<'_>>,
        mut codes: RSliceMut<'_, u8>,
    ) -> MixedDispatch {
        callbacks::set_client(self.id);
        self.route_mixed(frames.as_slice(), codes.as_mut_slice())
    }

    fn take_pending(&mut self) -> ROption<PendingObject> {
        self.pending.take().into()
    }

    fn end_batch(&mut self) -> bool {
        callbacks::set_client(self.id);
        let is_full = self.fan_out.end_batch();
        callbacks::end_batch();
        is_full
    }

    fn when_ready(&mut self, notifier: NotifierObject) {
        self.fan_out.when_ready(&self.router, self.member.as_ref(), notifier);
    }

    fn set_close_reason(&mut self, reason: RStr<'_>) {
        self.close_reason = Some(reason.as_str().into());
    }

    fn set_departure(&mut self, departure: u32) {
        self.departure = Departure::from_number(departure);
    }

    fn take_frame_codes(&mut self) -> RVec<u8> {
        std::mem::take(&mut self.frame_codes).into()
    }

    fn drain(&mut self) {
        let Some(member) = &self.member else { return };
        // an evicted client has lost its rights
        if !member.is_gone() {
            self.draining = true;
            self.router.leave(member, (Departure::Stopped, "draining"));
        }
    }

    fn id(&self) -> u64 {
        self.id
    }

    fn wait_for_itself(&mut self, waits: bool) {
        let left = waits.then(|| Arc::new(AtomicUsize::new(1)));
        if let (Some(member), Some(left)) = (&self.member, &left) {
            self.router.holds.note(member, std::iter::empty(), true, left);
        }
        self.waits_for_itself = left;
    }
}

impl Drop for Sender {
    fn drop(&mut self) {
        // ends an open batch: otherwise its sinks would never be flushed
        self.end_batch();
        if let Some(member) = self.member.take() {
            let reason = self.close_reason.as_deref().unwrap_or("disconnected");
            self.router.leave(&member, (self.departure, reason));
            self.router.reclaim(&member, reason);
        }
    }
}
