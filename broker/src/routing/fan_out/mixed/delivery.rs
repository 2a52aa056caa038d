//! Delivery of collected frames: in one call to each sink that takes mixed runs, one by one to the others.

use elbus_plugin_api::{Code, DeliveryStatus, Encoding, Frame, MixedRun, Op, Payload, Run, abi::Deferral};
use std::cell::Cell;

use super::{
    MAX_FRAMES, MixedSender,
    recipients::{Outcome, Recipients},
};
use crate::routing::fan_out::{ENCODING, FanOut};

impl FanOut {
    /// Delivers to each recipient the frames that were collected for it.
    pub(super) fn deliver_collected(
        &mut self,
        sender: &MixedSender<'_>,
        frames: &[Frame<'_>],
        codes: &mut [u8],
        recipients: &mut Recipients,
    ) {
        // a single frame has no earlier ones
        let several = recipients.used().iter().filter(|recipient| !recipient.selected.is_empty()).nth(1);
        let pauses = frames.len() > 1 && several.is_some();
        let mut encoding = ENCODING.try_with(Cell::take).ok().flatten().unwrap_or_default();
        // whether `encoding` holds the frames of the next recipient
        let mut is_encoded = false;
        let mut any_one_by_one = false;
        let paused = Pauses { recipients, any: pauses };
        let mut left = paused.recipients.used();
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
            if sender.has_intercepted() && client.is_replaying() {
                // a replay has begun since the frames were collected: their marks are compared one by one
                recipient.outcome = Outcome::OneByOne;
                any_one_by_one = true;
                is_encoded = false;
                continue;
            }
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
                // frames that are not taken together may be taken one by one
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
            self.deliver_one_by_one(sender, frames, codes, paused.recipients, &mut encoding);
        }
        _ = ENCODING.try_with(|place| place.set(Some(encoding)));
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
            let mut deferral = Deferral::default();
            let mut run = Run::new(frame.kind(), frame.qos(), sender.name, topic, &payloads, None, encoding)
                .with_sender_id(sender.id);
            if frame.op() == Some(Op::Message) && frame.qos().wants_ack() {
                run = run.with_deferral(&mut deferral);
            }
            self.mark = if frame.op() == Some(Op::Publish) { sender.mark_of(index) } else { 0 };
            let delivery = self.deliver_run(sender.router, client, &mut run, frame.body().len());
            self.mark = 0;
            if !delivery.is_taken()
                && self.hooks.is_some()
                && let Some(recipient) = recipients.used().get_mut(place)
            {
                // observers are shown who has got it
                recipient.selected.retain(|other| *other != index);
            }
            if delivery.is_taken() {
                mark(&mut taken, index);
                if let Some(pending) = deferral.take() {
                    self.pending.push((index as usize..index as usize + 1, pending));
                }
            } else if delivery.has(DeliveryStatus::REFUSED) {
                mark(&mut refused, index);
            } else {
                refuse_messages(frames, codes, &[index]);
            }
        }
        for ((code, taken), refused) in codes.iter_mut().zip(taken).zip(refused) {
            // no recipient is no error, unless full queues are the reason
            if refused && !taken {
                *code = Code::NotDelivered as u8;
            }
        }
        for (frames, _) in &self.pending {
            if let Some(codes) = codes.get_mut(frames.clone()) {
                codes.fill(0);
            }
        }
    }
}

/// The pauses of a mixed run. Dropping it ends them, so that a panic in the delivery leaves no sink paused.
struct Pauses<'r> {
    recipients: &'r mut Recipients,
    /// Whether sinks pause at all.
    any: bool,
}

impl Drop for Pauses<'_> {
    #[inline]
    fn drop(&mut self) {
        if !self.any {
            return;
        }
        for recipient in
            self.recipients.used().iter().filter(|recipient| recipient.outcome == Outcome::Paused)
        {
            recipient.client.iter().for_each(|client| client.resume_sending());
        }
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        client_origin::ClientOrigin,
        routing::{
            fan_out::mixed::recipients::Selection, mixed_targets::Receiver,
            registered_client::RegisteredClient,
        },
    };
    use abi_stable::{sabi_trait::TD_Opaque, std_types::RStr};
    use elbus_plugin_api::{
        Queued, SinkLimits,
        abi::{NotifierObject, RawSink, RawSink_TO},
    };
    use std::{
        panic::{AssertUnwindSafe, catch_unwind},
        sync::{
            Arc,
            atomic::{AtomicUsize, Ordering},
        },
    };

    struct CountingSink(Arc<AtomicUsize>);

    impl RawSink for CountingSink {
        fn deliver(&self, _: &mut Run<'_>) -> u8 {
            DeliveryStatus::TAKEN.bits()
        }
        fn resume_sending(&self) {
            self.0.fetch_add(1, Ordering::SeqCst);
        }
        fn flush(&self) {}
        fn when_drained(&self, _: NotifierObject) {}
        fn close(&self, _: RStr<'_>) {}
        fn queued(&self) -> Queued {
            Queued::default()
        }
        fn limit(&self, _: &SinkLimits) {}
    }

    #[test]
    fn a_panic_in_the_delivery_ends_the_pauses_of_those_who_have_their_frames() {
        let counts = [(); 3].map(|()| Arc::<AtomicUsize>::default());
        let clients: Vec<_> = counts
            .iter()
            .map(|count| {
                let sink = RawSink_TO::from_value(CountingSink(count.clone()), TD_Opaque);
                let origin = ClientOrigin::default();
                Arc::new(RegisteredClient::new("client".into(), origin, 0, sink, None))
            })
            .collect();
        let receiver = |client| Receiver { client: Arc::downgrade(client), run: 0, place: 0 };
        let mut receivers: Vec<_> = clients.iter().map(receiver).collect();
        let mut recipients = Recipients::take();
        let selection = Selection { run: 1, index: 0, tail_bytes: 1, body_bytes: 1 };
        assert_eq!(recipients.select((&[0, 1, 2], &mut receivers), selection), Some(3));
        let result = catch_unwind(AssertUnwindSafe(|| {
            let paused = Pauses { recipients: &mut recipients, any: true };
            for (recipient, outcome) in
                paused.recipients.used().iter_mut().zip([Outcome::Paused, Outcome::Delivered])
            {
                recipient.outcome = outcome;
            }
            panic!("before the third one");
        }));
        assert!(result.is_err());
        assert_eq!(counts.map(|count| count.load(Ordering::SeqCst)), [1, 0, 0]);
    }
}
