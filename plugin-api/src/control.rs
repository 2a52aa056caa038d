//! Control methods: the one table of what can be asked of the broker, whoever asks.

use crate::abi::{METHOD_ADMIN, METHOD_SLOW, RawCall, RawCallError, RawMethod};
use abi_stable::std_types::{RSlice, RStr};
use elbus_protocol::BROKER_NAME;

/// What a control method is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Method<'a> {
    /// Its name, `subject.verb`.
    pub name: &'a str,
    /// What parameters it takes, for people.
    pub params: &'a str,
    /// What it does, for people.
    pub about: &'a str,
    /// It may block, so it is not called on a transport's thread.
    pub slow: bool,
    /// It changes the broker: refused to clients from other machines.
    pub admin: bool,
}

impl<'a> Method<'a> {
    pub(crate) fn to_raw(self) -> RawMethod<'a> {
        let flags = if self.slow { METHOD_SLOW } else { 0 } | if self.admin { METHOD_ADMIN } else { 0 };
        RawMethod {
            flags,
            name: RStr::from_str(self.name),
            params: RStr::from_str(self.params),
            about: RStr::from_str(self.about),
        }
    }

    /// From what crossed the boundary.
    #[doc(hidden)]
    pub fn from_raw(raw: &RawMethod<'a>) -> Self {
        Method {
            name: raw.name.as_str(),
            params: raw.params.as_str(),
            about: raw.about.as_str(),
            slow: raw.flags & METHOD_SLOW != 0,
            admin: raw.flags & METHOD_ADMIN != 0,
        }
    }
}

/// What of a control method decides where it runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct MethodTraits {
    /// It may block, so it is not called on a transport's thread.
    pub slow: bool,
    /// It changes the broker.
    pub admin: bool,
}

/// A call of a control method.
#[derive(Debug, Clone, Copy)]
pub struct Call<'a> {
    /// Who asks: the name of a client, or `.broker` for the broker's own parts.
    pub caller: &'a str,
    /// The registration of the caller, as [`Run::sender_id`](crate::Run::sender_id) gave it; 0 for the broker
    /// itself. A call is authorised by this registration: once it has ended, or without one, the call is
    /// denied.
    pub caller_id: u64,
    /// Which method.
    pub method: &'a str,
    /// Its parameters in msgpack; none is zero bytes.
    pub params: &'a [u8],
}

impl<'a> Call<'a> {
    /// A call by the broker itself, which no rules limit.
    pub fn by_broker(method: &'a str, params: &'a [u8]) -> Self {
        Call { caller: BROKER_NAME, caller_id: 0, method, params }
    }

    /// As it crosses the boundary.
    #[doc(hidden)]
    pub fn to_raw(self) -> RawCall<'a> {
        RawCall {
            flags: 0,
            caller: RStr::from_str(self.caller),
            caller_id: self.caller_id,
            method: RStr::from_str(self.method),
            params: RSlice::from_slice(self.params),
        }
    }

    /// From what crossed the boundary.
    #[doc(hidden)]
    pub fn from_raw(raw: &RawCall<'a>) -> Self {
        Call {
            caller: raw.caller.as_str(),
            caller_id: raw.caller_id,
            method: raw.method.as_str(),
            params: raw.params.as_slice(),
        }
    }
}

/// Why a control method failed: what an RPC error reply carries (section 7 of the protocol).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CallError {
    /// The RPC error code.
    pub code: i16,
    /// A sentence, or nothing.
    pub text: String,
}

impl CallError {
    /// An error with a code of section 7 and a sentence.
    pub fn new(code: i16, text: impl Into<String>) -> Self {
        CallError { code, text: text.into() }
    }

    /// As it crosses the boundary.
    #[doc(hidden)]
    pub fn into_raw(self) -> RawCallError {
        RawCallError { code: self.code, flags: 0, data: self.text.into_bytes().into() }
    }

    /// From what crossed the boundary.
    #[doc(hidden)]
    pub fn from_raw(raw: RawCallError) -> Self {
        CallError { code: raw.code, text: String::from_utf8_lossy(&raw.data).into_owned() }
    }
}

impl std::fmt::Display for CallError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.text.is_empty() { write!(f, "error {}", self.code) } else { f.write_str(&self.text) }
    }
}

impl std::error::Error for CallError {}

/// Serves a control method. Called from any thread, several at once; may block only if the method is declared
/// [slow](Method::slow).
pub trait ControlHandler: Send + Sync + 'static {
    /// Answers a call with a result in msgpack.
    ///
    /// # Errors
    /// What the caller is told.
    fn call(&self, call: &Call<'_>) -> Result<Vec<u8>, CallError>;
}

impl<F: Fn(&Call<'_>) -> Result<Vec<u8>, CallError> + Send + Sync + 'static> ControlHandler for F {
    fn call(&self, call: &Call<'_>) -> Result<Vec<u8>, CallError> {
        self(call)
    }
}
