//! The streams of a soak test: what each carries, and who gets which of its messages. Sends nothing.

use elbus_client::Qos;
use std::time::Duration;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Operation {
    Send,
    Broadcast,
    Publish,
    Call,
}

/// What a stream carries.
#[derive(Debug, Clone, Copy)]
pub(super) struct StreamPlan {
    pub(super) name: &'static str,
    pub(super) operation: Operation,
    pub(super) receivers: usize,
    pub(super) qos: Qos,
    pub(super) bytes: usize,
    /// Messages between two pauses of the sender. The last of a burst is acknowledged.
    pub(super) burst: u64,
    pub(super) pause: Duration,
    /// The receivers of a slow stream pause after this number of messages.
    pub(super) receiver_pause_after: Option<u64>,
    /// Topics, or targets if it sends messages, that take turns. A burst of them is sent at once, so that the
    /// broker gets mixed runs.
    pub(super) in_turn: Option<u64>,
    /// Whether each message has one of the receivers, in turn, instead of all.
    pub(super) is_divided: bool,
}

pub(super) const STREAMS: [StreamPlan; 14] = [
    StreamPlan::new("one to one, plain", Operation::Send, Qos::NO),
    StreamPlan { burst: 16, ..StreamPlan::new("one to one, acknowledged", Operation::Send, Qos::PROCESSED) },
    StreamPlan { burst: 16, ..StreamPlan::new("real-time", Operation::Send, Qos::REALTIME_PROCESSED) },
    StreamPlan { receivers: 4, ..StreamPlan::new("topic", Operation::Publish, Qos::NO) },
    StreamPlan { receivers: 4, ..StreamPlan::new("broadcast", Operation::Broadcast, Qos::NO) },
    StreamPlan { burst: 8, ..StreamPlan::new("call", Operation::Call, Qos::PROCESSED) },
    StreamPlan {
        bytes: 1 << 20,
        burst: 4,
        pause: Duration::from_millis(50),
        receivers: 2,
        ..StreamPlan::new("topic, 1 MiB", Operation::Publish, Qos::NO)
    },
    StreamPlan {
        bytes: 1000,
        receiver_pause_after: Some(500),
        receivers: 2,
        ..StreamPlan::new("topic, slow receivers", Operation::Publish, Qos::NO)
    },
    StreamPlan { receivers: 2, ..StreamPlan::in_turn("4,096 topics", Operation::Publish, Qos::NO, 4096) },
    StreamPlan {
        receivers: 2,
        ..StreamPlan::in_turn("128 topics, acknowledged", Operation::Publish, Qos::PROCESSED, 128)
    },
    StreamPlan {
        receivers: 8,
        is_divided: true,
        ..StreamPlan::in_turn("64 topics, 8 subscribers", Operation::Publish, Qos::NO, 64)
    },
    StreamPlan {
        receivers: 16,
        is_divided: true,
        ..StreamPlan::in_turn("16 targets", Operation::Send, Qos::NO, 16)
    },
    StreamPlan {
        receivers: 8,
        is_divided: true,
        ..StreamPlan::in_turn("8 targets, acknowledged", Operation::Send, Qos::PROCESSED, 8)
    },
    StreamPlan {
        // the only one, so that it holds the sender however long it is full
        bytes: 500,
        receiver_pause_after: Some(300),
        ..StreamPlan::in_turn("64 topics, slow receiver", Operation::Publish, Qos::NO, 64)
    },
];

impl StreamPlan {
    const fn new(name: &'static str, operation: Operation, qos: Qos) -> Self {
        StreamPlan {
            name,
            operation,
            receivers: 1,
            qos,
            bytes: 100,
            burst: 64,
            pause: Duration::from_millis(3),
            receiver_pause_after: None,
            in_turn: None,
            is_divided: false,
        }
    }

    const fn in_turn(name: &'static str, operation: Operation, qos: Qos, targets: u64) -> Self {
        let pause = Duration::from_millis(8);
        StreamPlan { burst: 256, pause, in_turn: Some(targets), ..StreamPlan::new(name, operation, qos) }
    }

    /// The target of a message: the name of a client, a mask or a topic. `stream` is the index of the stream.
    pub(super) fn target(&self, stream: usize, number: u64) -> String {
        let turn = self.in_turn.map(|targets| number % targets);
        match self.operation {
            Operation::Publish => match turn {
                Some(topic) => format!("soak/{stream}/{topic}"),
                None => format!("soak/{stream}"),
            },
            Operation::Broadcast => receiver_name(stream, "*"),
            Operation::Send | Operation::Call => receiver_name(stream, turn.unwrap_or(0)),
        }
    }

    /// The filters of a receiver.
    pub(super) fn filters(&self, stream: usize, receiver: u64) -> Vec<String> {
        match (self.operation, self.in_turn) {
            (Operation::Publish, Some(topics)) if self.is_divided => {
                (receiver..topics).step_by(self.receivers).map(|topic| self.target(stream, topic)).collect()
            }
            (Operation::Publish, Some(_)) => vec![format!("soak/{stream}/#")],
            (Operation::Publish, None) => vec![self.target(stream, 0)],
            _ => vec![],
        }
    }

    /// The difference between the numbers of two successive messages of a receiver.
    pub(super) fn stride(&self) -> u64 {
        if self.is_divided { self.receivers as u64 } else { 1 }
    }
}

/// The name of a receiver.
pub(super) fn receiver_name(stream: usize, receiver: impl std::fmt::Display) -> String {
    format!("soak.{stream}.receiver.{receiver}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_message_of_a_divided_stream_has_one_receiver() {
        for (stream, plan) in STREAMS.iter().enumerate().filter(|(_, plan)| plan.is_divided) {
            for number in 0..200 {
                let target = plan.target(stream, number);
                let gets = |receiver: &u64| match plan.operation {
                    Operation::Publish => plan.filters(stream, *receiver).contains(&target),
                    _ => receiver_name(stream, receiver) == target,
                };
                let receivers: Vec<_> = (0..plan.receivers as u64).filter(gets).collect();
                assert_eq!(receivers, [number % plan.stride()], "{}, {target}", plan.name);
            }
        }
    }
}
