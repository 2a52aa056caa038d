//! Why a command failed: the line on stderr and the exit code. Never prints anything itself.

use elbus_client::{Error, RpcError};
use elbus_protocol::rpc::METHOD_NOT_FOUND;
use serde_json::{Value, json};
use std::{fmt, io};

/// The most that is shown of what a callee says, in bytes.
const MAX_TEXT: usize = 1000;

/// Why a command failed.
#[derive(Debug)]
pub(crate) enum Failure {
    /// An error from the bus, in one line that says what failed and what to try. Exit code 1.
    Bus(String),
    /// The callee of an RPC answered with an error. Exit code 1.
    Rpc {
        /// Its code, see section 7 of the protocol.
        code: i16,
        /// What it means.
        text: String,
    },
    /// Wrong usage: a value, a file that cannot be read. Exit code 2.
    Usage(String),
    /// Nobody reads the output any more, which is how `elbus listen | head -1` ends. Silent, exit code 0.
    OutputClosed,
}

impl Failure {
    /// An error from the bus.
    pub(crate) fn bus(message: impl Into<String>) -> Self {
        Failure::Bus(message.into())
    }

    /// Wrong usage.
    pub(crate) fn usage(message: impl Into<String>) -> Self {
        Failure::Usage(message.into())
    }

    /// Writing the output failed.
    pub(crate) fn output(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::BrokenPipe => Failure::OutputClosed,
            _ => Failure::Bus(format!("cannot write the output: {error}")),
        }
    }

    /// What the process ends with.
    pub(crate) fn exit_code(&self) -> u8 {
        match self {
            Failure::Bus(_) | Failure::Rpc { .. } => 1,
            Failure::Usage(_) => 2,
            Failure::OutputClosed => 0,
        }
    }
}

impl Failure {
    /// As `--json` shows it: `{"error": {"message": TEXT, "exit_code": N}}`, for an RPC with its `code`.
    pub(crate) fn to_json(&self) -> Value {
        let mut error = match self {
            Failure::Bus(message) | Failure::Usage(message) => json!({ "message": message }),
            Failure::Rpc { code, text } => json!({ "message": text, "code": code }),
            Failure::OutputClosed => json!({ "message": "output closed" }),
        };
        error["exit_code"] = self.exit_code().into();
        json!({ "error": error })
    }
}

/// As the line on stderr shows it, `error` in front.
impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Failure::Bus(message) | Failure::Usage(message) => write!(f, "error: {message}"),
            Failure::Rpc { code, text } => write!(f, "error {code}: {text}"),
            Failure::OutputClosed => Ok(()),
        }
    }
}

/// What to do about a failed handshake, for the failures whose texts do not suggest it.
fn tls_remedy(what: &str) -> &'static str {
    const REMEDIES: [(&str, &str); 4] = [
        (
            "InvalidContentType",
            ": the broker does not use TLS at this address: leave out tls:// and the --tls options",
        ),
        (
            "CaUsedAsEndEntity",
            ": the broker's certificate is its own authority: have one issued by an authority",
        ),
        ("UnknownIssuer", ": give the authority of the broker's certificate with --tls-ca"),
        ("CertificateRequired", ": show a certificate with --tls-cert and --tls-key"),
    ];
    REMEDIES.iter().find(|(sign, _)| what.contains(sign)).map_or("", |(_, remedy)| remedy)
}

fn tls_failure(address: &str, reason: &str) -> Failure {
    let remedy = tls_remedy(reason);
    Failure::Bus(format!("no TLS connection to {address}: {reason}{remedy}"))
}

/// The words of the library where they fit; where a person at the command line has another way out, that.
impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        match error {
            Error::Rpc(error) => Failure::from(error),
            Error::NoBroker { address, source, .. } => Failure::Bus(format!(
                "no broker at {address} ({source}): start elbusd, or say where it is with --addr or ELBUS_ADDR"
            )),
            Error::NotABroker { address, reason, .. } => {
                let closed = reason.contains("closed the connection");
                let remedy = if closed { "use tls://host:port if it expects TLS, or " } else { "" };
                Failure::Bus(format!(
                    "no broker of this protocol at {address}: it {reason}: {remedy}check --addr or ELBUS_ADDR"
                ))
            }
            Error::Tls { address, reason, .. } => tls_failure(&address, &reason),
            Error::NameTaken { name, .. } => Failure::Bus(format!(
                "name taken: another client is registered as {name:?}: choose another with --name, or leave it out"
            )),
            Error::NameRefused { name, code, .. } => Failure::Bus(format!(
                "the broker refuses the name {name:?} ({code}): choose another with --name"
            )),
            Error::AccessDenied { operation, .. } => Failure::Bus(format!(
                "access denied: {operation}: rules of the broker forbid it to this --name; its log says which, and elbus broker explain"
            )),
            Error::Disconnected { reason, .. } => {
                Failure::Bus(format!("the connection was lost: {reason}: is the broker still running?"))
            }
            Error::Timeout { operation, after, .. } => Failure::Bus(format!(
                "timed out: {operation}: no answer within {} s: is it busy? wait longer with --timeout",
                after.as_secs_f64()
            )),
            Error::NotRegistered { target, .. } => Failure::Bus(format!(
                "no client is registered as {target:?}: see who is with elbus broker clients"
            )),
            error => Failure::Bus(error.to_string()),
        }
    }
}

impl From<RpcError> for Failure {
    fn from(error: RpcError) -> Self {
        let said = error.text().map(one_line).unwrap_or_default();
        let text = match (said.is_empty(), error.code) {
            (false, _) => said,
            (true, METHOD_NOT_FOUND) => "method not found".to_owned(),
            (true, _) if error.text().is_none() => format!("{} bytes of data", error.data.len()),
            (true, _) => error.meaning().unwrap_or("the callee does not say why").to_owned(),
        };
        Failure::Rpc { code: error.code, text }
    }
}

/// What a callee says, in one line of bounded length.
fn one_line(text: &str) -> String {
    let mut line = String::new();
    for word in text.split_whitespace() {
        if line.len() + word.len() > MAX_TEXT {
            line.push_str(" ...");
            break;
        }
        if !line.is_empty() {
            line.push(' ');
        }
        line.push_str(word);
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failed_tls_handshake_names_the_remedy() {
        let text = |reason: &str| tls_failure("tls://plant:7778", reason).to_string();
        assert!(text("invalid peer certificate: UnknownIssuer").ends_with("with --tls-ca"));
        assert!(text("corrupt message of type InvalidContentType").contains("does not use TLS"));
        assert_eq!(text("else"), "error: no TLS connection to tls://plant:7778: else");
    }

    #[test]
    fn errors_of_calls_say_what_the_callee_said() {
        let text = |error: RpcError| Failure::from(Error::Rpc(error)).to_string();
        assert_eq!(text(RpcError::method_not_found()), "error -32601: method not found");
        assert_eq!(text(RpcError::new(7, "it is\nhot")), "error 7: it is hot");
        assert_eq!(text(RpcError::new(7, "")), "error 7: the callee does not say why");
        assert_eq!(text(RpcError::with_data(7, vec![0xff])), "error 7: 1 bytes of data");
        assert_eq!(text(RpcError::new(-32113, "")), "error -32113: not registered");
        assert!(text(RpcError::new(7, "long ".repeat(1000))).len() < MAX_TEXT + 20);
    }

    #[test]
    fn scripts_get_an_object() {
        let failure = Failure::Rpc { code: -32601, text: "method not found".to_owned() };
        let expected = r#"{"error":{"message":"method not found","code":-32601,"exit_code":1}}"#;
        assert_eq!(failure.to_json().to_string(), expected);
        assert_eq!(Failure::usage("x").to_json()["error"]["exit_code"], 2);
    }

    #[test]
    fn exit_codes() {
        let closed = Failure::output(io::ErrorKind::BrokenPipe.into());
        assert_eq!(closed.exit_code(), 0);
        assert_eq!(Failure::output(io::ErrorKind::StorageFull.into()).exit_code(), 1);
        assert_eq!(Failure::from(Error::Closed).exit_code(), 1);
        assert_eq!(Failure::usage("x").exit_code(), 2);
    }
}
