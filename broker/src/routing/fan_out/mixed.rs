//! Delivery of mixed runs: frames of one sender with different targets are collected for each recipient and
//! delivered to it together.
//!
//! Each recipient gets its frames in the order in which they were sent. Sinks send nothing until all
//! recipients have got theirs, so that a client that reacts to a frame finds every earlier one queued, at
//! whichever client. A frame with a recipient over its limit is left to be dispatched alone: what such a
//! recipient does to the sender is decided in one place.

use elbus_plugin_api::{Code, DeliveryStatus, Encoding, Frame, MixedRun, Op, Payload, Run, access::Action};
use std::{cell::Cell, sync::Arc};

use super::{ENCODING, FanOut, allows_message};
use crate::{
    access::PolicySnapshot,
    routing::{
        mixed_targets::{MixedTargets, Receiver, UNCACHED},
        registered_client::RegisteredClient,
        router::{Resolved, Router},
    },
};

/// The most frames of a mixed run.
const MAX_FRAMES: usize = 256;
/// The most bytes in the bodies of a mixed run.
const MAX_BODY_BYTES: usize = 256 * 1024;
/// The most recipients of a mixed run. A frame with more of them is dispatched alone.
const MAX_RECIPIENTS: usize = 256;
/// Work after which a mixed run ends, in recipients and frames.
const MAX_WORK: u32 = 4096;
/// Work of resolving a topic.
const RESOLVING: u32 = 128;
/// Work of finding a client.
const FINDING: u32 = 16;
/// [`Receiver::place`] of a client that has left.
const LEFT: u32 = u32::MAX;

thread_local! {
    /// Taken out while a mixed run is dispatched, since a sink may dispatch itself.
    static RECIPIENTS: Cell<Option<Vec<Recipient>>> = const { Cell::new(None) };
}

/// A recipient of a mixed run.
#[derive(Default)]
struct Recipient {
    client: Option<Arc<RegisteredClient>>,
    /// Indices of its frames, ascending.
    selected: Vec<u32>,
    /// Length of their tails.
    tail_bytes: usize,
    /// Length of their bodies.
    body_bytes: usize,
    outcome: Outcome,
}

/// What becomes of the frames of a recipient.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
enum Outcome {
    /// They are collected.
    #[default]
    Collected,
    /// They are delivered one by one.
    OneByOne,
    /// They were delivered, and sending is paused.
    Paused,
    /// They were delivered.
    Delivered,
    /// They were not taken for good.
    Closed,
}

/// The recipients of the mixed run under way: the first `used` of the vector, whose memory is reused.
struct Recipients {
    all: Vec<Recipient>,
    used: usize,
}

/// The sender of a mixed run, and what it may do.
pub(in crate::routing) struct MixedSender<'s> {
    pub(in crate::routing) router: &'s Arc<Router>,
    pub(in crate::routing) policy: Option<&'s PolicySnapshot>,
    pub(in crate::routing) name: &'s str,
    pub(in crate::routing) id: u64,
}

/// How far a mixed run was dispatched.
#[derive(Default)]
pub(in crate::routing) struct Progress {
    pub(in crate::routing) frames: usize,
    pub(in crate::routing) work: u32,
    /// Length of the bodies of these frames.
    pub(in crate::routing) body_bytes: usize,
    /// Frames that are acknowledged.
    pub(in crate::routing) acks: usize,
    /// Whether the next frame must be dispatched alone.
    pub(in crate::routing) next_alone: bool,
    /// Whether a frame was denied.
    pub(in crate::routing) denied: bool,
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

/// A frame whose recipients are being selected.
#[derive(Clone, Copy)]
struct Selection {
    run: u32,
    index: u32,
    tail_bytes: usize,
    body_bytes: usize,
}

impl Recipients {
    fn take() -> Self {
        let all = RECIPIENTS.try_with(Cell::take).ok().flatten().unwrap_or_default();
        Recipients { all, used: 0 }
    }

    /// Returns the memory to the thread.
    fn give_back(mut self) {
        for recipient in self.used() {
            recipient.client = None;
            recipient.selected.clear();
            (recipient.tail_bytes, recipient.body_bytes) = (0, 0);
        }
        _ = RECIPIENTS.try_with(|place| place.set(Some(self.all)));
    }

    /// Returns whether no further recipient can be added.
    fn is_complete(&self) -> bool {
        self.used == MAX_RECIPIENTS
    }

    fn used(&mut self) -> &mut [Recipient] {
        self.all.get_mut(..self.used).unwrap_or_default()
    }

    /// Returns the place of a client that gets its first frame of the run: [`LEFT`] if it is not registered,
    /// `None` if the frame must be dispatched alone.
    fn add(&mut self, receiver: &Receiver) -> Option<u32> {
        let Some(client) = receiver.client.upgrade().filter(|client| !client.is_gone()) else {
            return Some(LEFT);
        };
        if client.is_full() || self.is_complete() {
            return None;
        }
        if self.used == self.all.len() {
            self.all.push(Recipient::default());
        }
        let takes_mixed_runs = client.takes_mixed_runs();
        if let Some(recipient) = self.all.get_mut(self.used) {
            recipient.client = Some(client);
            recipient.outcome = if takes_mixed_runs { Outcome::Collected } else { Outcome::OneByOne };
        }
        self.used += 1;
        Some(self.used as u32 - 1)
    }

    /// Selects a frame for the receivers with these numbers; returns how many of them are registered. `None`
    /// if the frame must be dispatched alone: then it is selected for nobody.
    #[inline]
    fn select(
        &mut self,
        (numbers, receivers): (&[u32], &mut [Receiver]),
        selection: Selection,
    ) -> Option<u32> {
        let mut reached = 0;
        for (visited, number) in numbers.iter().enumerate() {
            let Some(receiver) = receivers.get_mut(*number as usize) else { continue };
            if receiver.run != selection.run {
                let Some(place) = self.add(receiver) else {
                    self.deselect(numbers.get(..visited).unwrap_or_default(), receivers, selection);
                    return None;
                };
                (receiver.run, receiver.place) = (selection.run, place);
            }
            if let Some(recipient) = self.all.get_mut(receiver.place as usize) {
                recipient.selected.push(selection.index);
                recipient.tail_bytes += selection.tail_bytes;
                recipient.body_bytes += selection.body_bytes;
                reached += 1;
            }
        }
        Some(reached)
    }

    /// Reverses the selection of a frame for these receivers.
    #[cold]
    fn deselect(&mut self, numbers: &[u32], receivers: &[Receiver], selection: Selection) {
        for receiver in numbers.iter().filter_map(|number| receivers.get(*number as usize)) {
            if let Some(recipient) = self.all.get_mut(receiver.place as usize)
                && recipient.selected.pop_if(|last| *last == selection.index).is_some()
            {
                recipient.tail_bytes -= selection.tail_bytes;
                recipient.body_bytes -= selection.body_bytes;
            }
        }
    }
}

impl FanOut {
    /// Dispatches the first frames of a mixed run, and writes a code for each of them.
    pub(in crate::routing) fn dispatch_mixed(
        &mut self,
        sender: &MixedSender<'_>,
        frames: &[Frame<'_>],
        codes: &mut [u8],
    ) -> Progress {
        let mut mixed = self.mixed.take().unwrap_or_default();
        if self.waits {
            // a sender that ignores back-pressure is judged frame by frame
            self.mixed = Some(mixed);
            return Progress { next_alone: true, ..Progress::default() };
        }
        if mixed.is_short() && mixed.may_clear() {
            self.clear_caches(&mut mixed);
        }
        let frames = frames.get(..frames.len().min(MAX_FRAMES).min(codes.len())).unwrap_or_default();
        let mut recipients = Recipients::take();
        let progress = self.collect(sender, frames, codes, &mut mixed, &mut recipients);
        mixed.set_recent(recipients.used().iter().filter_map(|recipient| recipient.client.as_ref()));
        self.mixed = Some(mixed);
        let frames = frames.get(..progress.frames).unwrap_or_default();
        self.deliver_collected(sender, frames, codes, &mut recipients);
        recipients.give_back();
        progress
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
        for ((index, frame), code) in (0..).zip(frames).zip(codes) {
            let (qos, body_bytes) = (frame.qos(), frame.body().len());
            if qos.is_realtime() || progress.body_bytes + body_bytes > MAX_BODY_BYTES {
                return progress;
            }
            if !frame.repeats() || index == 0 {
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
                        progress.next_alone = !recipients.is_complete() || index == 0;
                        return progress;
                    };
                    // those that have left are no work for anybody else, but are visited
                    progress.work += reached.max(visited / 4).max(1);
                }
                Target::Receiver(number) => {
                    progress.work += 1;
                    match recipients.select((&[number], mixed.receivers()), selection) {
                        Some(0) => {
                            // the client of the name has left: another one may have its name
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
                            // it has left again already: alone
                            if found.is_none_or(|found| found == 0) {
                                return progress;
                            }
                        }
                        Some(_) => {}
                        None => {
                            progress.next_alone = !recipients.is_complete() || index == 0;
                            return progress;
                        }
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
    #[inline]
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
                    Some(policy) if !policy.allows(Action::Publish, topic) => Resolved::denied(epoch),
                    _ => router.resolve_topic(topic),
                };
                topics.add(topic, memory, resolved)
            }
        };
        if recipients.is_denied() {
            return Target::Refused(Code::AccessDenied);
        }
        if recipients.members().len() > MAX_RECIPIENTS {
            return Target::Alone;
        }
        // what has just been added may have replaced all other routes
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
            // also for a missing client: whether a client exists is not for every sender to know
            None => Target::Refused(if may_send { Code::NotRegistered } else { Code::AccessDenied }),
        }
    }

    /// Delivers to each recipient the frames that were collected for it.
    fn deliver_collected(
        &mut self,
        sender: &MixedSender<'_>,
        frames: &[Frame<'_>],
        codes: &mut [u8],
        recipients: &mut Recipients,
    ) {
        // a frame alone has no earlier ones
        let several = recipients.used().iter().filter(|recipient| !recipient.selected.is_empty()).nth(1);
        let pauses = frames.len() > 1 && several.is_some();
        let mut encoding = ENCODING.try_with(Cell::take).ok().flatten().unwrap_or_default();
        // whether the encoding is that of the frames of the next recipient
        let mut is_encoded = false;
        let mut any_one_by_one = false;
        let mut left = recipients.used();
        while let Some((recipient, behind)) = left.split_first_mut() {
            left = behind;
            if recipient.selected.is_empty() {
                continue;
            }
            let same_next =
                left.first().is_some_and(|next| next.selected == recipient.selected && next.is_collected());
            let Some(client) = recipient.client.as_ref().filter(|_| recipient.is_collected()) else {
                any_one_by_one = true;
                is_encoded = false;
                continue;
            };
            if !is_encoded {
                encoding.reset();
            }
            let mut run =
                MixedRun::new(sender.name, sender.id, frames, &recipient.selected, recipient.tail_bytes)
                    .pausing(pauses);
            if is_encoded || same_next {
                run = run.with_encoding(&mut encoding);
            }
            let delivery = client.deliver_mixed(&mut run);
            is_encoded = same_next;
            if delivery.has(DeliveryStatus::UNSUPPORTED) {
                client.set_takes_no_mixed_runs();
            }
            if delivery.has(DeliveryStatus::UNSUPPORTED) || delivery.has(DeliveryStatus::REFUSED) {
                // what is not taken together may be taken one by one
                recipient.outcome = Outcome::OneByOne;
                any_one_by_one = true;
                continue;
            }
            recipient.outcome = match delivery.is_taken() {
                true if pauses => Outcome::Paused,
                true => Outcome::Delivered,
                false => Outcome::Closed,
            };
            if !delivery.is_taken() {
                refuse_messages(frames, codes, &recipient.selected);
            }
            let (client, count) = (client.clone(), recipient.selected.len());
            self.settle(sender.router, client, delivery, count, recipient.body_bytes, false);
        }
        if any_one_by_one {
            self.deliver_one_by_one(sender, frames, codes, recipients, &mut encoding);
        }
        _ = ENCODING.try_with(|place| place.set(Some(encoding)));
        if pauses {
            for recipient in recipients.used().iter().filter(|recipient| recipient.outcome == Outcome::Paused)
            {
                recipient.client.iter().for_each(|client| client.resume_sending());
            }
        }
    }

    /// Delivers frames in the order in which they were sent to those recipients that take no mixed runs, or
    /// did not take this one.
    #[cold]
    fn deliver_one_by_one(
        &mut self,
        sender: &MixedSender<'_>,
        frames: &[Frame<'_>],
        codes: &mut [u8],
        recipients: &mut Recipients,
        encoding: &mut Encoding,
    ) {
        let (mut taken, mut refused) = ([false; MAX_FRAMES], [false; MAX_FRAMES]);
        let mut deliveries = vec![];
        for (place, recipient) in recipients.used().iter().enumerate() {
            match recipient.outcome {
                Outcome::OneByOne => {
                    deliveries.extend(recipient.selected.iter().map(|index| (*index, place)));
                }
                Outcome::Paused | Outcome::Delivered => {
                    recipient.selected.iter().for_each(|index| mark(&mut taken, *index));
                }
                Outcome::Collected | Outcome::Closed => {}
            }
        }
        deliveries.sort_unstable();
        let mut last = None;
        for (index, place) in deliveries {
            let recipient = recipients.used().get(place);
            let client = recipient.and_then(|recipient| recipient.client.clone());
            let (Some(frame), Some(client)) = (frames.get(index as usize), client) else { continue };
            if last.replace(index) != Some(index) {
                encoding.reset();
            }
            let payloads = [Payload::from(frame.payload())];
            let topic = if frame.op() == Some(Op::Publish) { frame.target() } else { "" };
            let mut run = Run::new(frame.kind(), frame.qos(), sender.name, topic, &payloads, None, encoding)
                .with_sender_id(sender.id);
            let delivery = self.deliver_run(sender.router, client, &mut run, frame.body().len());
            if delivery.is_taken() {
                mark(&mut taken, index);
            } else if delivery.has(DeliveryStatus::REFUSED) {
                mark(&mut refused, index);
            } else {
                refuse_messages(frames, codes, &[index]);
            }
        }
        for ((code, taken), refused) in codes.iter_mut().zip(taken).zip(refused) {
            // reaching nobody is fine, but not if those who are there were all too full
            if refused && !taken {
                *code = Code::NotDelivered as u8;
            }
        }
    }
}

impl Recipient {
    fn is_collected(&self) -> bool {
        self.outcome == Outcome::Collected
    }
}

fn mark(marks: &mut [bool], index: u32) {
    if let Some(mark) = marks.get_mut(index as usize) {
        *mark = true;
    }
}

/// Sets the codes of messages whose client has left.
#[cold]
fn refuse_messages(frames: &[Frame<'_>], codes: &mut [u8], selected: &[u32]) {
    for index in selected.iter().map(|index| *index as usize) {
        if frames.get(index).is_some_and(|frame| frame.op() == Some(Op::Message))
            && let Some(code) = codes.get_mut(index)
        {
            *code = Code::NotRegistered as u8;
        }
    }
}

/// Returns whether frames to a target can be in a mixed run: parts of the broker get theirs one by one.
fn is_mixed_target(target: &str) -> bool {
    !target.starts_with('.')
}
