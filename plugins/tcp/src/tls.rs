//! Connections under TLS: the handshake before a session, then the tunnel beside it. `elbus-network` performs
//! the handshake, `elbus-tls` the copying.

use elbus_network::{Rejection, SecuredStream, Tls, unless_evicted};
use elbus_stream::{LogCategory, PeerInfo, SessionPermit, Verified};
use elbus_tls::{Tunnel, tunnel};
use std::{os::fd::OwnedFd, sync::Arc};

/// Performs the handshake, then forwards the connection for as long as its session lasts.
pub(crate) async fn serve(tls: Arc<Tls>, socket: OwnedFd, source: Option<String>, permit: SessionPermit) {
    // boxed: it would otherwise enlarge every connection
    let handshaken =
        Box::pin(unless_evicted(&permit, |evictor| tls.handshake(socket, &permit, evictor))).await;
    let SecuredStream { stream, certificate } = match handshaken {
        Ok(Ok(Some(secured))) => secured,
        Ok(Ok(None)) => return,
        Ok(Err(Rejection { category, why })) => return permit.reject(source.as_deref(), category, &why),
        Err(slot) => return permit.log_eviction(source.as_deref(), slot.reason().as_deref()),
    };
    let Ok(Tunnel { end, work, .. }) = tunnel(stream) else {
        let why = "no descriptors for a TLS connection";
        return permit.reject(source.as_deref(), LogCategory::Refused, why);
    };
    let (certificate_names, chain) = certificate.unzip();
    let verified =
        certificate_names.map(|certificate_names| Verified { certificate_names, ..Verified::default() });
    let peer = PeerInfo { source, verified: verified.map(Box::new), ..PeerInfo::default() };
    let Some(guard) = permit.begin(end, peer) else { return };
    let registered = chain.map(|chain| tls.register(chain, &guard));
    work.await;
    drop((registered, guard));
}
