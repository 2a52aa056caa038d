//! Delivery of mixed runs: frames of one sender with different targets are collected for each recipient and
//! delivered to it together.
//!
//! Each recipient gets its frames in the order in which they were sent. Sinks send nothing until all
//! recipients have got theirs, so that a client that reacts to a frame finds every earlier one queued, at
//! whichever client.

use elbus_plugin_api::{Code, DeliveryStatus, Encoding, Frame, MixedRun, Op, Payload, Run, access::Action};
use std::{cell::Cell, sync::Arc};

use super::{ENCODING, FanOut, Fullness, allows_message};
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
/// Work after which a mixed run ends, in recipients and frames.
const MAX_WORK: u32 = 4096;
/// Work of resolving a topic.
const RESOLVING: u32 = 128;
/// Work of finding a client.
const FINDING: u32 = 16;
/// Recipients whose vectors a thread keeps.
const KEPT_RECIPIENTS: usize = 512;
/// [`Receiver::place`](crate::routing::mixed_targets::Receiver::place) of a client that has left.
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

/// What became of the frames of a recipient.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
enum Outcome {
    /// They are collected.
    #[default]
    Collected,
    /// They are delivered one by one.
    OneByOne,
    /// They were delivered, and sending is paused.
    Paused,
    /// They were delivered, or not taken for good.
    Done,
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
    /// Whether the next frame has a recipient that holds the sender.
    pub(in crate::routing) blocked: bool,
    /// Whether the next frame must be dispatched by itself.
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
    /// The frame must be dispatched by itself.
    Unknown,
}

/// A client that is over its limit, and its number.
struct FullReceiver(u32, Arc<RegisteredClient>);

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
        self.all.truncate(KEPT_RECIPIENTS);
        _ = RECIPIENTS.try_with(|place| place.set(Some(self.all)));
    }

    /// Adds a recipient; returns its place.
    fn add(&mut self, client: Arc<RegisteredClient>, outcome: Outcome) -> u32 {
        if self.used == self.all.len() {
            self.all.push(Recipient::default());
        }
        if let Some(recipient) = self.all.get_mut(self.used) {
            recipient.client = Some(client);
            recipient.outcome = outcome;
        }
        self.used += 1;
        self.used as u32 - 1
    }

    fn used(&mut self) -> &mut [Recipient] {
        self.all.get_mut(..self.used).unwrap_or_default()
    }

    /// Selects a frame for the receivers with these numbers; returns how many of them are registered. At the
    /// first one over its limit that is not a recipient yet, nothing is selected.
    #[inline]
    fn select(
        &mut self,
        (numbers, receivers): (&[u32], &mut [Receiver]),
        (run, index): (u32, u32),
        frame: &Frame<'_>,
    ) -> Result<u32, FullReceiver> {
        let mut reached = 0;
        for number in numbers {
            let Some(receiver) = receivers.get_mut(*number as usize) else { continue };
            if receiver.run != run {
                let place = match receiver.client.upgrade().filter(|client| !client.is_gone()) {
                    None => LEFT,
                    Some(client) if client.is_full() => {
                        self.deselect(index, frame);
                        return Err(FullReceiver(*number, client));
                    }
                    Some(client) if client.takes_mixed_runs() => self.add(client, Outcome::Collected),
                    Some(client) => self.add(client, Outcome::OneByOne),
                };
                (receiver.run, receiver.place) = (run, place);
            }
            if let Some(recipient) = self.all.get_mut(receiver.place as usize) {
                recipient.selected.push(index);
                recipient.tail_bytes += frame.tail().len();
                recipient.body_bytes += frame.body().len();
                reached += 1;
            }
        }
        Ok(reached)
    }

    /// Reverses the selection of the last frame.
    #[cold]
    fn deselect(&mut self, index: u32, frame: &Frame<'_>) {
        for recipient in self.used() {
            if recipient.selected.pop_if(|last| *last == index).is_some() {
                recipient.tail_bytes -= frame.tail().len();
                recipient.body_bytes -= frame.body().len();
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
        if self.waits {
            // it ignores back-pressure, which is counted frame by frame
            return Progress { next_alone: true, ..Progress::default() };
        }
        let frames = frames.get(..frames.len().min(MAX_FRAMES).min(codes.len())).unwrap_or_default();
        let mut recipients = Recipients::take();
        let progress = self.collect(sender, frames, codes, &mut recipients);
        let frames = frames.get(..progress.frames).unwrap_or_default();
        self.deliver_collected(sender, frames, codes, &mut recipients);
        recipients.give_back();
        progress
    }

    /// Finds the recipients of the frames, and which frames each of them gets.
    fn collect(
        &mut self,
        sender: &MixedSender<'_>,
        frames: &[Frame<'_>],
        codes: &mut [u8],
        recipients: &mut Recipients,
    ) -> Progress {
        let mut mixed = self.mixed.take().unwrap_or_default();
        if mixed.is_short() {
            // routes may have taken all of the memory
            mixed.clear(&mut self.memory);
            self.topics.iter_mut().for_each(|topics| topics.clear(&mut self.memory));
        }
        let epoch = sender.router.topics_epoch();
        let run = mixed.begin(self.topics.as_ref().map_or(0, |topics| topics.generation()));
        let mut progress = Progress::default();
        let mut target = Target::Unknown;
        for ((index, frame), code) in (0..).zip(frames).zip(codes) {
            if !frame.repeats() || index == 0 {
                target = self.target_of(sender, epoch, frame, &mut mixed, &mut progress.work);
            }
            *code = Code::Ok as u8;
            let selected = loop {
                let receivers = match &target {
                    Target::Receiver(number) => (std::slice::from_ref(number), mixed.receivers()),
                    Target::Route(route) => mixed.of_route(*route),
                    Target::Refused(refusal) => {
                        progress.denied |= *refusal == Code::AccessDenied;
                        *code = *refusal as u8;
                        break Some(0);
                    }
                    Target::Unknown => break None,
                };
                match recipients.select(receivers, (run, index), frame) {
                    // the client of the name has left: another one may have its name
                    Ok(0) if matches!(target, Target::Receiver(_)) => {
                        target = self.find_target(sender, frame, &mut mixed, &mut progress.work);
                    }
                    Ok(reached) => break Some(reached),
                    Err(FullReceiver(number, client)) => {
                        self.mixed = Some(mixed);
                        let fullness = self.fullness(&sender.router.holds, &client, frame.body().len());
                        if fullness == Fullness::Holds {
                            self.block(&client);
                            progress.blocked = true;
                            return progress;
                        }
                        mixed = self.mixed.take().unwrap_or_default();
                        if let Some(receiver) = mixed.receivers().get_mut(number as usize) {
                            let place = recipients.add(client, Outcome::OneByOne);
                            (receiver.run, receiver.place) = (run, place);
                        }
                    }
                }
            };
            let Some(reached) = selected else {
                progress.next_alone = true;
                break;
            };
            progress.frames += 1;
            progress.work += reached.max(1);
            if progress.work >= MAX_WORK {
                break;
            }
        }
        self.mixed = Some(mixed);
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
            _ => Target::Unknown,
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
        if !is_mixed_target(router, topic) {
            return Target::Unknown;
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
        // what has just been added may have replaced all other routes
        mixed.set_generation(topics.generation());
        match route {
            Some(route) if mixed.set_route(route, &recipients, memory) => Target::Route(route),
            _ if mixed.set_uncached(&recipients, memory) => Target::Route(UNCACHED),
            _ => Target::Unknown,
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
        if !is_mixed_target(sender.router, name) {
            return Target::Unknown;
        }
        let may_send = sender.policy.is_none_or(|policy| allows_message(policy, name));
        match sender.router.find(name).filter(|_| may_send) {
            Some(client) => {
                let number = mixed.set_name(name.as_bytes(), &client, &mut self.memory);
                number.map_or(Target::Unknown, Target::Receiver)
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
        let pauses =
            recipients.used().iter().filter(|recipient| !recipient.selected.is_empty()).nth(1).is_some();
        let mut encoding = ENCODING.try_with(Cell::take).ok().flatten().unwrap_or_default();
        let (mut is_encoded, mut any_one_by_one) = (false, false);
        let mut left = recipients.used();
        while let Some((recipient, behind)) = left.split_first_mut() {
            left = behind;
            if recipient.selected.is_empty() {
                continue;
            }
            let Some(client) = recipient.client.as_ref().filter(|_| recipient.outcome == Outcome::Collected)
            else {
                any_one_by_one = true;
                continue;
            };
            let shares = left.first().is_some_and(|next| next.selected == recipient.selected);
            if !is_encoded {
                encoding.reset();
            }
            let mut run =
                MixedRun::new(sender.name, sender.id, frames, &recipient.selected, recipient.tail_bytes)
                    .pausing(pauses);
            if is_encoded || shares {
                run = run.with_encoding(&mut encoding);
            }
            let delivery = client.deliver_mixed(&mut run);
            is_encoded = shares;
            if delivery.has(DeliveryStatus::UNSUPPORTED) {
                client.set_takes_no_mixed_runs();
            }
            if delivery.has(DeliveryStatus::UNSUPPORTED) || delivery.has(DeliveryStatus::REFUSED) {
                // what does not fit together may fit one by one
                recipient.outcome = Outcome::OneByOne;
                any_one_by_one = true;
                continue;
            }
            recipient.outcome = if pauses && delivery.is_taken() { Outcome::Paused } else { Outcome::Done };
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
        let mut deliveries = vec![];
        for (place, recipient) in recipients.used().iter().enumerate() {
            if recipient.outcome == Outcome::OneByOne {
                deliveries.extend(recipient.selected.iter().map(|index| (*index, place)));
            }
        }
        deliveries.sort_unstable();
        let mut refused: Vec<u32> = vec![];
        let mut taken: Vec<u32> = vec![];
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
                taken.push(index);
            } else if delivery.has(DeliveryStatus::REFUSED) {
                refused.push(index);
            } else {
                refuse_messages(frames, codes, &[index]);
            }
        }
        for index in refused {
            // reaching nobody is fine, but not if those who are there were all too full
            let is_selected = |recipient: &Recipient| recipient.selected.binary_search(&index).is_ok();
            let delivered = |recipient: &Recipient| {
                matches!(recipient.outcome, Outcome::Paused | Outcome::Done) && is_selected(recipient)
            };
            if taken.binary_search(&index).is_err()
                && !recipients.used().iter().any(delivered)
                && let Some(code) = codes.get_mut(index as usize)
            {
                *code = Code::NotDelivered as u8;
            }
        }
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

/// Returns whether frames to a target can be in a mixed run: parts of the broker get theirs one by one, and a
/// target that is too long is refused by itself.
fn is_mixed_target(router: &Router, target: &str) -> bool {
    !target.starts_with('.') && target.len() <= router.max_topic_bytes()
}
