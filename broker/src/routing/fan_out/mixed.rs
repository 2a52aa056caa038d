//! Delivery of mixed runs: frames of one sender with different targets are collected for each recipient and
//! delivered to it together.
//!
//! Each recipient gets its frames in the order in which they were sent. Sinks send nothing until all
//! recipients have their frames: a client that reacts to a frame finds every earlier one queued, at any
//! client. A frame with a recipient over its limit is dispatched alone, because only
//! [`congestion`](super::congestion) decides what such a recipient does to the sender.

mod delivery;
mod observation;
mod recipients;

use elbus_plugin_api::{Code, Frame, Op, access::Action};
use elbus_protocol::subscription::has_options;
use std::sync::Arc;

use super::{FanOut, allows_message};
use crate::{
    access::PolicySnapshot,
    routing::{
        mixed_targets::{MixedTargets, UNCACHED},
        router::{Resolved, Router},
    },
};
use recipients::{MAX_RECIPIENTS, Recipients, Selection};

/// The most frames of a mixed run.
pub(super) const MAX_FRAMES: usize = 256;
/// The most bytes in the bodies of a mixed run.
pub(super) const MAX_BODY_BYTES: usize = 256 * 1024;
/// Work after which a mixed run ends, in recipients and frames.
pub(super) const MAX_WORK: u32 = 4096;
/// Work of resolving a topic. After eight of them the clock is read, as with runs.
pub(super) const RESOLVING: u32 = 512;
/// Work of finding a client.
const FINDING: u32 = 16;

/// The sender of a mixed run, what it may do, and what its frames were marked with.
pub(in crate::routing) struct MixedSender<'s> {
    pub(in crate::routing) router: &'s Arc<Router>,
    pub(in crate::routing) policy: Option<&'s PolicySnapshot>,
    pub(in crate::routing) name: &'s str,
    pub(in crate::routing) id: u64,
    /// The marks of the frames, see [`replays`](crate::routing::replays); empty if they were not intercepted.
    pub(in crate::routing) marks: &'s [u64],
}

impl MixedSender<'_> {
    /// Returns whether interceptors have decided about the frames.
    #[inline]
    fn has_intercepted(&self) -> bool {
        !self.marks.is_empty()
    }

    /// Returns the mark of a frame, else 0.
    fn mark_of(&self, index: u32) -> u64 {
        self.marks.get(index as usize).copied().unwrap_or_default()
    }
}

/// How far a mixed run was dispatched.
#[derive(Default)]
pub(in crate::routing) struct Progress {
    pub(in crate::routing) frames: usize,
    pub(in crate::routing) work: u32,
    /// Total length of the bodies of these frames.
    pub(in crate::routing) body_bytes: usize,
    /// Frames that are acknowledged.
    pub(in crate::routing) acks: usize,
    /// Whether the next frame must be dispatched alone.
    pub(in crate::routing) next_alone: bool,
    /// Whether a frame was denied.
    pub(in crate::routing) denied: bool,
}

impl Progress {
    /// Returns the progress of frames all of which were dispatched.
    pub(in crate::routing) fn of(frames: &[Frame<'_>], work: u32) -> Self {
        Progress {
            frames: frames.len(),
            work,
            body_bytes: frames.iter().map(|frame| frame.body().len()).sum(),
            acks: frames.iter().filter(|frame| frame.qos().wants_ack()).count(),
            ..Progress::default()
        }
    }

    /// Ends the run before a frame whose recipients could not be selected. The frame begins the next mixed
    /// run if there was no room for more recipients; otherwise it must be dispatched alone.
    #[inline]
    fn ended_by(mut self, index: u32, recipients: &Recipients) -> Self {
        self.next_alone = !recipients.is_complete() || index == 0;
        self
    }
}

/// Where a frame goes.
#[derive(Clone, Copy)]
enum Target {
    Receiver(u32),
    Route(u32),
    Refused(Code),
    /// The frame must be dispatched alone.
    Alone,
}

impl FanOut {
    /// Dispatches the first frames of a mixed run, and writes a code for each of them. If they were
    /// intercepted, those that have a code other than 0 already are delivered to nobody.
    pub(in crate::routing) fn dispatch_mixed(
        &mut self,
        sender: &MixedSender<'_>,
        frames: &[Frame<'_>],
        codes: &mut [u8],
    ) -> Progress {
        let mut mixed = self.mixed.take().unwrap_or_default();
        if self.must_wait() {
            self.mixed = Some(mixed);
            return Progress { next_alone: true, ..Progress::default() };
        }
        if mixed.is_short() && mixed.may_clear() {
            self.clear_caches(&mut mixed);
        }
        let frames = frames.get(..frames.len().min(MAX_FRAMES).min(codes.len())).unwrap_or_default();
        if let Some(topics) = &self.topics {
            topics.read_ahead(frames.iter().map(Frame::target_bytes));
        }
        let mut recipients = Recipients::take();
        let progress = self.collect(sender, frames, codes, &mut mixed, &mut recipients);
        mixed.set_recent(recipients.used().iter().filter_map(|recipient| recipient.client.as_ref()));
        self.mixed = Some(mixed);
        let frames = frames.get(..progress.frames).unwrap_or_default();
        self.deliver_collected(sender, frames, codes, &mut recipients);
        if self.hooks.is_some() {
            self.observe_collected(sender, frames, codes, &mut recipients);
        }
        recipients.give_back();
        progress
    }

    /// Returns whether the sender must wait. The limit for one that ignores back-pressure is checked for each
    /// frame, so that no frames are collected.
    #[inline]
    pub(in crate::routing) fn must_wait(&self) -> bool {
        self.waits
    }

    /// Makes room for receivers that could not be cached.
    #[cold]
    fn clear_caches(&mut self, mixed: &mut MixedTargets) {
        mixed.clear(&mut self.memory);
        for routes in self.topics.iter_mut().chain(&mut self.masks) {
            routes.clear(&mut self.memory);
        }
    }

    /// Finds the recipients of the frames, and which frames each of them gets.
    fn collect(
        &mut self,
        sender: &MixedSender<'_>,
        frames: &[Frame<'_>],
        codes: &mut [u8],
        mixed: &mut MixedTargets,
        recipients: &mut Recipients,
    ) -> Progress {
        let epoch = sender.router.topics_epoch();
        let generation = self.topics.as_ref().map_or(0, |topics| topics.generation());
        let run = mixed.begin(generation, &mut self.memory);
        let max_target = sender.router.max_topic_bytes();
        let mut progress = Progress { next_alone: true, ..Progress::default() };
        let mut target = Target::Alone;
        let were_intercepted = sender.has_intercepted();
        // whether `target` is that of the frame before
        let mut is_found = false;
        for ((index, frame), code) in (0..).zip(frames).zip(codes) {
            let (qos, body_bytes) = (frame.qos(), frame.body().len());
            if qos.is_realtime() || progress.body_bytes + body_bytes > MAX_BODY_BYTES {
                return progress;
            }
            if were_intercepted && *code != 0 {
                is_found &= frame.repeats();
                progress.frames += 1;
                progress.body_bytes += body_bytes;
                continue;
            }
            let is_same = frame.repeats() && is_found;
            is_found = true;
            if !is_same {
                target = match frame.target_bytes().len() <= max_target {
                    true => self.target_of(sender, epoch, frame, mixed, &mut progress.work),
                    false => Target::Alone,
                };
            }
            let selection = Selection { run, index, tail_bytes: frame.tail_len(), body_bytes };
            let mut code_of_frame = Code::Ok;
            match target {
                Target::Route(route) => {
                    let of_route = mixed.of_route(route);
                    let visited = of_route.0.len() as u32;
                    let Some(reached) = recipients.select(of_route, selection) else {
                        return progress.ended_by(index, recipients);
                    };
                    // departed receivers are visited, which is little work
                    progress.work += reached.max(visited / 4).max(1);
                }
                Target::Receiver(number) => {
                    progress.work += 1;
                    match recipients.select((&[number], mixed.receivers()), selection) {
                        Some(0) => {
                            // the client has left: another one may have taken the name
                            target = self.find_target(sender, frame, mixed, &mut progress.work);
                            let found = match target {
                                Target::Receiver(number) => {
                                    recipients.select((&[number], mixed.receivers()), selection)
                                }
                                Target::Refused(refusal) => {
                                    code_of_frame = refusal;
                                    Some(1)
                                }
                                Target::Route(_) | Target::Alone => None,
                            };
                            // that one has left too: alone
                            if found.is_none_or(|found| found == 0) {
                                return progress;
                            }
                        }
                        Some(_) => {}
                        None => return progress.ended_by(index, recipients),
                    }
                }
                Target::Refused(refusal) => code_of_frame = refusal,
                Target::Alone => return progress,
            }
            *code = code_of_frame as u8;
            progress.denied |= code_of_frame == Code::AccessDenied;
            progress.frames += 1;
            progress.body_bytes += body_bytes;
            progress.acks += usize::from(qos.wants_ack());
            if progress.work >= MAX_WORK {
                break;
            }
        }
        progress.next_alone = false;
        progress
    }

    /// Returns where a frame goes, as cached or resolved.
    #[inline(always)]
    fn target_of(
        &mut self,
        sender: &MixedSender<'_>,
        epoch: u64,
        frame: &Frame<'_>,
        mixed: &mut MixedTargets,
        work: &mut u32,
    ) -> Target {
        let target = frame.target_bytes();
        match frame.op() {
            Some(Op::Publish) => {
                let route = self.topics.as_ref().and_then(|topics| topics.index_of(epoch, target));
                match route {
                    Some(route) if mixed.knows_route(route) => Target::Route(route),
                    _ => self.resolve(sender, epoch, frame, mixed, work),
                }
            }
            Some(Op::Message) => match mixed.by_name(target) {
                Some(number) => Target::Receiver(number),
                None => self.find_target(sender, frame, mixed, work),
            },
            _ => Target::Alone,
        }
    }

    /// Resolves a topic, or the receivers of its route.
    #[cold]
    fn resolve(
        &mut self,
        sender: &MixedSender<'_>,
        epoch: u64,
        frame: &Frame<'_>,
        mixed: &mut MixedTargets,
        work: &mut u32,
    ) -> Target {
        *work += RESOLVING;
        let (topic, router) = (frame.target(), sender.router);
        if !is_mixed_target(topic) {
            return Target::Alone;
        }
        let topics = self.topics.get_or_insert_default();
        let memory = &mut self.memory;
        let (route, recipients) = match topics.cached(epoch, topic.as_bytes()) {
            Some((route, recipients)) => (Some(route), recipients.clone()),
            None => {
                let resolved = match sender.policy {
                    _ if has_options(topic) => Resolved::refused(epoch, Code::BadData),
                    Some(policy) if !policy.allows(Action::Publish, topic) => Resolved::denied(epoch),
                    _ => router.resolve_topic(topic).with_hooks(self.hooks.as_deref(), Op::Publish, topic),
                };
                topics.add(topic, memory, resolved)
            }
        };
        if recipients.is_refused() {
            return Target::Refused(recipients.refusal());
        }
        // subscriptions with options choose recipients run by run
        if recipients.members().len() > MAX_RECIPIENTS || recipients.optioned().is_some() {
            return Target::Alone;
        }
        // the new route may have replaced all others
        mixed.set_generation(topics.generation(), memory);
        match route {
            Some(route) if mixed.set_route(route, &recipients, memory) => Target::Route(route),
            _ if mixed.set_uncached(&recipients, memory) => Target::Route(UNCACHED),
            _ => Target::Alone,
        }
    }

    /// Finds the client that a message goes to.
    #[cold]
    fn find_target(
        &mut self,
        sender: &MixedSender<'_>,
        frame: &Frame<'_>,
        mixed: &mut MixedTargets,
        work: &mut u32,
    ) -> Target {
        *work += FINDING;
        let name = frame.target();
        if !is_mixed_target(name) {
            return Target::Alone;
        }
        let may_send = sender.policy.is_none_or(|policy| allows_message(policy, name));
        match sender.router.find(name).filter(|_| may_send) {
            Some(client) => {
                let number = mixed.set_name(name.as_bytes(), &client, &mut self.memory);
                number.map_or(Target::Alone, Target::Receiver)
            }
            // a resolver may have it wait
            None if may_send && sender.router.resolvers.any() => Target::Alone,
            // also if there is no such client: only an allowed sender may learn whether a client exists
            None => Target::Refused(if may_send { Code::NotRegistered } else { Code::AccessDenied }),
        }
    }
}

/// Returns whether a mixed run can contain frames to this target. Parts of the broker get frames one by one.
fn is_mixed_target(target: &str) -> bool {
    !target.starts_with('.')
}
