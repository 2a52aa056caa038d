//! What a user chooses about a client, and the builder that collects it. Owns defaults and limits; never connects.

use std::{sync::Arc, time::Duration};

use crate::{Address, Client, Error, Frames, Overflow, connection};

/// What a client does when its connection is lost.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
#[non_exhaustive]
pub enum Reconnect {
    /// It ends.
    #[default]
    Off,
    /// It tries again, and registers, subscribes and excludes as before. What was in flight fails with
    /// [`Error::Disconnected`], and so does what is asked for meanwhile, but for topic operations: they are remembered.
    Backoff {
        /// The pause before the first attempt; each further one is twice as long.
        first: Duration,
        /// The longest pause.
        max: Duration,
        /// How much of a pause is left to chance, from 0 to 1: many clients of a broker that comes back should not all
        /// come at once.
        jitter: f64,
        /// After so many attempts in a row it ends.
        attempts: Option<u32>,
    },
}

impl Reconnect {
    /// Pauses from 0.1 s to 10 s, half of it chance, forever.
    pub fn backoff() -> Self {
        Reconnect::Backoff {
            first: Duration::from_millis(100),
            max: Duration::from_secs(10),
            jitter: 0.5,
            attempts: None,
        }
    }
}

/// Something that is only kept.
pub(crate) trait Keep: std::fmt::Debug + Send + Sync {}

impl<T: std::fmt::Debug + Send + Sync> Keep for T {}

#[derive(Debug, Clone)]
pub(crate) struct Settings {
    pub(crate) timeout: Duration,
    pub(crate) ping_interval: Duration,
    pub(crate) queue_bytes: usize,
    pub(crate) max_frame_bytes: usize,
    pub(crate) overflow: Overflow,
    pub(crate) hold_limit: Duration,
    pub(crate) queue_calls: bool,
    pub(crate) reconnect: Reconnect,
    pub(crate) busy_poll: Duration,
    /// What must be there for as long as the client is: the runtime of a blocking one.
    pub(crate) keeps: Option<Arc<dyn Keep>>,
    #[cfg(feature = "tls")]
    pub(crate) tls: Option<crate::TlsConfig>,
}

/// How a client is to be; from [`Client::builder`].
#[derive(Debug, Clone)]
#[must_use = "a builder does nothing before connect"]
pub struct ClientBuilder {
    pub(crate) name: String,
    pub(crate) settings: Settings,
}

impl ClientBuilder {
    pub(crate) fn new(name: &str) -> Self {
        ClientBuilder {
            name: name.to_owned(),
            settings: Settings {
                timeout: Duration::from_secs(5),
                ping_interval: Duration::from_secs(1),
                queue_bytes: 8 << 20,
                max_frame_bytes: elbus_protocol::request::DEFAULT_MAX_FRAME_BYTES,
                overflow: Overflow::Block,
                hold_limit: Duration::from_secs(3),
                queue_calls: false,
                reconnect: Reconnect::Off,
                busy_poll: Duration::ZERO,
                keeps: None,
                #[cfg(feature = "tls")]
                tls: None,
            },
        }
    }

    /// For how long to wait for a connection, an acknowledgement, room in the queue, and, unless it says otherwise, the
    /// reply to a call. Default: 5 s.
    ///
    /// A broker that has said nothing for so long is asked for a sign of life, and after twice as long it counts as lost.
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.settings.timeout = timeout.max(Duration::from_millis(1));
        self
    }

    /// How often to ping while nothing else is sent. The broker drops a client that is silent for 1.25 times its own
    /// timeout, 6.25 s by default (protocol section 5). Default: 1 s.
    pub fn ping_interval(mut self, interval: Duration) -> Self {
        self.settings.ping_interval = interval.max(Duration::from_millis(1));
        self
    }

    /// How many bytes may wait to be sent before senders wait, and how many received ones for each consumer before
    /// [`overflow`](Self::overflow) applies. Default: 8 MiB.
    pub fn queue_bytes(mut self, bytes: usize) -> Self {
        self.settings.queue_bytes = bytes;
        self
    }

    /// The longest frame that is sent or received, in bytes. Default: 256 MiB.
    pub fn max_frame_bytes(mut self, bytes: usize) -> Self {
        self.settings.max_frame_bytes = bytes;
        self
    }

    /// What happens to received frames when too many of them wait. Default: [`Overflow::Block`].
    pub fn overflow(mut self, overflow: Overflow) -> Self {
        self.settings.overflow = overflow;
        self
    }

    /// With [`Overflow::Block`], how long a consumer that takes nothing may keep the connection from being read. After
    /// that its frames are dropped and counted until it goes on, so that the client stays connected and its own
    /// operations go on: a broker disconnects a client that takes nothing for `stall_seconds`, 4 s by default.
    /// [`Duration::MAX`] drops nothing and lets the broker disconnect the client. Default: 3 s.
    pub fn hold_limit(mut self, limit: Duration) -> Self {
        self.settings.hold_limit = limit;
        self
    }

    /// Queues calls and notifications that arrive before [`Client::serve`] until then, instead of delivering them as
    /// [`Frames`]. For servers that must answer every call from the moment they are registered. Default: off.
    pub fn queue_calls(mut self) -> Self {
        self.settings.queue_calls = true;
        self
    }

    /// What happens when the connection is lost. Default: [`Reconnect::Off`]. The first connection is never tried again.
    pub fn reconnect(mut self, reconnect: Reconnect) -> Self {
        self.settings.reconnect = reconnect;
        self
    }

    /// For how long after something has arrived to look for more without letting the thread sleep. Whoever calls and
    /// waits, again and again, saves the time a processor needs to wake up, 5 us and on a virtual machine 50; it costs that
    /// processor's whole time meanwhile, so 20 to 100 us are reasonable, for few clients, on a machine with a processor
    /// to spare. Does not concern in-process clients. Default: 0, never.
    pub fn busy_poll(mut self, time: Duration) -> Self {
        self.settings.busy_poll = time;
        self
    }

    /// Connects to addresses of the network under TLS, with these certificates. Default: those that begin with `tls://`, as
    /// [`TlsConfig::new`](crate::TlsConfig::new) says.
    #[cfg(feature = "tls")]
    pub fn tls(mut self, tls: crate::TlsConfig) -> Self {
        self.settings.tls = Some(tls);
        self
    }

    /// Connects and registers. To be called within a tokio runtime, which then runs the client's tasks.
    ///
    /// # Errors
    /// [`Error::BadAddress`], [`Error::NoBroker`], [`Error::NotABroker`], [`Error::Tls`], [`Error::NameTaken`], [`Error::NameRefused`],
    /// [`Error::NoPrimary`], [`Error::AccessDenied`], [`Error::Disconnected`], [`Error::Timeout`].
    pub async fn connect<A>(self, address: A) -> Result<(Client, Frames), Error>
    where
        A: TryInto<Address>,
        Error: From<A::Error>,
    {
        let address = address.try_into()?;
        connection::open(self, connection::Place::Socket(address), Arc::default()).await
    }

    /// Connects to a broker in the same program: `host` is [`Broker::host`] of the broker crate, and one of the broker's
    /// plugins must be `inproc`. Large payloads are shared with the receivers instead of copied.
    ///
    /// # Errors
    /// As [`connect`](Self::connect); [`Error::Refused`] where no plugin offers in-process clients.
    ///
    /// [`Broker::host`]: elbus_plugin_api::Host
    #[cfg(feature = "in-process")]
    pub async fn connect_in_process(self, host: &elbus_plugin_api::Host) -> Result<(Client, Frames), Error> {
        connection::open(self, connection::Place::InProcess(host.clone()), Arc::default()).await
    }
}
