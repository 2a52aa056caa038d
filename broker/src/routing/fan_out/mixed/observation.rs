//! Shows the frames of a mixed run to observers, once all of them are delivered or have been decided about by
//! interceptors.

use elbus_plugin_api::{Code, Frame, Op, Payload, abi::RoutedRun};

use super::{MAX_FRAMES, MixedSender, recipients::Recipients};
use crate::{hooks::HookTable, routing::fan_out::FanOut};

impl FanOut {
    /// Shows frames with their codes and numbers of recipients to the observers of their targets.
    #[cold]
    pub(super) fn observe_collected(
        &self,
        sender: &MixedSender<'_>,
        frames: &[Frame<'_>],
        codes: &[u8],
        recipients: &mut Recipients,
    ) {
        let Some(table) = self.hooks.as_deref().filter(|table| table.has_observers()) else { return };
        let mut reached = [0_u32; MAX_FRAMES];
        for recipient in recipients.used().iter().filter(|recipient| recipient.has_taken()) {
            for index in &recipient.selected {
                if let Some(count) = reached.get_mut(*index as usize) {
                    *count += 1;
                }
            }
        }
        let epoch = sender.router.topics_epoch();
        let payloads: Vec<_> = frames.iter().map(|frame| Payload::from(frame.payload())).collect();
        let mut observed = Vec::with_capacity(frames.len());
        let mut observers = None;
        for (((frame, payload), code), recipients) in frames.iter().zip(&payloads).zip(codes).zip(reached) {
            let (Some(op), target) = (frame.op(), frame.target()) else { continue };
            if !frame.repeats() {
                observers = None;
            }
            let observers = *observers.get_or_insert_with(|| self.observers_of(table, epoch, op, target));
            if observers == 0 {
                continue;
            }
            let routed = RoutedRun {
                op,
                qos: frame.qos(),
                sender: sender.name,
                sender_id: sender.id,
                target,
                receiver: "",
                payloads: std::slice::from_ref(payload),
                shared: None,
                // 0: queued, with a result that is supplied later
                code: if *code == 0 { Code::Ok } else { Code::from_wire(*code).unwrap_or(Code::Other) },
                recipients,
            };
            observed.push((observers, routed));
        }
        table.observe_all(&observed);
    }

    /// Returns the observers of a target, as cached or determined.
    pub(in crate::routing) fn observers_of(
        &self,
        table: &HookTable,
        epoch: u64,
        op: Op,
        target: &str,
    ) -> u64 {
        let topics = self.topics.as_ref().filter(|_| op == Op::Publish);
        let cached = topics.and_then(|topics| topics.cached(epoch, target.as_bytes()));
        match cached.filter(|(_, recipients)| !recipients.is_refused()) {
            Some((_, recipients)) => recipients.hooks().observers,
            None => table.applied(op, target).observers,
        }
    }
}
