//! Runs that hooks apply to: passes them to interceptors before they are routed, and shows them to observers
//! after. Decides nothing about a run itself, and does no work for runs without hooks.

use elbus_plugin_api::{
    Code, Op, Payload, Request,
    abi::{PendingObject, RoutedRun, RunFrame, RunHeader},
    hooks::{InterceptedRun, MAX_DEPTH, Replacement, Verdict},
};
use std::{cell::Cell, ops::Range, sync::Arc};

use super::{fan_out::hooked::Route, run_results::RunResults, sender::Sender};
use crate::{
    callbacks,
    hooks::{AppliedHooks, HookTable, InterceptorEntry, InterceptorResult},
};

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

/// The results of the messages of a run so far, in order.
#[derive(Default)]
struct Results {
    codes: Vec<u8>,
    /// The most recipients of a part of the run.
    reached: u32,
    /// Parts of the run whose codes are supplied later.
    pending: Vec<(Range<usize>, PendingObject)>,
    /// The mark of the messages at hand, see [`replays`](super::replays).
    mark: u64,
}

impl Results {
    fn add(&mut self, frames: usize, code: Code, reached: u32) {
        self.codes.resize(self.codes.len() + frames, code as u8);
        self.reached = self.reached.max(reached);
    }
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
                self.observe(table, applied, op, request, result);
                return result;
            }
            Route::Hooked(applied) => applied,
        };
        if applied.interceptors == 0 || self.is_of_broker() {
            let result = self.deliver(op, request, body_bytes);
            if !self.fan_out.is_blocked() {
                self.observe(table, applied, op, request, result);
            }
            return result;
        }
        // before it is intercepted: a blocked request is dispatched again
        if self.is_held(op, request, body_bytes) {
            return (Code::NotDelivered, 0);
        }
        let mut results = Results::default();
        self.pass_on(table, applied, 0, op, request, &mut results);
        let Results { codes, reached, pending, .. } = results;
        if !pending.is_empty() {
            self.pending = Some(RunResults { codes, pending }.into_object());
            return (Code::Ok, reached);
        }
        let code = codes.iter().find(|code| **code != Code::Ok as u8);
        let code = code.and_then(|code| Code::from_wire(*code)).unwrap_or(Code::Ok);
        if codes.iter().any(|other| *other != code as u8) {
            self.frame_codes = codes;
        }
        (code, reached)
    }

    /// Passes messages with the same target to the interceptors from `first` on, then routes those that are
    /// left. Adds a result for each of them.
    fn pass_on(
        &mut self,
        table: &Arc<HookTable>,
        applied: AppliedHooks,
        first: u32,
        op: Op,
        request: &Request<'_>,
        results: &mut Results,
    ) {
        let left = applied.interceptors & u64::MAX.checked_shl(first).unwrap_or(0);
        let payloads = request.payloads();
        let next = left.trailing_zeros();
        let Some(interceptor) = table.interceptor(next).filter(|_| left != 0) else {
            let body_bytes = body_bytes(request);
            self.fan_out.mark = if op == Op::Publish { results.mark } else { 0 };
            let result = self.deliver(op, request, body_bytes);
            self.fan_out.mark = 0;
            let first = results.codes.len();
            results.add(payloads.len(), result.0, result.1);
            if let Some(pending) = self.pending.take() {
                results.pending.push((first..results.codes.len(), pending));
            }
            return self.observe(table, applied, op, request, result);
        };
        let verdicts = match self.ask(interceptor, op, request) {
            InterceptorResult::Verdicts(verdicts, 0) => verdicts,
            InterceptorResult::Verdicts(verdicts, mark) => {
                results.mark = mark;
                verdicts
            }
            InterceptorResult::Open => Vec::new(),
            InterceptorResult::Closed => {
                return self.finish(table, applied, op, request, 0..payloads.len(), Code::Other, results);
            }
        };
        let mark = results.mark;
        let mut done = 0;
        for (index, verdict) in verdicts {
            if done < index {
                let part = part(request, done..index);
                self.pass_on(table, applied, next + 1, op, &part, results);
            }
            done = index + 1;
            results.mark = mark;
            match verdict {
                Verdict::Continue => {}
                Verdict::Reject(code) => {
                    self.finish(table, applied, op, request, index..done, code, results);
                }
                Verdict::Consume => {
                    self.finish(table, applied, op, request, index..done, Code::Ok, results);
                }
                Verdict::Replace(replacement) => {
                    let original = part(request, index..done);
                    self.pass_replaced(table, applied, next, op, &original, &replacement, results);
                }
            }
        }
        results.mark = mark;
        if done < payloads.len() {
            // the whole run keeps what its sender shares
            let rest = if done == 0 { *request } else { part(request, done..payloads.len()) };
            self.pass_on(table, applied, next + 1, op, &rest, results);
        }
    }

    /// Passes on a message whose target or payload was replaced by the interceptor at `by`.
    #[expect(clippy::too_many_arguments, reason = "what a part of a run consists of")]
    fn pass_replaced(
        &mut self,
        table: &Arc<HookTable>,
        applied: AppliedHooks,
        by: u32,
        op: Op,
        original: &Request<'_>,
        replacement: &Replacement,
        results: &mut Results,
    ) {
        let payload = replacement.payload.as_deref().map(Payload::from);
        let payloads = payload.as_ref().map_or(original.payloads(), std::slice::from_ref);
        let Some(target) = replacement.target.as_deref().filter(|target| *target != original.target()) else {
            let replaced = original.with_frames(original.target(), payloads);
            return self.pass_on(table, applied, by + 1, op, &replaced, results);
        };
        let replaced = original.with_frames(target, payloads).with_receiver_id(0);
        results.mark = 0; // of another topic
        let is_valid = !target.is_empty()
            && !target.starts_with('.')
            && !target.contains('\0')
            && target.len() <= self.max_target_bytes();
        if !is_valid {
            if let Some(interceptor) = table.interceptor(by) {
                let (plugin, bytes) = (&*interceptor.instance, target.len());
                tracing::debug!(plugin, bytes, "message refused: an interceptor has set an invalid target");
            }
            return self.finish(table, applied, op, original, 0..1, Code::BadData, results);
        }
        match self.find_hooks(table, op, target) {
            Route::Free => {
                self.pass_on(table, AppliedHooks::default(), 0, op, &replaced, results);
            }
            // denied again when it is routed, which counts it
            Route::Denied(applied) => {
                let observed = AppliedHooks { interceptors: 0, ..applied };
                self.pass_on(table, observed, 0, op, &replaced, results);
            }
            Route::Hooked(applied) => self.pass_on(table, applied, by + 1, op, &replaced, results),
        }
    }

    /// Ends the way of messages that are not routed.
    #[expect(clippy::too_many_arguments, reason = "what a part of a run consists of")]
    fn finish(
        &mut self,
        table: &HookTable,
        applied: AppliedHooks,
        op: Op,
        request: &Request<'_>,
        frames: Range<usize>,
        code: Code,
        results: &mut Results,
    ) {
        results.add(frames.len(), code, 0);
        self.observe(table, applied, op, &part(request, frames), (code, 0));
    }

    /// Passes messages to an interceptor, unless they come from the interceptor itself.
    fn ask(&self, interceptor: &InterceptorEntry, op: Op, request: &Request<'_>) -> InterceptorResult {
        // a thread that is ending has no record any more, and starts none
        let outer = IN_PROGRESS.try_with(Cell::get).unwrap_or_default();
        let owners = outer.owners.get(..outer.depth).unwrap_or_default();
        if self.own_instance() == Some(interceptor.owner) || owners.contains(&interceptor.owner) {
            return InterceptorResult::Verdicts(Vec::new(), 0);
        }
        let mut inner = outer;
        let Some(place) = inner.owners.get_mut(outer.depth) else {
            tracing::debug!(
                client = self.name(),
                limit = MAX_DEPTH,
                "messages refused: sent by interceptors within interceptors"
            );
            let reject = |index| (index, Verdict::Reject(Code::NotDelivered));
            return InterceptorResult::Verdicts((0..request.payloads().len()).map(reject).collect(), 0);
        };
        *place = interceptor.owner;
        inner.depth += 1;
        let frames: Vec<_> =
            request.payloads().iter().map(|payload| RunFrame::new(request.target(), *payload)).collect();
        let receiver = if op == Op::PublishFor { request.receiver() } else { "" };
        let header = RunHeader::new(op, request.qos(), self.name(), self.sender_id(), receiver);
        _ = IN_PROGRESS.try_with(|place| place.set(inner));
        let result = interceptor.intercept(&mut InterceptedRun::new(header, &frames));
        _ = IN_PROGRESS.try_with(|place| place.set(outer));
        // it may have sent messages of its own
        callbacks::set_client(self.sender_id());
        result
    }

    /// Shows messages to the observers of their target.
    fn observe(
        &self,
        table: &HookTable,
        applied: AppliedHooks,
        op: Op,
        request: &Request<'_>,
        (code, recipients): (Code, u32),
    ) {
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

/// Returns the request for some of its messages.
fn part<'a>(request: &Request<'a>, frames: Range<usize>) -> Request<'a> {
    if frames == (0..request.payloads().len()) {
        return *request;
    }
    request.with_frames(request.target(), request.payloads().get(frames).unwrap_or_default())
}

/// Returns the length of the bodies of a request on the wire.
pub(super) fn body_bytes(request: &Request<'_>) -> usize {
    let receiver = if request.op() == Some(Op::PublishFor) { request.receiver().len() + 1 } else { 0 };
    let head = request.target().len() + 1 + receiver;
    request.payloads().iter().map(|payload| head + payload.len()).sum()
}
