//! The sessions of an instance, and the methods that begin, renew, end and list them.

use elbus_plugin_api::{Call, CallError, ClientInfo, Code, Host, NullSink, PluginThread};
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use crate::{
    decoder::Decoder,
    filter::{Parameters, SENDER_PREFIX},
    outbox::Outbox,
    session::Session,
    settings::Settings,
    stream::Stream,
};

/// Bytes of a payload in a record, unless the client asks for another number.
const PAYLOAD_BYTES: usize = 4096;

/// The sessions of an instance.
pub(crate) struct Sessions {
    host: Host,
    settings: Settings,
    /// Never held while the broker is called.
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// Whether sessions can begin.
    open: bool,
    running: Vec<Arc<Session>>,
    /// Sessions that are being set up; they count against the limit.
    starting: usize,
    last_id: u64,
    threads: Vec<(u64, PluginThread)>,
}

/// The result of `monitor.start`.
#[derive(Serialize)]
struct Started {
    session: u64,
    /// The sender of the stream.
    sender: String,
    lease_seconds: f64,
    window_bytes: usize,
    payload_bytes: usize,
}

/// The parameters of `monitor.renew`.
#[derive(Deserialize)]
struct Renewal {
    session: u64,
    #[serde(default)]
    batch: u64,
}

/// The parameters of `monitor.stop`.
#[derive(Deserialize)]
struct Stop {
    session: u64,
}

/// An entry of `monitor.list`.
#[derive(Serialize)]
struct Listed {
    session: u64,
    client: String,
    seconds: u64,
    records: u64,
    missed: u64,
}

#[derive(Serialize)]
struct List {
    sessions: Vec<Listed>,
}

#[derive(Serialize)]
struct Done {
    ok: bool,
}

fn to_msgpack(result: &impl Serialize) -> Result<Vec<u8>, CallError> {
    rmp_serde::to_vec_named(result).map_err(|error| CallError::internal(error.to_string()))
}

fn read<'a, T: Deserialize<'a>>(call: &Call<'a>, expected: &str) -> Result<T, CallError> {
    rmp_serde::from_slice(call.params)
        .map_err(|error| CallError::unreadable_params(expected, call.params, error))
}

impl Sessions {
    pub(crate) fn new(host: Host, settings: Settings) -> Arc<Self> {
        Arc::new(Sessions { host, settings, state: Mutex::default() })
    }

    /// Accepts sessions from now on.
    pub(crate) fn open(&self) {
        self.state.lock().open = true;
    }

    /// Ends all sessions, and waits until their clients have got what was observed, at most for `deadline`.
    pub(crate) fn close(&self, deadline: Duration) {
        let mut state = self.state.lock();
        state.open = false;
        let (running, threads) = (std::mem::take(&mut state.running), std::mem::take(&mut state.threads));
        drop(state);
        running.iter().for_each(|session| session.end("the plugin monitor stops"));
        let until = Instant::now() + deadline;
        for (_, thread) in threads {
            thread.ended_within(until.saturating_duration_since(Instant::now()));
        }
    }

    /// Returns the number of sessions.
    pub(crate) fn count(&self) -> usize {
        self.state.lock().running.len()
    }

    /// Answers `monitor.start`.
    pub(crate) fn start(self: &Arc<Self>, call: &Call<'_>) -> Result<Vec<u8>, CallError> {
        if call.caller_id == 0 {
            return Err(CallError::of_code(Code::NotSupported, "only a client of the bus can monitor it"));
        }
        let parameters = Parameters::read(call.params)?;
        let id = self.reserve()?;
        let session = self.set_up(id, call, parameters);
        let mut state = self.state.lock();
        state.starting -= 1;
        let (started, session, thread) = session?;
        if !state.open {
            drop(state);
            session.end("the plugin monitor stops");
            return Err(CallError::of_code(Code::NotSupported, "the plugin monitor stops"));
        }
        // the thread may have ended already
        if !session.has_finished() {
            state.running.push(session);
            state.threads.push((id, thread));
        }
        drop(state);
        to_msgpack(&started)
    }

    /// Takes a place for a session, and returns its id.
    fn reserve(&self) -> Result<u64, CallError> {
        let limit = self.settings.max_sessions;
        let mut state = self.state.lock();
        if !state.open {
            return Err(CallError::of_code(Code::NotSupported, "the plugin monitor stops"));
        }
        if state.running.len() + state.starting >= limit {
            let text = format!("{limit} clients monitor already, which is the limit (max_sessions)");
            return Err(CallError::of_code(Code::Busy, text));
        }
        state.starting += 1;
        state.last_id += 1;
        Ok(state.last_id)
    }

    fn set_up(
        self: &Arc<Self>,
        id: u64,
        call: &Call<'_>,
        parameters: Parameters,
    ) -> Result<(Started, Arc<Session>, PluginThread), CallError> {
        let Settings { queue_bytes, window_bytes, max_payload_bytes, lease, call_time, .. } = self.settings;
        let payload_bytes = parameters.payload_bytes.unwrap_or(PAYLOAD_BYTES).min(max_payload_bytes);
        let (filter, scope) = parameters.into_filter()?;
        let sender = format!("{SENDER_PREFIX}{id}");
        let client = self
            .host
            .register(&sender, &ClientInfo::in_process().as_internal(), NullSink)
            .map_err(|code| CallError::internal(format!("cannot register {sender}: {code}")))?;
        let (hook, observer) = self
            .host
            .add_observer(&scope, queue_bytes)
            .map_err(|error| CallError::internal(error.to_string()))?;
        let session = Arc::new(Session::new(id, call.caller, call.caller_id, hook));
        let stream = Stream {
            host: self.host.clone(),
            session: session.clone(),
            observer,
            filter,
            decoder: Decoder::new(call.caller, payload_bytes, call_time),
            outbox: Outbox::new(client, id, call.caller, call.caller_id, window_bytes),
            lease,
            missed: 0,
            missed_early: 0,
        };
        tracing::info!(client = call.caller, session = id, "client monitors the bus");
        let (sessions, ended) = (self.clone(), session.clone());
        let thread = self.host.spawn(move || {
            stream.run();
            sessions.remove(&ended);
        });
        let thread = thread.map_err(|error| CallError::internal(error.to_string()))?;
        let lease_seconds = lease.as_secs_f64();
        Ok((Started { session: id, sender, lease_seconds, window_bytes, payload_bytes }, session, thread))
    }

    /// Removes a session whose thread ends.
    fn remove(&self, session: &Session) {
        let mut state = self.state.lock();
        session.finish();
        state.running.retain(|other| other.id != session.id);
        let threads = state.threads.extract_if(.., |(id, _)| *id == session.id).collect::<Vec<_>>();
        drop(state);
        drop(threads);
        let totals = session.totals();
        let (client, records, missed) = (&*session.client, totals.records, totals.missed);
        let reason = session.reason();
        tracing::info!(
            client,
            session = session.id,
            records,
            missed,
            reason,
            "client has stopped monitoring"
        );
    }

    /// Finds a session of the caller.
    fn find(&self, id: u64, call: &Call<'_>) -> Result<Arc<Session>, CallError> {
        let state = self.state.lock();
        let found =
            state.running.iter().find(|session| session.id == id && session.client_id == call.caller_id);
        let missing =
            || CallError::not_found(format!("{} has no session {id}, or it has ended", call.caller));
        found.cloned().ok_or_else(missing)
    }

    /// Answers `monitor.renew`.
    pub(crate) fn renew(&self, call: &Call<'_>) -> Result<Vec<u8>, CallError> {
        let Renewal { session, batch } = read(call, "{session: integer, batch: integer}")?;
        self.find(session, call)?.renew(batch);
        to_msgpack(&Done { ok: true })
    }

    /// Answers `monitor.stop`.
    pub(crate) fn stop(&self, call: &Call<'_>) -> Result<Vec<u8>, CallError> {
        let Stop { session } = read(call, "{session: integer}")?;
        self.find(session, call)?.end("stopped");
        to_msgpack(&Done { ok: true })
    }

    /// Answers `monitor.list`.
    pub(crate) fn list(&self) -> Result<Vec<u8>, CallError> {
        let running = self.state.lock().running.clone();
        let listed = running.iter().map(|session| {
            let totals = session.totals();
            Listed {
                session: session.id,
                client: session.client.to_string(),
                seconds: session.started.elapsed().as_secs(),
                records: totals.records,
                missed: totals.missed,
            }
        });
        to_msgpack(&List { sessions: listed.collect() })
    }
}
