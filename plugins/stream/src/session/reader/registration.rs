//! The handshake of a connection, and the registration of its client.

use elbus_plugin_api::{ClientInfo, Code};
use elbus_protocol::handshake::{HandshakeError, Progress};

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
                    if self.accept_greeting() {
                        return Ok(pos); // the answer waits for the turn
                    }
                }
                Ok(Progress::RingsAsked { consumed, class }) => {
                    pos += consumed;
                    let server = &self.connection.server;
                    if !self.unregistered.as_mut().is_some_and(|it| it.claim_rings(server, class)) {
                        self.connection.send(&[Code::NotSupported as u8]);
                        return Err(CloseReason::NoRings(None));
                    }
                    if self.accept_greeting() {
                        return Ok(pos);
                    }
                }
                Ok(Progress::Name { consumed, .. }) if self.wants_rings() && left.len() > consumed => {
                    let error = HandshakeError::AheadOfRings;
                    self.connection.send(&[error.reply() as u8]);
                    return Err(CloseReason::Handshake(error));
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

    /// Answers a greeting; returns whether the connection must wait for its turn.
    fn accept_greeting(&mut self) -> bool {
        self.connection.push_answer(Code::Ok as u8);
        self.enter(Phase::NameLength);
        let server = &self.connection.server;
        self.unregistered.as_mut().is_some_and(|unregistered| unregistered.has_greeted(server))
    }

    /// Returns whether the client has asked for rings.
    fn wants_rings(&self) -> bool {
        self.unregistered.as_ref().is_some_and(|unregistered| unregistered.wants_rings)
    }

    /// Makes the rings of a client that has asked for them: its next answer passes them. An attempt to
    /// register before this one may have made them already.
    fn offer_rings(&mut self) -> Result<(), CloseReason> {
        // the descriptors must not go with the answer to the greeting
        self.connection.flush();
        let Some(unregistered) = &mut self.unregistered else { return Ok(()) };
        let Some(permit) = unregistered.ring_permit.take() else {
            self.socket.reoffer_rings();
            return Ok(());
        };
        if let Err(error) = self.socket.offer_rings(permit.ring_bytes(), Box::new(permit)) {
            unregistered.release(&self.connection.server);
            self.connection.send(&[Code::NotSupported as u8]);
            return Err(CloseReason::NoRings(Some(error)));
        }
        Ok(())
    }

    /// Registers the client; if the name or slot is being released and `may_wait`, records what to wait for.
    pub(super) fn register(&mut self, name: &str, may_wait: bool) -> Result<(), CloseReason> {
        let _ = self.connection.name.set(name.into()); // once only, since a handshake has one name
        if !self.claim_place(name, may_wait)? {
            return Ok(());
        }
        let has_rings = self.wants_rings();
        if has_rings {
            self.offer_rings()?;
        }
        let connection = &self.connection;
        let server = &connection.server;
        let verified = self.peer.verified.as_deref();
        let locality = verified.and_then(|verified| verified.locality);
        let locality = locality.unwrap_or_else(|| server.transport.locality());
        let mut info = ClientInfo::new(server.transport.kind(), locality)
            .with_port(&*self.port)
            .with_filter_limits(server.settings.max_filters, server.settings.max_filter_depth)
            .with_overflow(server.settings.overflow);
        info.source = self.peer.source.clone();
        info.credentials = self.peer.credentials;
        info.unit = self.peer.unit.as_deref().cloned();
        if let Some(verified) = verified {
            info.certificate_names = verified.certificate_names.clone();
            info.token = verified.token.clone();
        }
        info.has_rings = has_rings;
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
                self.socket.withdraw_rings();
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
