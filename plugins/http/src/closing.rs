//! Why a WebSocket connection ends, shared by its byte stream and the task around it. Owns the code of our
//! close frame; closes sessions only through their closer.

use elbus_stream::{Closer, SessionEnd};
use parking_lot::Mutex;
use std::sync::OnceLock;
use tungstenite::protocol::frame::coding::CloseCode;

use crate::frames::Violation;

/// Why a connection ends.
#[derive(Default)]
pub(crate) struct Closing {
    /// Closes the session. Set before the byte stream is used.
    closer: OnceLock<Closer>,
    /// The code and reason of our close frame, if something has decided about them.
    decided: Mutex<Option<(CloseCode, String)>>,
}

impl Closing {
    /// Sets the closer of the session.
    pub(crate) fn set_closer(&self, closer: Closer) {
        let _ = self.closer.set(closer); // once for each connection
    }

    /// Records that the client has sent a close frame: ours repeats the code.
    pub(crate) fn received(&self, code: CloseCode) {
        self.decide(code, String::new());
    }

    /// Closes the session of a client that has violated the protocol.
    pub(crate) fn violated(&self, violation: Violation) {
        self.decide(violation.close_code(), violation.to_string());
        if let Some(closer) = self.closer.get() {
            closer.close(&format!("WebSocket protocol error: {violation}"));
        }
    }

    /// Sets the code and reason for our close frame, unless they are set.
    pub(crate) fn decide(&self, code: CloseCode, reason: String) {
        self.decided.lock().get_or_insert((code, reason));
    }

    /// Returns the code and the reason for our close frame.
    pub(crate) fn close_frame(&self) -> (CloseCode, String) {
        if let Some(decided) = self.decided.lock().clone() {
            return decided;
        }
        match self.closer.get().and_then(Closer::end) {
            None | Some(SessionEnd::Left) => (CloseCode::Normal, String::new()),
            Some(SessionEnd::Stopping) => (CloseCode::Away, "the broker stops".to_owned()),
            Some(SessionEnd::Refused(why)) => (CloseCode::Policy, why),
            Some(SessionEnd::Closed) => (CloseCode::Policy, "closed by the broker".to_owned()),
        }
    }
}
