//! Results that are supplied later, in both directions: requests whose answers the test completes, and runs
//! whose results the plugin defers.

use elbus_protocol::{FrameKind, Qos};

use super::FakeHost;
use crate::{
    abi::FromRaw,
    delivery_status::DeliveryStatus,
    pending::{Completion, PendingResult},
    run::Deferral,
};

impl FakeHost {
    /// Answers [deferrable](crate::Request::deferrable) requests later: their results
    /// [are pending](crate::Dispatch::is_pending) until the test completes what
    /// [`take_deferred`](Self::take_deferred) returns. Or answers them at once again.
    pub fn defer_answers(&self, defers: bool) {
        self.0.state.lock().defers_answers = defers;
    }

    /// Takes the obligations to answer the requests whose answers were deferred, in their order.
    pub fn take_deferred(&self) -> Vec<Completion> {
        std::mem::take(&mut self.0.state.lock().deferred)
    }

    /// Delivers messages whose sender waits for results that are supplied later, as
    /// [`deliver`](Self::deliver). Also returns the result if the sink has deferred it.
    ///
    /// # Examples
    /// ```
    /// use elbus_plugin_api::{ClientInfo, Code, Completion, DeliveryStatus, Run, Sink, testing::FakeHost};
    /// use std::sync::Mutex;
    ///
    /// #[derive(Default)]
    /// struct Slow(Mutex<Vec<Option<Completion>>>);
    ///
    /// impl Sink for Slow {
    ///     fn deliver(&self, run: &mut Run<'_>) -> DeliveryStatus {
    ///         self.0.lock().unwrap().push(run.defer());
    ///         DeliveryStatus::TAKEN
    ///     }
    /// }
    ///
    /// let fake = FakeHost::new();
    /// let client = fake.host("slow").register("slow", &ClientInfo::in_process(), Slow::default())?;
    /// let (_, pending) = fake.deliver_deferrable("slow", "a", &[b"1"]).expect("it is registered");
    /// let pending = pending.expect("it was deferred");
    /// assert!(!pending.is_complete());
    /// drop(client);
    /// assert_eq!(pending.code(0), Some(Code::Other), "it was dropped");
    /// # Ok::<(), Code>(())
    /// ```
    pub fn deliver_deferrable(
        &self,
        to: &str,
        sender: &str,
        payloads: &[&[u8]],
    ) -> Option<(DeliveryStatus, Option<PendingResult>)> {
        let mut deferral = Deferral::default();
        let kind = FrameKind::Message;
        let delivery =
            self.deliver_run(Qos::PROCESSED, to, kind, sender, "", payloads, Some(&mut deferral))?;
        Some((delivery, deferral.take().map(PendingResult::from_raw)))
    }
}
