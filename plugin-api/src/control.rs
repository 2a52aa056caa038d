//! Control methods of the broker: their description, calls and errors.

use abi_stable::std_types::{RSlice, RStr};
use elbus_protocol::{BROKER_NAME, Code, rpc};

use crate::abi::{
    FromRaw, IntoRaw, METHOD_ADMIN, METHOD_QUERY, METHOD_SLOW, RawCall, RawCallError, RawMethod,
    convert::sealed::Sealed,
};

/// The description of a control method.
///
/// # Examples
/// ```
/// use elbus_plugin_api::{Call, Host, Method, PluginError};
///
/// fn add(host: &Host) -> Result<(), PluginError> {
///     let method = Method::new("counter.get").params("none").about("returns the counter");
///     // a msgpack integer
///     host.add_method(&method, |_: &Call<'_>| Ok(vec![42]))
/// }
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct Method<'a> {
    /// Name, `subject.verb`.
    pub name: &'a str,
    /// Parameters, for people: `{topic: str}`.
    pub params: &'a str,
    /// What it does, for people.
    pub about: &'a str,
    /// The method can block, so no thread of a transport calls it.
    pub slow: bool,
    /// The method changes the broker: denied to clients on other machines unless `remote_admin` is set.
    pub admin: bool,
    /// The method changes nothing: a call without a reply is not executed.
    pub query: bool,
}

impl<'a> Method<'a> {
    /// Creates the description of a method that neither blocks nor changes the broker.
    pub fn new(name: &'a str) -> Self {
        Method { name, ..Method::default() }
    }

    /// Sets the description of the parameters.
    pub fn params(mut self, params: &'a str) -> Self {
        self.params = params;
        self
    }

    /// Sets the description of what the method does.
    pub fn about(mut self, about: &'a str) -> Self {
        self.about = about;
        self
    }

    /// Declares that the method can block.
    pub fn slow(mut self) -> Self {
        self.slow = true;
        self
    }

    /// Declares that the method changes the broker.
    pub fn admin(mut self) -> Self {
        self.admin = true;
        self
    }

    /// Declares that the method changes nothing.
    pub fn query(mut self) -> Self {
        self.query = true;
        self
    }

    pub(crate) fn to_raw(self) -> RawMethod<'a> {
        let flags = if self.slow { METHOD_SLOW } else { 0 }
            | if self.admin { METHOD_ADMIN } else { 0 }
            | if self.query { METHOD_QUERY } else { 0 };
        RawMethod {
            flags,
            name: RStr::from_str(self.name),
            params: RStr::from_str(self.params),
            about: RStr::from_str(self.about),
        }
    }
}

impl Sealed for Method<'_> {}

impl<'a> FromRaw<&RawMethod<'a>> for Method<'a> {
    fn from_raw(raw: &RawMethod<'a>) -> Self {
        Method {
            name: raw.name.as_str(),
            params: raw.params.as_str(),
            about: raw.about.as_str(),
            slow: raw.flags & METHOD_SLOW != 0,
            admin: raw.flags & METHOD_ADMIN != 0,
            query: raw.flags & METHOD_QUERY != 0,
        }
    }
}

/// The properties of a control method that decide how it is called.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct MethodTraits {
    /// The method can block, so no thread of a transport calls it.
    pub slow: bool,
    /// The method changes the broker.
    pub admin: bool,
    /// The method changes nothing.
    pub query: bool,
}

/// A call of a control method.
#[derive(Debug, Clone, Copy)]
pub struct Call<'a> {
    /// Name of the calling client; `.broker` for the broker's own parts.
    pub caller: &'a str,
    /// Registration of the caller, as returned by [`Run::sender_id`](crate::Run::sender_id); 0 for the
    /// broker itself. A call is authorised by this registration: without one, or once it has ended, the call
    /// is denied.
    pub caller_id: u64,
    /// Name of the method.
    pub method: &'a str,
    /// Parameters in msgpack; without any, zero bytes.
    pub params: &'a [u8],
}

impl<'a> Call<'a> {
    /// Creates a call by the broker itself, which access rules do not limit.
    pub fn by_broker(method: &'a str, params: &'a [u8]) -> Self {
        Call { caller: BROKER_NAME, caller_id: 0, method, params }
    }
}

impl Sealed for Call<'_> {}

impl Sealed for &Call<'_> {}

impl<'a> IntoRaw for &Call<'a> {
    type Raw = RawCall<'a>;

    fn into_raw(self) -> RawCall<'a> {
        RawCall {
            flags: 0,
            caller: RStr::from_str(self.caller),
            caller_id: self.caller_id,
            method: RStr::from_str(self.method),
            params: RSlice::from_slice(self.params),
        }
    }
}

impl<'a> FromRaw<&RawCall<'a>> for Call<'a> {
    fn from_raw(raw: &RawCall<'a>) -> Self {
        Call {
            caller: raw.caller.as_str(),
            caller_id: raw.caller_id,
            method: raw.method.as_str(),
            params: raw.params.as_slice(),
        }
    }
}

/// The error of a control method: what an RPC error reply carries (section 7 of the protocol).
///
/// # Examples
/// ```
/// use elbus_plugin_api::{CallError, Code};
///
/// let error = CallError::invalid_params("expected {topic: str}");
/// assert_eq!((error.code, error.to_string()), (-32602, "expected {topic: str}".to_owned()));
/// assert_eq!(CallError::of_code(Code::Busy, "try again").code, -32118);
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct CallError {
    /// RPC error code.
    pub code: i16,
    /// Text for people; can be empty.
    pub text: String,
}

impl CallError {
    /// Creates an error with an RPC error code of section 7 of the protocol.
    pub fn new(code: i16, text: impl Into<String>) -> Self {
        CallError { code, text: text.into() }
    }

    /// Creates an error that stands for a result code of the bus: busy, access denied, ...
    pub fn of_code(code: Code, text: impl Into<String>) -> Self {
        CallError::new(code.rpc_code(), text)
    }

    /// Creates the error for parameters that could not be deserialized: says what is expected, and whether
    /// there are any at all. `error` is that of the deserialization.
    ///
    /// # Examples
    /// ```
    /// # use elbus_plugin_api::CallError;
    /// let error = CallError::unreadable_params("{topic: str}", b"", "end of input");
    /// assert_eq!(error.to_string(), "expected {topic: str}, found no parameters");
    /// ```
    pub fn unreadable_params(expected: &str, params: &[u8], error: impl std::fmt::Display) -> Self {
        CallError::invalid_params(if params.is_empty() {
            format!("expected {expected}, found no parameters")
        } else {
            format!("expected {expected}: {error}")
        })
    }

    /// Creates the error for parameters that cannot be parsed, that are missing or of the wrong type: -32602.
    pub fn invalid_params(text: impl Into<String>) -> Self {
        CallError::new(rpc::INVALID_PARAMS, text)
    }

    /// Creates the error for parameters that name something that does not exist: -32001.
    pub fn not_found(text: impl Into<String>) -> Self {
        CallError::new(rpc::NOT_FOUND, text)
    }

    /// Creates the error for a method that does not exist: -32601.
    pub fn method_not_found(text: impl Into<String>) -> Self {
        CallError::new(rpc::METHOD_NOT_FOUND, text)
    }

    /// Creates the error for a method that failed: -32603.
    pub fn internal(text: impl Into<String>) -> Self {
        CallError::new(rpc::INTERNAL_ERROR, text)
    }
}

impl Sealed for CallError {}

impl IntoRaw for CallError {
    type Raw = RawCallError;

    fn into_raw(self) -> RawCallError {
        RawCallError { code: self.code, flags: 0, data: self.text.into_bytes().into() }
    }
}

impl FromRaw<RawCallError> for CallError {
    fn from_raw(raw: RawCallError) -> Self {
        CallError { code: raw.code, text: String::from_utf8_lossy(&raw.data).into_owned() }
    }
}

impl std::fmt::Display for CallError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.text.is_empty() { write!(f, "error {}", self.code) } else { f.write_str(&self.text) }
    }
}

impl std::error::Error for CallError {}

/// Handles calls of a control method. Called from any thread, concurrently; can block only if the method is
/// declared [slow](Method::slow). A function will do.
///
/// # Examples
/// ```
/// use elbus_plugin_api::{Call, CallError, ControlHandler, Method, testing::FakeHost};
///
/// struct Echo;
///
/// impl ControlHandler for Echo {
///     fn call(&self, call: &Call<'_>) -> Result<Vec<u8>, CallError> {
///         if call.params.is_empty() {
///             return Err(CallError::invalid_params("expected parameters"));
///         }
///         Ok(call.params.to_vec())
///     }
/// }
///
/// let host = FakeHost::new().host("demo");
/// host.add_method(&Method::new("demo.echo"), Echo)?;
/// assert_eq!(host.call(&Call::by_broker("demo.echo", b"\x01")), Ok(vec![1]));
/// assert_eq!(host.call(&Call::by_broker("demo.echo", b"")).map_err(|error| error.code), Err(-32602));
/// # Ok::<(), elbus_plugin_api::PluginError>(())
/// ```
pub trait ControlHandler: Send + Sync + 'static {
    /// Returns the result of a call in msgpack.
    ///
    /// # Errors
    /// The error that the caller receives.
    fn call(&self, call: &Call<'_>) -> Result<Vec<u8>, CallError>;
}

impl<F: Fn(&Call<'_>) -> Result<Vec<u8>, CallError> + Send + Sync + 'static> ControlHandler for F {
    fn call(&self, call: &Call<'_>) -> Result<Vec<u8>, CallError> {
        self(call)
    }
}
