//! Where the messages of a sender go, and in which order its topics or targets take turns. Sends nothing.

use super::{Plan, Scenario};
use crate::{
    BoxError,
    driver::Subscription,
    names::{self, Side},
};

/// The turns of one sender's destinations. If each message has one of several receivers, the messages of each
/// receiver are a share, and each share is numbered from zero.
#[derive(Debug, Clone, Copy)]
pub(super) struct Mix {
    destinations: usize,
    repeat: usize,
    shares: usize,
}

impl Mix {
    pub(super) fn of(plan: &Plan) -> Self {
        let (destinations, shares) = match plan.scenario {
            Scenario::Pairs => (plan.targets, plan.targets),
            Scenario::Topic => {
                (plan.topics.unwrap_or(1), if plan.own_subscribers { plan.subscribers } else { 1 })
            }
            _ => (1, 1),
        };
        Mix { destinations, repeat: plan.repeat, shares }
    }

    /// The number of messages after which the order of destinations repeats.
    pub(super) fn cycle(&self) -> usize {
        self.destinations * self.repeat
    }

    /// The index of the destination of a sender's message.
    pub(super) fn destination(&self, message: usize) -> usize {
        message / self.repeat % self.destinations
    }

    /// The number of shares: 1 if each receiver gets all messages.
    pub(super) fn shares(&self) -> usize {
        self.shares
    }

    /// The share that a destination is in.
    pub(super) fn share(&self, destination: usize) -> usize {
        destination % self.shares
    }

    /// The number of messages after which the next one of a receiver follows, if it has received `received`.
    #[inline]
    pub(super) fn progress(&self, receiver: usize, received: u64) -> u64 {
        if self.shares == 1 {
            return received;
        }
        let (repeat, shares) = (self.repeat as u64, self.shares as u64);
        (received / repeat * shares + receiver as u64) * repeat + received % repeat
    }
}

/// The topics, targets or mask of a sender, in the order of their turns.
pub(super) fn destinations(plan: &Plan, group: usize, sender: usize) -> Vec<String> {
    match (plan.scenario, plan.topics) {
        (Scenario::Topic, Some(topics)) => {
            (0..topics).map(|index| names::topic_in_turn(group, sender, index)).collect()
        }
        (Scenario::Topic, None) => vec![names::topic(group)],
        (Scenario::Broadcast, _) => vec![plan.reached_as(Side::Receiver, names::receivers(group))],
        _ => {
            let name = |index| names::client(group, Side::Receiver, index);
            (0..plan.targets).map(|index| plan.reached_as(Side::Receiver, name(index))).collect()
        }
    }
}

/// What a receiver subscribes to, if messages have topics.
pub(super) fn subscription(
    plan: &Plan,
    group: usize,
    receiver: usize,
) -> Result<Option<Subscription>, BoxError> {
    if plan.scenario != Scenario::Topic {
        return Ok(None);
    }
    let Some(topics) = plan.topics else {
        return Subscription::to_topics(vec![names::topic(group)]).map(Some);
    };
    if !plan.own_subscribers {
        let (filter, example) = (names::all_topics_in_turn(group), names::topic_in_turn(group, 0, 0));
        return Ok(Some(Subscription::to_filter(filter, example)));
    }
    let own = |sender| {
        let indices = (receiver..topics).step_by(plan.subscribers);
        indices.map(move |index| names::topic_in_turn(group, sender, index))
    };
    Subscription::to_topics((0..plan.senders).flat_map(own).collect()).map(Some)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;
    use crate::load::Protocol;

    fn plan(scenario: Scenario) -> Plan {
        Plan::new(Protocol::Elbus, "x", scenario, 100)
    }

    #[test]
    fn destinations_take_turns_and_repeat() {
        let mix = Mix::of(&Plan { topics: Some(3), repeat: 2, ..plan(Scenario::Topic) });
        assert_eq!(mix.cycle(), 6);
        let order: Vec<_> = (0..8).map(|message| mix.destination(message)).collect();
        assert_eq!(order, [0, 0, 1, 1, 2, 2, 0, 0]);
        assert_eq!((mix.shares(), mix.share(2), mix.progress(7, 5)), (1, 0, 5));
        assert_eq!(Mix::of(&plan(Scenario::FanIn)).cycle(), 1);
    }

    #[test]
    fn the_progress_of_a_receiver_is_the_place_of_its_next_message() {
        for (targets, repeat) in [(1, 1), (2, 1), (8, 1), (3, 5)] {
            let mix = Mix::of(&Plan { targets, repeat, ..plan(Scenario::Pairs) });
            for receiver in 0..targets {
                let share = |message: &usize| mix.share(mix.destination(*message)) == receiver;
                for (received, message) in (0..200).filter(share).enumerate() {
                    assert_eq!(mix.progress(receiver, received as u64), message as u64);
                }
            }
        }
    }

    #[test]
    fn every_topic_matches_the_subscription_of_one_own_subscriber() {
        let own = Plan { topics: Some(6), subscribers: 3, own_subscribers: true, ..plan(Scenario::Topic) };
        let mut filters: Vec<_> =
            (0..3).flat_map(|receiver| subscription(&own, 0, receiver).unwrap().unwrap().filters).collect();
        filters.sort();
        assert_eq!(filters, destinations(&own, 0, 0));
        let all = Plan { own_subscribers: false, ..own };
        let filters = subscription(&all, 0, 2).unwrap().unwrap().filters;
        assert_eq!(filters, [names::all_topics_in_turn(0)]);
        assert!(subscription(&plan(Scenario::Pairs), 0, 0).unwrap().is_none());
    }
}
