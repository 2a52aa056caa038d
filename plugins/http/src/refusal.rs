//! Answers to HTTP requests: the one that opens a WebSocket connection, and those that refuse it. Owns their
//! form; decides nothing.

use tungstenite::handshake::derive_accept_key;

/// The status of a refusal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Status {
    BadRequest,
    Unauthorized,
    Forbidden,
    NotFound,
    MethodNotAllowed,
    Timeout,
    UpgradeRequired,
    FieldsTooLarge,
}

impl Status {
    /// Returns the status line, and a header field that belongs to it.
    fn line(self) -> (&'static str, &'static str) {
        match self {
            Status::BadRequest => ("400 Bad Request", ""),
            Status::Unauthorized => ("401 Unauthorized", "WWW-Authenticate: Bearer\r\n"),
            Status::Forbidden => ("403 Forbidden", ""),
            Status::NotFound => ("404 Not Found", ""),
            Status::MethodNotAllowed => ("405 Method Not Allowed", "Allow: GET\r\n"),
            Status::Timeout => ("408 Request Timeout", ""),
            Status::UpgradeRequired => {
                ("426 Upgrade Required", "Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\n")
            }
            Status::FieldsTooLarge => ("431 Request Header Fields Too Large", ""),
        }
    }
}

/// A refused request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Refusal {
    pub(crate) status: Status,
    /// For the log.
    pub(crate) why: String,
    /// For the client, which must not learn everything.
    answer: Option<&'static str>,
}

impl Refusal {
    /// A refusal whose reason the client can read.
    pub(crate) fn new(status: Status, why: String) -> Self {
        Refusal { status, why, answer: None }
    }

    /// A refusal whose reason only the log contains.
    pub(crate) fn answered_with(status: Status, why: String, answer: &'static str) -> Self {
        Refusal { status, why, answer: Some(answer) }
    }

    /// Returns the response.
    pub(crate) fn response(&self) -> String {
        let (line, field) = self.status.line();
        let text = self.answer.unwrap_or(&self.why);
        format!(
            "HTTP/1.1 {line}\r\n{field}Connection: close\r\nContent-Type: text/plain; charset=utf-8\r\n\
             X-Content-Type-Options: nosniff\r\nContent-Length: {}\r\n\r\n{text}\n",
            text.len() + 1
        )
    }
}

/// Returns the response that opens the connection; `protocol` is the subprotocol that was chosen.
pub(crate) fn switching(key: &str, protocol: Option<&str>) -> String {
    let protocol = protocol.map(|name| format!("Sec-WebSocket-Protocol: {name}\r\n")).unwrap_or_default();
    format!(
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Accept: {}\r\n{protocol}\r\n",
        derive_accept_key(key.as_bytes())
    )
}
