//! The rules of an instance as an interceptor: decides about messages, counts refusals, and logs the first
//! refusal of each client by each rule.

use elbus_plugin_api::{
    Code,
    hooks::{InterceptedFrame, InterceptedRun, Interceptor, Verdict},
    rate::LogThrottle,
};
use parking_lot::Mutex;
use serde_json::Value;
use std::{
    borrow::Cow,
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use crate::{
    document::{Fault, Parsing},
    json, msgpack,
    rule::{Encoding, Rule, Subject},
};

/// Clients whose logged refusals are remembered; beyond that, all are forgotten and logged again.
const MAX_CLIENTS: usize = 10_000;
/// Refusals that are logged per [`LOG_WINDOW`], of all clients.
const LOG_LINES: u32 = 20;
const LOG_WINDOW: Duration = Duration::from_secs(10);

/// The limits of messages that rules apply to.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Limits {
    /// Bytes of a payload.
    pub(crate) max_bytes: usize,
    /// Values of a document that is compared with a schema.
    pub(crate) max_values: usize,
}

/// What outlives a refresh.
#[derive(Debug)]
pub(crate) struct Refusals {
    /// Refused messages, by rule.
    counts: Vec<AtomicU64>,
    logged: Mutex<Logged>,
}

#[derive(Debug)]
struct Logged {
    /// By registration: the rules whose refusal was logged.
    clients: HashMap<u64, u64>,
    throttle: LogThrottle,
}

impl Refusals {
    pub(crate) fn new(rules: usize) -> Self {
        let logged = Logged { clients: HashMap::new(), throttle: LogThrottle::new(LOG_LINES, LOG_WINDOW) };
        Refusals { counts: (0..rules).map(|_| AtomicU64::new(0)).collect(), logged: Mutex::new(logged) }
    }

    /// Returns the refused messages, by rule.
    pub(crate) fn counts(&self) -> Vec<u64> {
        self.counts.iter().map(|count| count.load(Ordering::Relaxed)).collect()
    }

    /// Returns the number of lines that were suppressed since the last one if the first refusal of a client
    /// by a rule is to be logged now.
    fn admit(&self, client: u64, rule: usize) -> Option<u64> {
        let mut logged = self.logged.lock();
        let Logged { clients, throttle } = &mut *logged;
        if clients.get(&client).is_some_and(|rules| rules & (1 << rule) != 0) {
            return None;
        }
        let suppressed = throttle.admit(Instant::now())?;
        if clients.len() >= MAX_CLIENTS {
            clients.clear();
        }
        *clients.entry(client).or_default() |= 1 << rule;
        Some(suppressed)
    }
}

/// The rules in force. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Rules {
    rules: Arc<[Rule]>,
    limits: Limits,
    refusals: Arc<Refusals>,
}

/// What is known of the payload at hand.
#[derive(Default)]
struct Parsed<'a> {
    /// The last one that was built, so that several schemas share it.
    document: Option<(Subject<'a>, Encoding, Result<Value, Fault>)>,
}

impl<'a> Parsed<'a> {
    fn document(
        &mut self,
        subject: Subject<'a>,
        format: Encoding,
        max_values: usize,
    ) -> Result<&Value, Fault> {
        let is_this = |known: &(Subject<'_>, Encoding, _)| (known.0, known.1) == (subject, format);
        if !self.document.as_ref().is_some_and(is_this) {
            let document = parse(subject, format, &Parsing::build(max_values));
            self.document = Some((subject, format, document));
        }
        match &self.document {
            Some((.., Ok(document))) => Ok(document),
            Some((.., Err(fault))) => Err(*fault),
            None => Ok(&Value::Null),
        }
    }
}

/// Parses a payload or parameters. Parameters can be missing.
fn parse(subject: Subject<'_>, format: Encoding, parsing: &Parsing) -> Result<Value, Fault> {
    let bytes = match subject {
        Subject::Params([]) => return Ok(Value::Null),
        Subject::Params(bytes) | Subject::Payload(bytes) => bytes,
    };
    match format {
        Encoding::Json => json::parse(bytes, parsing),
        Encoding::Msgpack => msgpack::parse(bytes, parsing),
        Encoding::Utf8 => std::str::from_utf8(bytes).map(|_| Value::Null).map_err(|_| Fault::NotUtf8),
    }
}

impl Rules {
    pub(crate) fn new(rules: Vec<Rule>, limits: Limits, refusals: Arc<Refusals>) -> Self {
        Rules { rules: rules.into(), limits, refusals }
    }

    /// Returns whether the schemas are the same as those of the same rules read at another time.
    pub(crate) fn has_schemas_of(&self, others: &[Rule]) -> bool {
        self.rules.len() == others.len()
            && self.rules.iter().zip(others).all(|(one, other)| match (&one.schema, &other.schema) {
                (Some(one), Some(other)) => one.is_same_as(other),
                (one, other) => one.is_none() && other.is_none(),
            })
    }

    /// Returns the rules that can apply to messages like this one, as a mask.
    fn applying(&self, frame: &InterceptedFrame<'_>) -> u64 {
        let (op, target) = (frame.op(), frame.target());
        let applying = self.rules.iter().enumerate().filter(|(_, rule)| rule.applies_to(op, target));
        applying.fold(0, |mask, (index, _)| mask | 1 << index)
    }

    /// Decides by the rules of a mask. All that apply must pass.
    fn decide(&self, frame: &InterceptedFrame<'_>, mask: u64) -> Verdict {
        let mut parsed = Parsed::default();
        for (index, rule) in self.rules.iter().enumerate().filter(|(index, _)| mask & (1 << index) != 0) {
            if let Err(fault) = self.check(rule, frame.payload(), &mut parsed) {
                self.refuse(frame, index, fault, &parsed);
                return Verdict::Reject(Code::BadData);
            }
        }
        Verdict::Continue
    }

    fn check<'a>(&self, rule: &Rule, payload: &'a [u8], parsed: &mut Parsed<'a>) -> Result<(), Fault> {
        let Some(subject) = rule.subject(payload)? else { return Ok(()) };
        let (bytes, max) = (payload.len(), self.limits.max_bytes);
        if bytes > max {
            return Err(Fault::TooLong { bytes, max });
        }
        match &rule.schema {
            None => parse(subject, rule.format, &Parsing::check()).map(drop),
            Some(schema) => {
                if let Some(max) = schema.max_bytes().filter(|max| bytes > *max) {
                    return Err(Fault::TooLongForPatterns { bytes, max });
                }
                let document = parsed.document(subject, rule.format, self.limits.max_values)?;
                if schema.matches(document) { Ok(()) } else { Err(Fault::Schema) }
            }
        }
    }

    #[cold]
    fn refuse(&self, frame: &InterceptedFrame<'_>, index: usize, fault: Fault, parsed: &Parsed<'_>) {
        if let Some(count) = self.refusals.counts.get(index) {
            count.fetch_add(1, Ordering::Relaxed);
        }
        let Some(suppressed) = self.refusals.admit(frame.sender_id(), index) else { return };
        let schema = self.rules.get(index).and_then(|rule| rule.schema.as_ref());
        let reason = match (fault, schema, &parsed.document) {
            (Fault::Schema, Some(schema), Some((.., Ok(document)))) => schema.explain(document),
            _ => None,
        };
        let reason = &*reason.map_or_else(|| Cow::from(fault.to_string()), Cow::from);
        let (client, target) = (frame.sender(), frame.target());
        tracing::warn!(client, target, rule = index, reason, suppressed, "message refused: invalid data");
    }
}

impl Interceptor for Rules {
    fn intercept(&self, frame: &InterceptedFrame<'_>) -> Verdict {
        self.decide(frame, self.applying(frame))
    }

    fn intercept_run(&self, run: &mut InterceptedRun<'_>) {
        let mut last = None;
        for index in 0..run.len() {
            let Some(frame) = run.frame(index) else { continue };
            let mask = match last {
                Some((target, mask)) if target == frame.target() => mask,
                _ => self.applying(&frame),
            };
            last = Some((frame.target(), mask));
            run.set_verdict(index, self.decide(&frame, mask));
        }
    }
}
