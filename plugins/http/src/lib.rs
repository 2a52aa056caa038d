//! Shared implementation of the transports over HTTP: requests within limits, files, WebSocket frames,
//! tokens, origins, and who may connect.
//!
//! `elbus-network` binds the addresses and performs TLS handshakes, `elbus-stream` handles the connections.
//! It is no plugin: `websocket` serves WebSocket connections with it, and `web` a page beside them.
#![forbid(unsafe_code)]

mod admission;
mod byte_stream;
mod closing;
mod connections;
mod files;
mod forwarding;
mod frames;
mod origin;
mod refusal;
mod request;
mod server;
mod service;
mod settings;
mod tokens;

pub use files::{StaticFile, StaticFiles};
pub use frames::{FrameDecoder, Step, Violation};
pub use server::HttpServer;
pub use tokens::{NewToken, make_token};
