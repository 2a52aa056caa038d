//! Messages to clients that are not registered, or that have just registered and still get what has waited
//! for them. Cold: a message to another client pays nothing for it.

use elbus_plugin_api::{Code, DeliveryStatus, Run};
use std::sync::Arc;

use super::FanOut;
use crate::{
    routing::{
        registered_client::RegisteredClient,
        router::{Router, name_waits::Unregistered},
        waiting_names::Behind,
    },
    statistics::Refusal,
};

impl FanOut {
    /// Has a message to a name that is not registered wait for it, if there are name resolvers.
    #[cold]
    pub(super) fn send_to_unregistered(
        &mut self,
        router: &Arc<Router>,
        name: &str,
        run: &mut Run<'_>,
        body_bytes: usize,
    ) -> (Code, u32) {
        if !router.resolvers.any() || name.starts_with('.') {
            return (Code::NotRegistered, 0);
        }
        let (client, held) = match router.wait_for_name(name, run, body_bytes) {
            Unregistered::Waits => return (Code::Ok, 0),
            Unregistered::Refused(code) => return (code, 0),
            Unregistered::Registered(client, held) => (client, held),
        };
        let delivery = self.deliver_run(router, client, run, body_bytes);
        let code = code_of(delivery);
        if let Some(held) = held {
            held.complete(code);
        }
        (code, u32::from(code == Code::Ok))
    }

    /// Hands a run to a client that may still get what has waited for its name: behind that.
    #[cold]
    pub(super) fn deliver_to_awaited(
        &mut self,
        router: &Arc<Router>,
        client: Arc<RegisteredClient>,
        run: &mut Run<'_>,
        body_bytes: usize,
    ) -> DeliveryStatus {
        let held = match router.wait_behind(&client, run, body_bytes) {
            Behind::Waits => return DeliveryStatus::TAKEN,
            Behind::Refused => {
                router.count_refused(Refusal::NameWait, run.payloads().len());
                return DeliveryStatus::REFUSED;
            }
            Behind::Ended(held) => held,
        };
        client.end_awaited();
        let delivery = self.deliver_run(router, client, run, body_bytes);
        if let Some(held) = held {
            held.complete(code_of(delivery));
        }
        delivery
    }
}

/// Returns the code of a message, by what the sink of its recipient has answered.
fn code_of(delivery: DeliveryStatus) -> Code {
    if delivery.is_taken() {
        Code::Ok
    } else if delivery.has(DeliveryStatus::REFUSED) {
        Code::NotDelivered
    } else {
        Code::NotRegistered
    }
}
