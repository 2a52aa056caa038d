//! Runs that hooks apply to: passes them to interceptors before they are routed, and shows them to observers
//! after. Decides nothing about a run itself, and does no work for runs without hooks.
//!
//! Each interceptor gets messages in the order in which they were sent. It gets those of a mixed run
//! together, unless an interceptor before it has replaced some of them.

mod batch;

use elbus_plugin_api::{
    Code, Frame, MixedDispatch, Op, Payload, Request,
    abi::{RoutedRun, RunFrame, RunHeader},
    hooks::{InterceptedRun, MAX_DEPTH, Replacement, Verdict},
};
use smallvec::SmallVec;
use std::{cell::Cell, sync::Arc};

use super::{
    fan_out::{hooked::Route, mixed::Progress},
    run_results::RunResults,
    sender::Sender,
};
use crate::{
    callbacks,
    hooks::{AppliedHooks, HookTable, InterceptorEntry, InterceptorResult},
};
use batch::{Batch, Messages, Positions, Results, part, request_of};

/// The interceptors that a thread executes, one within the other.
#[derive(Clone, Copy, Default)]
struct InProgress {
    /// The instances that own them, the outermost first.
    owners: [u32; MAX_DEPTH],
    depth: usize,
}

impl InProgress {
    const NONE: InProgress = InProgress { owners: [0; MAX_DEPTH], depth: 0 };
}

thread_local! {
    static IN_PROGRESS: Cell<InProgress> = const { Cell::new(InProgress::NONE) };
}

/// Hooks on the way of some messages.
#[derive(Clone, Copy)]
struct Way<'t> {
    table: &'t Arc<HookTable>,
    applied: AppliedHooks,
    op: Op,
}

impl Sender {
    /// Routes a run in a broker that has hooks. If its messages end up with different codes, they are in
    /// [`frame_codes`](Sender::frame_codes), and the result has the first that is not [`Code::Ok`].
    #[cold]
    pub(super) fn route_hooked(
        &mut self,
        table: &Arc<HookTable>,
        op: Op,
        request: &Request<'_>,
        body_bytes: usize,
    ) -> (Code, u32) {
        self.frame_codes.clear();
        let applied = match self.find_hooks(table, op, request.target()) {
            Route::Free => return self.deliver(op, request, body_bytes),
            Route::Denied(applied) => {
                let result = self.deliver(op, request, body_bytes);
                self.observe(Way { table, applied, op }, request, result);
                return result;
            }
            Route::Hooked(applied) => applied,
        };
        let way = Way { table, applied, op };
        if applied.interceptors == 0 || self.is_of_broker() {
            let result = self.deliver(op, request, body_bytes);
            if !self.fan_out.is_blocked() {
                self.observe(way, request, result);
            }
            return result;
        }
        // before it is intercepted: a blocked request is dispatched again
        if self.is_held(op, request, body_bytes) {
            return (Code::NotDelivered, 0);
        }
        let router = self.router().clone();
        let _marking = router.begin_marking();
        let mut results = Results::of(request.payloads().len());
        self.pass_on(way, 0, Batch { messages: Messages::Run(*request), first: 0 }, &mut results);
        let Results { codes, reached, pending, .. } = results;
        if !pending.is_empty() {
            self.pending = Some(RunResults { codes: codes.into_vec(), pending }.into_object());
            return (Code::Ok, reached);
        }
        let code = codes.iter().find(|code| **code != Code::Ok as u8);
        let code = code.and_then(|code| Code::from_wire(*code)).unwrap_or(Code::Ok);
        if codes.iter().any(|other| *other != code as u8) {
            self.frame_codes = codes.into_vec();
        }
        (code, reached)
    }

    /// Routes the first frames of a mixed run, those to which the same interceptors apply, in a broker that
    /// has interceptors.
    #[cold]
    pub(super) fn route_mixed_hooked(
        &mut self,
        table: &Arc<HookTable>,
        frames: &[Frame<'_>],
        codes: &mut [u8],
    ) -> MixedDispatch {
        if self.is_of_broker() {
            return self.route_collected(frames, codes, 0);
        }
        let leading = self.find_leading(table, frames);
        let frames = frames.get(..leading.frames.min(codes.len())).unwrap_or_default();
        if leading.frames == 0 || self.fan_out.must_wait() {
            return MixedDispatch::alone();
        }
        if leading.interceptors == 0 {
            return self.route_collected(frames, codes, leading.work);
        }
        let Some(op) = frames.first().and_then(Frame::op) else { return MixedDispatch::alone() };
        self.fan_out.forbid_blocking();
        let router = self.router().clone();
        let _marking = router.begin_marking();
        let mut results = Results::of(frames.len());
        let applied = AppliedHooks { interceptors: leading.interceptors, observers: 0 };
        let batch = Batch { messages: Messages::Mixed(frames), first: 0 };
        self.pass_on(Way { table, applied, op }, 0, batch, &mut results);
        codes.iter_mut().zip(&results.codes).for_each(|(code, result)| *code = *result);
        let progress = Progress::of(frames, leading.work.saturating_add(results.work));
        self.finish_mixed(&progress, codes, results.pending)
    }

    /// Passes messages to the interceptors from `from` on, then routes those that are left. Each of them gets
    /// a result.
    fn pass_on(&mut self, way: Way<'_>, from: u32, batch: Batch<'_>, results: &mut Results) {
        let left = way.applied.interceptors & u64::MAX.checked_shl(from).unwrap_or(0);
        let next = left.trailing_zeros();
        let Some(interceptor) = way.table.interceptor(next).filter(|_| left != 0) else {
            return self.route_batch(way, batch, results);
        };
        let undecided = results.undecided(&batch);
        if undecided.is_empty() {
            return self.route_batch(way, batch, results);
        }
        results.work = results.work.saturating_add(undecided.len() as u32);
        let verdicts = match self.ask(interceptor, way.op, &batch, &undecided, results) {
            InterceptorResult::Verdicts(verdicts) => verdicts,
            InterceptorResult::Open => Vec::new(),
            InterceptorResult::Closed => {
                let reject = |index| (index, Verdict::Reject(Code::Other));
                (0..undecided.len()).map(reject).collect()
            }
        };
        let mut done = 0;
        for (index, verdict) in verdicts {
            let Some(position) = undecided.get(index).copied() else { continue };
            let message = batch.part(position..position + 1);
            match verdict {
                Verdict::Continue => {}
                Verdict::Reject(code) => results.decide(message.places(), code),
                Verdict::Consume => results.decide(message.places(), Code::Ok),
                Verdict::Replace(replacement) => {
                    // what was sent before it goes first
                    if done < position {
                        self.pass_on(way, next + 1, batch.part(done..position), results);
                    }
                    done = position + 1;
                    self.pass_replaced(way, next, message, &replacement, results);
                }
            }
        }
        if done < batch.len() {
            self.pass_on(way, next + 1, batch.part(done..batch.len()), results);
        }
    }

    /// Passes on a message whose target or payload was replaced by the interceptor at `by`.
    fn pass_replaced(
        &mut self,
        mut way: Way<'_>,
        by: u32,
        message: Batch<'_>,
        replacement: &Replacement,
        results: &mut Results,
    ) {
        let own;
        let original = match message.messages {
            Messages::Run(request) => request,
            Messages::Mixed(frames) => {
                let Some(frame) = frames.first() else { return };
                way.applied.observers = self.observers_of(way.table, way.op, frame.target());
                own = [Payload::from(frame.payload())];
                request_of(frame, &own)
            }
        };
        let payload = replacement.payload.as_deref().map(Payload::from);
        let payloads = payload.as_ref().map_or(original.payloads(), std::slice::from_ref);
        let replaced_by = |request| Batch { messages: Messages::Run(request), first: message.first };
        let Some(target) = replacement.target.as_deref().filter(|target| *target != original.target()) else {
            let replaced = original.with_frames(original.target(), payloads);
            return self.pass_on(way, by + 1, replaced_by(replaced), results);
        };
        let replaced = replaced_by(original.with_frames(target, payloads).with_receiver_id(0));
        results.set_mark(message.first, 0); // of another topic
        let is_valid = !target.is_empty()
            && !target.starts_with('.')
            && !target.contains('\0')
            && target.len() <= self.max_target_bytes();
        if !is_valid {
            if let Some(interceptor) = way.table.interceptor(by) {
                let (plugin, bytes) = (&*interceptor.instance, target.len());
                tracing::debug!(plugin, bytes, "message refused: an interceptor has set an invalid target");
            }
            results.decide(message.places(), Code::BadData);
            return self.observe(way, &original, (Code::BadData, 0));
        }
        match self.find_hooks(way.table, way.op, target) {
            Route::Free => {
                let way = Way { applied: AppliedHooks::default(), ..way };
                self.pass_on(way, 0, replaced, results);
            }
            // denied again when it is routed, which counts it
            Route::Denied(applied) => {
                let applied = AppliedHooks { interceptors: 0, ..applied };
                self.pass_on(Way { applied, ..way }, 0, replaced, results);
            }
            Route::Hooked(applied) => self.pass_on(Way { applied, ..way }, by + 1, replaced, results),
        }
    }

    /// Routes messages that have passed all interceptors. Those that are decided end their way here.
    fn route_batch(&mut self, way: Way<'_>, batch: Batch<'_>, results: &mut Results) {
        match batch.messages {
            Messages::Run(request) => self.route_run(way, &request, batch.first, results),
            Messages::Mixed(frames) => self.route_frames(way, frames, batch.first, results),
        }
    }

    /// Routes messages with the same target: those with the same code and mark together.
    fn route_run(&mut self, way: Way<'_>, request: &Request<'_>, first: usize, results: &mut Results) {
        let (mut start, len) = (0, request.payloads().len());
        while start < len {
            let (code, mark) = results.of_message(first + start);
            let same = |end: &usize| results.of_message(first + end) == (code, mark);
            let end = (start + 1..len).find(|end| !same(end)).unwrap_or(len);
            let (part, places) = (part(request, start..end), first + start..first + end);
            start = end;
            if code != 0 {
                let code = Code::from_wire(code).unwrap_or(Code::Other);
                self.observe(way, &part, (code, 0));
                continue;
            }
            self.fan_out.mark = if way.op == Op::Publish { mark } else { 0 };
            let result = self.deliver(way.op, &part, body_bytes(&part));
            self.fan_out.mark = 0;
            results.reached = results.reached.max(result.1);
            match self.pending.take() {
                Some(pending) => results.pending.push((places, pending)),
                None => results.decide(places, result.0),
            }
            self.observe(way, &part, result);
        }
    }

    /// Routes frames of a mixed run. They do not block any more: those that cannot be collected are routed
    /// one by one.
    fn route_frames(&mut self, way: Way<'_>, frames: &[Frame<'_>], first: usize, results: &mut Results) {
        let mut left = Batch { messages: Messages::Mixed(frames), first };
        while let Messages::Mixed(frames) = left.messages
            && !frames.is_empty()
        {
            let (first, places) = (left.first, left.places());
            let Results { codes, marks, work, pending, .. } = &mut *results;
            let (Some(codes), Some(marks)) = (codes.get_mut(places.clone()), marks.get(places)) else {
                return;
            };
            let progress = self.route_intercepted(frames, codes, marks);
            *work = work.saturating_add(progress.work);
            let later = self.fan_out.pending.drain(..);
            pending.extend(later.map(|(at, object)| (first + at.start..first + at.end, object)));
            left = left.part(progress.frames..frames.len());
            if let Messages::Mixed([frame, ..]) = left.messages {
                let observers = self.observers_of(way.table, way.op, frame.target());
                let applied = AppliedHooks { interceptors: 0, observers };
                let payload = [Payload::from(frame.payload())];
                let request = request_of(frame, &payload);
                self.route_run(Way { applied, ..way }, &request, left.first, results);
                left = left.part(1..left.len());
            }
        }
    }

    /// Passes messages to an interceptor, unless they come from the interceptor itself.
    fn ask(
        &self,
        interceptor: &InterceptorEntry,
        op: Op,
        batch: &Batch<'_>,
        undecided: &Positions,
        results: &mut Results,
    ) -> InterceptorResult {
        // a thread that is ending has no record any more, and starts none
        let outer = IN_PROGRESS.try_with(Cell::get).unwrap_or_default();
        let owners = outer.owners.get(..outer.depth).unwrap_or_default();
        if self.own_instance() == Some(interceptor.owner) || owners.contains(&interceptor.owner) {
            return InterceptorResult::Verdicts(Vec::new());
        }
        let mut inner = outer;
        let Some(place) = inner.owners.get_mut(outer.depth) else {
            tracing::debug!(
                client = self.name(),
                limit = MAX_DEPTH,
                "messages refused: sent by interceptors within interceptors"
            );
            let reject = |index| (index, Verdict::Reject(Code::NotDelivered));
            return InterceptorResult::Verdicts((0..undecided.len()).map(reject).collect());
        };
        *place = interceptor.owner;
        inner.depth += 1;
        let frames: SmallVec<[RunFrame<'_>; 8]> =
            undecided.iter().filter_map(|position| batch.frame(*position)).collect();
        let mut marks: SmallVec<[u64; 8]> = SmallVec::from_elem(0, frames.len());
        let receiver = match &batch.messages {
            Messages::Run(request) if op == Op::PublishFor => request.receiver(),
            _ => "",
        };
        let header = RunHeader::new(op, batch.qos(), self.name(), self.sender_id(), receiver);
        _ = IN_PROGRESS.try_with(|place| place.set(inner));
        let result = interceptor.intercept(&mut InterceptedRun::new(header, &frames, &mut marks));
        _ = IN_PROGRESS.try_with(|place| place.set(outer));
        // it may have sent messages of its own
        callbacks::set_client(self.sender_id());
        for (position, mark) in undecided.iter().zip(&marks).filter(|(_, mark)| **mark != 0) {
            results.set_mark(batch.first + position, *mark);
        }
        result
    }

    /// Shows messages to the observers of their target.
    fn observe(&self, way: Way<'_>, request: &Request<'_>, (code, recipients): (Code, u32)) {
        let Way { table, applied, op } = way;
        if applied.observers == 0 {
            return;
        }
        table.observe(
            applied,
            &RoutedRun {
                op,
                qos: request.qos(),
                sender: self.name(),
                sender_id: self.sender_id(),
                target: request.target(),
                receiver: if op == Op::PublishFor { request.receiver() } else { "" },
                payloads: request.payloads(),
                shared: request.shared(),
                code,
                recipients,
            },
        );
    }
}

/// Returns the length of the bodies of a request on the wire.
pub(super) fn body_bytes(request: &Request<'_>) -> usize {
    let receiver = if request.op() == Some(Op::PublishFor) { request.receiver().len() + 1 } else { 0 };
    let head = request.target().len() + 1 + receiver;
    request.payloads().iter().map(|payload| head + payload.len()).sum()
}
