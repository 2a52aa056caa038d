//! The table of all metrics: name, type, unit, labels and meaning. `docs/metrics.md` has the same table; a
//! test compares it with what a broker serves.

/// The type of a metric.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Counter,
    Gauge,
    Histogram,
    Info,
}

/// The unit of a metric, which ends its name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Unit {
    Seconds,
    Bytes,
}

/// A metric: all series of one name.
#[derive(Debug)]
pub(crate) struct Family {
    /// The name without its unit.
    pub(crate) name: &'static str,
    pub(crate) kind: Kind,
    pub(crate) unit: Option<Unit>,
    pub(crate) labels: &'static [&'static str],
    pub(crate) help: &'static str,
}

const fn family(
    name: &'static str,
    kind: Kind,
    unit: Option<Unit>,
    labels: &'static [&'static str],
    help: &'static str,
) -> Family {
    Family { name, kind, unit, labels, help }
}

const SECONDS: Option<Unit> = Some(Unit::Seconds);
const BYTES: Option<Unit> = Some(Unit::Bytes);

use Kind::{Counter, Gauge, Histogram, Info};

// the broker
pub(crate) static BROKER: Family =
    family("elbus_broker", Info, None, &["name", "version"], "Name and version of the broker.");
pub(crate) static UPTIME: Family =
    family("elbus_uptime", Gauge, SECONDS, &[], "Time since the broker has started.");
pub(crate) static RECEIVED_FRAMES: Family =
    family("elbus_received_frames", Counter, None, &[], "Frames that clients have sent.");
pub(crate) static RECEIVED: Family =
    family("elbus_received", Counter, BYTES, &[], "Body bytes of the frames that clients have sent.");
pub(crate) static SENT_FRAMES: Family =
    family("elbus_sent_frames", Counter, None, &[], "Frames queued for clients, acknowledgements included.");
pub(crate) static SENT: Family =
    family("elbus_sent", Counter, BYTES, &[], "Body bytes of the frames queued for clients.");
pub(crate) static QUEUED: Family =
    family("elbus_queued", Gauge, BYTES, &[], "Bytes queued, held and being received for all clients.");
pub(crate) static MAX_QUEUED: Family =
    family("elbus_max_queued", Gauge, BYTES, &[], "Limit of elbus_queued_bytes (max_queued_bytes).");
pub(crate) static REFUSED_MESSAGES: Family = family(
    "elbus_refused_messages",
    Counter,
    None,
    &["reason"],
    "Messages that were not queued for a recipient.",
);
pub(crate) static MISSED_PUBLICATIONS: Family = family(
    "elbus_missed_publications",
    Counter,
    None,
    &[],
    "Publications that subscriptions with options have missed.",
);
pub(crate) static DENIALS: Family = family(
    "elbus_denials",
    Counter,
    None,
    &["action"],
    "Operations, calls and registrations that access rules have denied.",
);
pub(crate) static REFUSED_REGISTRATIONS: Family =
    family("elbus_refused_registrations", Counter, None, &["reason"], "Registrations that were refused.");
pub(crate) static FULL_RECEIVERS: Family =
    family("elbus_full_receivers", Gauge, None, &[], "Clients whose queue is over its limit.");
pub(crate) static HELD_SENDERS: Family =
    family("elbus_held_senders", Gauge, None, &[], "Clients that are not read because a receiver is full.");
pub(crate) static HELD: Family = family(
    "elbus_held",
    Counter,
    SECONDS,
    &[],
    "Time for which senders were held by full receivers, the sum over all senders.",
);
pub(crate) static SPENT_HOLD_BUDGETS: Family = family(
    "elbus_spent_hold_budgets",
    Gauge,
    None,
    &[],
    "Names and identities of receivers whose hold budget is spent for a sender.",
);
pub(crate) static RECEIVER_HELD: Family = family(
    "elbus_receiver_held",
    Counter,
    SECONDS,
    &["client"],
    "Time for which a receiver has held senders since it has registered; the worst receivers only.",
);
pub(crate) static EVENTS: Family =
    family("elbus_events", Counter, None, &["kind"], "Events of the broker since the plugin has started.");
pub(crate) static RECONNECTIONS: Family = family(
    "elbus_reconnections",
    Counter,
    None,
    &[],
    "Registrations of names that had left within five minutes, since the plugin has started.",
);

// plugins and transports
pub(crate) static PLUGIN: Family =
    family("elbus_plugin", Info, None, &["plugin", "library"], "Instances of plugins and their code.");
pub(crate) static PLUGIN_STATE: Family = family(
    "elbus_plugin_state",
    Gauge,
    None,
    &["plugin", "state"],
    "1 for the state of an instance, else 0.",
);
pub(crate) static PLUGIN_RESTARTS: Family =
    family("elbus_plugin_restarts", Counter, None, &["plugin"], "Restarts after failures.");
pub(crate) static PLUGIN_SLOW_CALLBACKS: Family =
    family("elbus_plugin_slow_callbacks", Counter, None, &["plugin"], "Callbacks that took 0.1 s or longer.");
pub(crate) static CLIENTS: Family =
    family("elbus_clients", Gauge, None, &["plugin", "kind"], "Registered clients.");
pub(crate) static REGISTRATIONS: Family =
    family("elbus_registrations", Counter, None, &["plugin"], "Clients that have registered.");
pub(crate) static DISCONNECTIONS: Family =
    family("elbus_disconnections", Counter, None, &["plugin", "reason"], "Clients that have left.");
pub(crate) static SLOW_CONSUMERS: Family = family(
    "elbus_slow_consumers",
    Counter,
    None,
    &["plugin"],
    "Clients that were disconnected because they took nothing or too little.",
);
pub(crate) static CONNECTIONS: Family =
    family("elbus_connections", Gauge, None, &["plugin"], "Open connections of a transport.");
pub(crate) static PENDING_CONNECTIONS: Family = family(
    "elbus_pending_connections",
    Gauge,
    None,
    &["plugin"],
    "Open connections that have not registered yet.",
);
pub(crate) static REJECTED_CONNECTIONS: Family = family(
    "elbus_rejected_connections",
    Counter,
    None,
    &["plugin", "reason"],
    "Connections that were refused, or ended for a fault of the peer, registered or not.",
);
pub(crate) static PLUGIN_RECEIVED_FRAMES: Family =
    family("elbus_plugin_received_frames", Counter, None, &["plugin"], "Frames from its clients.");
pub(crate) static PLUGIN_RECEIVED: Family = family(
    "elbus_plugin_received",
    Counter,
    BYTES,
    &["plugin"],
    "Body bytes of the frames from its clients.",
);
pub(crate) static PLUGIN_SENT_FRAMES: Family =
    family("elbus_plugin_sent_frames", Counter, None, &["plugin"], "Frames queued for its clients.");
pub(crate) static PLUGIN_SENT: Family = family(
    "elbus_plugin_sent",
    Counter,
    BYTES,
    &["plugin"],
    "Body bytes of the frames queued for its clients.",
);
pub(crate) static PLUGIN_QUEUED_FRAMES: Family =
    family("elbus_plugin_queued_frames", Gauge, None, &["plugin"], "Frames in the queues of its clients.");
pub(crate) static PLUGIN_QUEUED: Family =
    family("elbus_plugin_queued", Gauge, BYTES, &["plugin"], "Bytes in the queues of its clients.");
pub(crate) static PLUGIN_COUNTER: Family = family(
    "elbus_plugin_counter",
    Counter,
    None,
    &["plugin", "figure", "of"],
    "What a plugin counts since its start, besides the above.",
);
pub(crate) static PLUGIN_GAUGE: Family = family(
    "elbus_plugin_gauge",
    Gauge,
    None,
    &["plugin", "figure", "of"],
    "What a plugin measures, besides the above.",
);
pub(crate) static OBSERVER_MISSED: Family = family(
    "elbus_observer_missed_messages",
    Counter,
    None,
    &["plugin"],
    "Messages that its observers have missed because their queue was full.",
);
pub(crate) static HOOK_DURATION: Family = family(
    "elbus_hook_duration",
    Histogram,
    SECONDS,
    &["plugin", "hook"],
    "Duration of each call of a hook.",
);

// on request
pub(crate) static RPC_DURATION: Family = family(
    "elbus_rpc_duration",
    Histogram,
    SECONDS,
    &["method"],
    "Time from a call to its reply or error (rpc = true).",
);
pub(crate) static RPC_ERRORS: Family =
    family("elbus_rpc_errors", Counter, None, &["method"], "Calls that were answered with an error.");
pub(crate) static RPC_UNANSWERED: Family = family(
    "elbus_rpc_unanswered",
    Counter,
    None,
    &["method"],
    "Calls without an answer within call_seconds.",
);
pub(crate) static TOPIC_MESSAGES: Family =
    family("elbus_topic_messages", Counter, None, &["topic"], "Publications to a topic (topics).");
pub(crate) static TOPIC: Family =
    family("elbus_topic", Counter, BYTES, &["topic"], "Payload bytes of the publications to a topic.");
pub(crate) static CLIENT_RECEIVED_FRAMES: Family =
    family("elbus_client_received_frames", Counter, None, &["client"], "Frames from a client (clients).");
pub(crate) static CLIENT_RECEIVED: Family =
    family("elbus_client_received", Counter, BYTES, &["client"], "Body bytes of the frames from a client.");
pub(crate) static CLIENT_SENT_FRAMES: Family =
    family("elbus_client_sent_frames", Counter, None, &["client"], "Frames queued for a client.");
pub(crate) static CLIENT_SENT: Family =
    family("elbus_client_sent", Counter, BYTES, &["client"], "Body bytes of the frames queued for a client.");
pub(crate) static CLIENT_QUEUED_FRAMES: Family =
    family("elbus_client_queued_frames", Gauge, None, &["client"], "Frames in the queue of a client.");
pub(crate) static CLIENT_QUEUED: Family =
    family("elbus_client_queued", Gauge, BYTES, &["client"], "Bytes in the queue of a client.");
pub(crate) static CLIENT_DROPPED_FRAMES: Family = family(
    "elbus_client_dropped_frames",
    Counter,
    None,
    &["client"],
    "Frames for a client that were dropped because its hold budget was spent.",
);
pub(crate) static CLIENT_HELD: Family =
    family("elbus_client_held", Counter, SECONDS, &["client"], "Time for which a client has held senders.");

// the plugin itself
pub(crate) static SERIES_LIMIT: Family = family(
    "elbus_metrics_series_limit",
    Gauge,
    None,
    &["kind"],
    "How many clients, topics and methods get series of their own (max_clients, max_topics, max_methods).",
);
pub(crate) static OMITTED_SERIES: Family = family(
    "elbus_metrics_omitted_series",
    Gauge,
    None,
    &["kind"],
    "Clients that exceed the limit now, and publications and calls that were counted in no series of their own.",
);
pub(crate) static COLLECTION: Family =
    family("elbus_metrics_collection", Gauge, SECONDS, &[], "Time that collecting these figures took.");
pub(crate) static HTTP_REQUESTS: Family =
    family("elbus_metrics_http_requests", Counter, None, &["code"], "HTTP requests that were answered.");
pub(crate) static HTTP_CONNECTIONS: Family = family(
    "elbus_metrics_http_connections",
    Counter,
    None,
    &["outcome"],
    "HTTP connections that have ended: served, late, evicted, refused or failed.",
);

// the process
pub(crate) static CPU: Family =
    family("process_cpu", Counter, SECONDS, &[], "User and system time of the broker's process.");
pub(crate) static RESIDENT_MEMORY: Family =
    family("process_resident_memory", Gauge, BYTES, &[], "Resident memory of the broker's process.");
pub(crate) static VIRTUAL_MEMORY: Family =
    family("process_virtual_memory", Gauge, BYTES, &[], "Virtual memory of the broker's process.");
pub(crate) static OPEN_FDS: Family = family("process_open_fds", Gauge, None, &[], "Open file descriptors.");
pub(crate) static MAX_FDS: Family =
    family("process_max_fds", Gauge, None, &[], "Limit of open file descriptors.");
pub(crate) static THREADS: Family =
    family("process_threads", Gauge, None, &[], "Threads of the broker's process.");
pub(crate) static START_TIME: Family =
    family("process_start_time", Gauge, SECONDS, &[], "When the process has started, since 1970.");

/// All metrics, in the order in which they are served.
pub(crate) static FAMILIES: &[&Family] = &[
    &BROKER,
    &UPTIME,
    &RECEIVED_FRAMES,
    &RECEIVED,
    &SENT_FRAMES,
    &SENT,
    &QUEUED,
    &MAX_QUEUED,
    &REFUSED_MESSAGES,
    &MISSED_PUBLICATIONS,
    &DENIALS,
    &REFUSED_REGISTRATIONS,
    &FULL_RECEIVERS,
    &HELD_SENDERS,
    &HELD,
    &SPENT_HOLD_BUDGETS,
    &RECEIVER_HELD,
    &EVENTS,
    &RECONNECTIONS,
    &PLUGIN,
    &PLUGIN_STATE,
    &PLUGIN_RESTARTS,
    &PLUGIN_SLOW_CALLBACKS,
    &CLIENTS,
    &REGISTRATIONS,
    &DISCONNECTIONS,
    &SLOW_CONSUMERS,
    &CONNECTIONS,
    &PENDING_CONNECTIONS,
    &REJECTED_CONNECTIONS,
    &PLUGIN_RECEIVED_FRAMES,
    &PLUGIN_RECEIVED,
    &PLUGIN_SENT_FRAMES,
    &PLUGIN_SENT,
    &PLUGIN_QUEUED_FRAMES,
    &PLUGIN_QUEUED,
    &PLUGIN_COUNTER,
    &PLUGIN_GAUGE,
    &OBSERVER_MISSED,
    &HOOK_DURATION,
    &RPC_DURATION,
    &RPC_ERRORS,
    &RPC_UNANSWERED,
    &TOPIC_MESSAGES,
    &TOPIC,
    &CLIENT_RECEIVED_FRAMES,
    &CLIENT_RECEIVED,
    &CLIENT_SENT_FRAMES,
    &CLIENT_SENT,
    &CLIENT_QUEUED_FRAMES,
    &CLIENT_QUEUED,
    &CLIENT_DROPPED_FRAMES,
    &CLIENT_HELD,
    &SERIES_LIMIT,
    &OMITTED_SERIES,
    &COLLECTION,
    &HTTP_REQUESTS,
    &HTTP_CONNECTIONS,
    &CPU,
    &RESIDENT_MEMORY,
    &VIRTUAL_MEMORY,
    &OPEN_FDS,
    &MAX_FDS,
    &THREADS,
    &START_TIME,
];
