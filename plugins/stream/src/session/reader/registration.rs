//! The handshake of a connection, and the registration of its client.

use elbus_plugin_api::{ClientInfo, Code};
use elbus_protocol::handshake::Progress;

use super::Reader;
use crate::connection::{close_reason::CloseReason, liveness::Phase, sink::ConnectionSink};

impl Reader {
    /// Advances the handshake as far as `input` allows. A client that sends all of it at once gets all
    /// answers together.
    pub(super) fn greet(&mut self, input: &[u8]) -> Result<usize, CloseReason> {
        let mut pos = 0;
        loop {
            let left = input.get(pos..).unwrap_or_default();
            match self.handshake.advance(left) {
                Ok(Progress::NeedMore) => {
                    if self.phase == Phase::NameLength && left.len() >= 2 {
                        self.enter(Phase::Name);
                    }
                    self.connection.flush();
                    return Ok(pos);
                }
                Ok(Progress::Greeted { consumed }) => {
                    pos += consumed;
                    self.connection.push_answer(Code::Ok as u8);
                    self.enter(Phase::NameLength);
                    let server = &self.connection.server;
                    if self.unregistered.as_mut().is_some_and(|unregistered| unregistered.has_greeted(server))
                    {
                        return Ok(pos); // the answer waits for the turn
                    }
                }
                Ok(Progress::Name { consumed, name }) => {
                    self.register(name, true)?;
                    return Ok(pos + consumed);
                }
                Err(_) if is_tls(left) => return Err(CloseReason::Tls),
                Err(error) => {
                    self.connection.send(&[error.reply() as u8]);
                    return Err(CloseReason::Handshake(error));
                }
            }
        }
    }

    /// Registers the client; if the name or slot is being released and `may_wait`, records what to wait for.
    pub(super) fn register(&mut self, name: &str, may_wait: bool) -> Result<(), CloseReason> {
        let _ = self.connection.name.set(name.into()); // once only, since a handshake has one name
        if !self.claim_place(name, may_wait)? {
            return Ok(());
        }
        let connection = &self.connection;
        let server = &connection.server;
        let mut info = ClientInfo::new(server.transport.kind(), server.transport.locality())
            .with_port(&*self.port)
            .with_filter_limits(server.settings.max_filters, server.settings.max_filter_depth);
        info.source = self.peer.source.clone();
        info.credentials = self.peer.credentials;
        info.unit = self.peer.unit.as_deref().cloned();
        info.certificate_names =
            self.peer.certificate.as_ref().map(|it| it.names.clone()).unwrap_or_default();
        // deliveries can come as soon as it is registered: the answer must precede them
        connection.push_answer(Code::Ok as u8);
        match server.host.register(name, &info, ConnectionSink(connection.clone())) {
            Ok(client) => {
                connection.flush();
                tracing::debug!(client = name, source = self.peer.source, "registered");
                self.client = Some(client);
                self.start_rate_limit();
                self.unregistered = None;
                self.enter(Phase::Header);
                Ok(())
            }
            Err(code) => {
                self.unregistered.iter().for_each(|unregistered| unregistered.release(server));
                // a client that reconnects immediately: what its previous connection has sent is delivered
                // first
                let previous_owner =
                    if may_wait && code == Code::Busy { server.find_departing(name) } else { None };
                if let (Some(previous_owner), Some(unregistered)) = (previous_owner, &mut self.unregistered) {
                    connection.pop_answer();
                    tracing::debug!(client = name, "name is being released by its previous owner; waiting");
                    unregistered.previous_owner = Some(previous_owner);
                    return Ok(());
                }
                connection.replace_answer(code as u8);
                Err(CloseReason::Refused { name: name.into(), code })
            }
        }
    }

    /// Claims a place among the registered clients; `false` if it must wait for the previous owner of its
    /// name.
    fn claim_place(&mut self, name: &str, may_wait: bool) -> Result<bool, CloseReason> {
        let server = &self.connection.server;
        let Some(unregistered) = &mut self.unregistered else { return Ok(true) };
        let Err(limit) = unregistered.claim(server) else { return Ok(true) };
        unregistered.previous_owner = if may_wait { server.find_departing(name) } else { None };
        if unregistered.previous_owner.is_none() {
            self.connection.send(&[Code::Other as u8]);
            return Err(CloseReason::Full { limit });
        }
        Ok(false)
    }
}

/// Returns whether this is the beginning of a TLS handshake record of any version.
fn is_tls(start: &[u8]) -> bool {
    matches!(start, [0x16, 0x03, ..])
}
