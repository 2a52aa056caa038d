//! The errors of commands: the line on stderr, the JSON object and the exit code. Never prints anything.

use elbus_client::{Error, RpcError};
use elbus_protocol::rpc::METHOD_NOT_FOUND;
use serde_json::{Value, json};
use std::{fmt, io};

/// The maximum length of a callee's error text, in bytes.
const MAX_TEXT: usize = 1000;

/// Why a command failed.
#[derive(Debug)]
pub(crate) enum CliError {
    /// The command failed: one line with what failed and what to try. Exit code 1.
    Runtime(String),
    /// The callee of an RPC returned an error. Exit code 1.
    Rpc {
        /// The error code, see section 7 of the protocol.
        code: i16,
        /// The error text.
        text: String,
    },
    /// Invalid usage, such as an invalid value or an unreadable file. Exit code 2.
    Usage(String),
    /// The reader of stdout has closed it, as in `elbus listen | head -1`. Silent, exit code 0.
    OutputClosed,
}

impl CliError {
    /// Returns a [`Runtime`](Self::Runtime) error.
    pub(crate) fn runtime(message: impl Into<String>) -> Self {
        CliError::Runtime(message.into())
    }

    /// Returns a [`Usage`](Self::Usage) error.
    pub(crate) fn usage(message: impl Into<String>) -> Self {
        CliError::Usage(message.into())
    }

    /// Returns the error of a failed write to stdout.
    pub(crate) fn output(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::BrokenPipe => CliError::OutputClosed,
            _ => CliError::Runtime(format!("cannot write the output: {error}")),
        }
    }

    /// Returns the exit code of the process.
    pub(crate) fn exit_code(&self) -> u8 {
        match self {
            CliError::Runtime(_) | CliError::Rpc { .. } => 1,
            CliError::Usage(_) => 2,
            CliError::OutputClosed => 0,
        }
    }

    /// Returns `{"error": {"message": TEXT, "exit_code": N}}`; RPC errors also have their `code`.
    pub(crate) fn to_json(&self) -> Value {
        let mut error = match self {
            CliError::Runtime(message) | CliError::Usage(message) => json!({ "message": message }),
            CliError::Rpc { code, text } => json!({ "message": text, "code": code }),
            CliError::OutputClosed => json!({ "message": "output closed" }),
        };
        error["exit_code"] = self.exit_code().into();
        json!({ "error": error })
    }
}

/// Formats the line on stderr, which starts with `error`.
impl fmt::Display for CliError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            CliError::Runtime(message) | CliError::Usage(message) => write!(f, "error: {message}"),
            CliError::Rpc { code, text } => write!(f, "error {code}: {text}"),
            CliError::OutputClosed => Ok(()),
        }
    }
}

/// Returns the remedy for a failed TLS handshake, or "" if the error text names it or none is known.
fn tls_remedy(reason: &str) -> &'static str {
    const REMEDIES: [(&str, &str); 4] = [
        (
            "InvalidContentType",
            ": the broker does not use TLS at this address: omit tls:// and the --tls options",
        ),
        (
            "CaUsedAsEndEntity",
            ": the broker's certificate is an authority's certificate: use one issued by an authority",
        ),
        ("UnknownIssuer", ": pass the certificate of the broker's authority with --tls-ca"),
        ("CertificateRequired", ": present a certificate with --tls-cert and --tls-key"),
    ];
    REMEDIES.iter().find(|(cause, _)| reason.contains(cause)).map_or("", |(_, remedy)| remedy)
}

fn tls_error(address: &str, reason: &str) -> CliError {
    let remedy = tls_remedy(reason);
    CliError::Runtime(format!("TLS connection to {address} failed: {reason}{remedy}"))
}

/// Takes the client library's text, except for errors that an option of `elbus` can remedy.
impl From<Error> for CliError {
    fn from(error: Error) -> Self {
        match error {
            Error::Rpc(error) => CliError::from(error),
            Error::NoBroker { address, source, .. } => CliError::Runtime(format!(
                "no broker at {address} ({source}): start elbusd, or set its address with --addr or ELBUS_ADDR"
            )),
            Error::NotABroker { address, reason, .. } => {
                let closed = reason.contains("closed the connection");
                let remedy = if closed { "use tls://host:port if it expects TLS, or " } else { "" };
                CliError::Runtime(format!(
                    "{address} is not an ELBUS broker: it {reason}: {remedy}check --addr or ELBUS_ADDR"
                ))
            }
            Error::Tls { address, reason, .. } => tls_error(&address, &reason),
            Error::NameTaken { name, .. } => CliError::Runtime(format!(
                "name taken: another client is registered as {name:?}: choose another with --name, or omit --name"
            )),
            Error::NameRefused { name, code, .. } => CliError::Runtime(format!(
                "the broker refused the name {name:?} ({code}): choose another with --name"
            )),
            Error::AccessDenied { operation, .. } => CliError::Runtime(format!(
                "access denied: {operation}: an access rule denies it to this client; \
                 elbus broker explain and the broker's log name the rule"
            )),
            Error::Disconnected { reason, .. } => {
                CliError::Runtime(format!("connection lost: {reason}: is the broker still running?"))
            }
            Error::Timeout { operation, after, .. } => CliError::Runtime(format!(
                "timed out: {operation}: no answer within {} s: set a longer --timeout",
                after.as_secs_f64()
            )),
            Error::NotRegistered { target, .. } => CliError::Runtime(format!(
                "no client is registered as {target:?}: elbus broker clients lists the registered clients"
            )),
            error => CliError::Runtime(error.to_string()),
        }
    }
}

impl From<RpcError> for CliError {
    fn from(error: RpcError) -> Self {
        let text = error.text().map(one_line).unwrap_or_default();
        let text = match (text.is_empty(), error.code) {
            (false, _) => text,
            (true, METHOD_NOT_FOUND) => "method not found".to_owned(),
            (true, _) if error.text().is_none() => format!("{} bytes of data", error.data.len()),
            (true, _) => error.meaning().unwrap_or("the callee gave no reason").to_owned(),
        };
        CliError::Rpc { code: error.code, text }
    }
}

/// Joins the words of a callee's text to one line of at most [`MAX_TEXT`] bytes.
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
        let text = |reason: &str| tls_error("tls://plant:7778", reason).to_string();
        assert!(text("invalid peer certificate: UnknownIssuer").ends_with("with --tls-ca"));
        assert!(text("corrupt message of type InvalidContentType").contains("does not use TLS"));
        assert_eq!(text("else"), "error: TLS connection to tls://plant:7778 failed: else");
    }

    #[test]
    fn errors_of_calls_carry_the_callees_text() {
        let text = |error: RpcError| CliError::from(Error::Rpc(error)).to_string();
        assert_eq!(text(RpcError::method_not_found()), "error -32601: method not found");
        assert_eq!(text(RpcError::new(7, "it is\nhot")), "error 7: it is hot");
        assert_eq!(text(RpcError::new(7, "")), "error 7: the callee gave no reason");
        assert_eq!(text(RpcError::with_data(7, vec![0xff])), "error 7: 1 bytes of data");
        assert_eq!(text(RpcError::new(-32113, "")), "error -32113: not registered");
        assert!(text(RpcError::new(7, "long ".repeat(1000))).len() < MAX_TEXT + 20);
    }

    #[test]
    fn json_errors_are_one_object() {
        let error = CliError::Rpc { code: -32601, text: "method not found".to_owned() };
        let expected = r#"{"error":{"message":"method not found","code":-32601,"exit_code":1}}"#;
        assert_eq!(error.to_json().to_string(), expected);
        assert_eq!(CliError::usage("x").to_json()["error"]["exit_code"], 2);
    }

    #[test]
    fn exit_codes() {
        let closed = CliError::output(io::ErrorKind::BrokenPipe.into());
        assert_eq!(closed.exit_code(), 0);
        assert_eq!(CliError::output(io::ErrorKind::StorageFull.into()).exit_code(), 1);
        assert_eq!(CliError::from(Error::Closed).exit_code(), 1);
        assert_eq!(CliError::usage("x").exit_code(), 2);
    }
}
