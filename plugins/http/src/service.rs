//! The way of one connection: TLS, requests for files, the request that opens a WebSocket connection, the
//! decision, and the tunnel beside its session. Owns the order and the time limits; `elbus-stream` has the
//! session.

use elbus_network::{
    RegisteredCertificate, SecuredStream, SocketOptions, Tls, VerifiedChain, unless_evicted,
};
use elbus_plugin_api::Host;
use elbus_stream::{LogCategory, PeerInfo, Prepared, SessionPermit, Transport, Verified};
use elbus_tls::{Tunnel, tunnel};
use std::{
    io,
    net::{SocketAddr, TcpStream as StdStream},
    os::fd::OwnedFd,
    pin::Pin,
    sync::Arc,
    time::Duration,
};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::TcpStream,
    time::{Instant, timeout, timeout_at},
};

use crate::{
    admission::{Admission, AdmissionRules, PROTOCOL, Peer},
    byte_stream::ByteStream,
    closing::Closing,
    connections::Connections,
    files::StaticFiles,
    refusal::{Refusal, Status, switching},
    request::{self, Failure, FileRequest, Request},
};

/// Longest time for the answer to a refused request to be read.
const LINGER: Duration = Duration::from_secs(1);

/// The most requests for files over one connection.
const MAX_FILE_REQUESTS: usize = 1000;
/// Bytes of a file that are written within the time limit of a step.
const WRITE_BYTES: usize = 64 * 1024;

/// What the connections of an instance share.
pub(crate) struct Service {
    pub(crate) host: Host,
    pub(crate) socket: SocketOptions,
    pub(crate) tls: Option<Tls>,
    pub(crate) rules: AdmissionRules,
    pub(crate) files: StaticFiles,
    pub(crate) connections: Connections,
    /// Time limit of a request, and of each part of a response.
    pub(crate) timeout: Duration,
}

/// The transport of an instance.
pub(crate) struct HttpTransport(pub(crate) Arc<Service>);

impl Transport for HttpTransport {
    fn kind(&self) -> &'static str {
        "websocket"
    }

    fn prepare(&self, accepted: OwnedFd) -> io::Result<Prepared> {
        let peer = self.0.socket.apply(&accepted)?.ok_or(io::ErrorKind::Unsupported)?;
        let service = self.0.clone();
        let task = Box::new(move |permit| Box::pin(service.serve(accepted, peer, permit)) as Pin<Box<_>>);
        Ok(Prepared::Later { source: Some(peer.to_string()), task })
    }
}

/// A stream of either kind.
trait Duplex: AsyncRead + AsyncWrite + Send + Unpin {}
impl<S: AsyncRead + AsyncWrite + Send + Unpin> Duplex for S {}

/// A connection whose handshakes are complete.
struct Opened {
    stream: Box<dyn Duplex>,
    /// What the client has sent after its request.
    ahead: Vec<u8>,
    client: SocketAddr,
    admission: Admission,
    certificate: Option<(Vec<String>, VerifiedChain)>,
}

/// Why a connection was refused. The answer has been sent.
struct Rejected {
    category: LogCategory,
    why: String,
    /// The client, if it is known.
    client: Option<SocketAddr>,
}

impl Rejected {
    fn new(category: LogCategory, why: impl Into<String>) -> Self {
        Rejected { category, why: why.into(), client: None }
    }
}

impl Service {
    /// Performs the handshakes, then forwards the connection for as long as its session lasts.
    async fn serve(self: Arc<Self>, socket: OwnedFd, peer: SocketAddr, mut permit: SessionPermit) {
        // boxed: it would otherwise enlarge every connection
        let opened = Box::pin(unless_evicted(&permit, |evictor| async {
            let (stream, certificate) = match &self.tls {
                None => match TcpStream::from_std(StdStream::from(socket)) {
                    Ok(stream) => (Box::new(stream) as Box<dyn Duplex>, None),
                    Err(_) => return Ok(None),
                },
                Some(tls) => match tls.handshake(socket, &permit, evictor).await {
                    Ok(Some(SecuredStream { stream, certificate })) => {
                        (Box::new(stream) as Box<dyn Duplex>, certificate)
                    }
                    Ok(None) => return Ok(None),
                    Err(rejection) => return Err(Rejected::new(rejection.category, rejection.why)),
                },
            };
            self.open(stream, certificate, peer, &permit).await
        }))
        .await;
        let at_peer = Some(peer.to_string());
        let opened = match opened {
            Ok(Ok(Some(opened))) => opened,
            Ok(Ok(None)) => return,
            Ok(Err(Rejected { category, why, client })) => {
                let client = client.map(|client| client.to_string()).or(at_peer);
                permit.set_source(client.as_deref());
                return permit.reject(client.as_deref(), category, &why);
            }
            Err(slot) => return permit.log_eviction(at_peer.as_deref(), slot.reason().as_deref()),
        };
        let Opened { stream, ahead, client, admission, certificate } = opened;
        let source = Some(client.to_string());
        permit.set_source(source.as_deref());
        let closing = Arc::new(Closing::default());
        let Ok(Tunnel { end, work, .. }) = tunnel(ByteStream::new(stream, ahead, closing.clone())) else {
            let why = "no descriptors for a WebSocket connection";
            return permit.reject(source.as_deref(), LogCategory::Refused, why);
        };
        let (certificate_names, chain) = certificate.unzip();
        let token = match &admission {
            Admission::Token(token) => Some(token.name.clone()),
            _ => None,
        };
        let locality = self.rules.locality_of(&admission);
        let has_proved = certificate_names.is_some() || token.is_some() || locality.is_some();
        let certificate_names = certificate_names.unwrap_or_default();
        let verified = has_proved.then(|| Box::new(Verified { certificate_names, token, locality }));
        let peer = PeerInfo { source, verified, ..PeerInfo::default() };
        let Some(guard) = permit.begin(end, peer) else { return };
        closing.set_closer(guard.closer());
        let connection = self.connections.add(admission.clone(), guard.closer());
        // it may have changed between the decision and the registration of this connection
        if !self.rules.still_admits(&admission, self.host.has_access_rules()) {
            guard.closer().close(admission.end_reason());
        }
        let certificate: Option<RegisteredCertificate<'_>> = match (&self.tls, chain) {
            (Some(tls), Some(chain)) => Some(tls.register(chain, &guard)),
            _ => None,
        };
        work.await;
        drop((certificate, connection, guard));
    }

    /// Reads requests and answers them until one opens a WebSocket connection; `None` if there is none.
    async fn open(
        &self,
        mut stream: Box<dyn Duplex>,
        certificate: Option<(Vec<String>, VerifiedChain)>,
        address: SocketAddr,
        permit: &SessionPermit,
    ) -> Result<Option<Opened>, Rejected> {
        let mut ahead = Vec::with_capacity(1024);
        let mut answered = 0;
        let request = loop {
            let end = Instant::now() + self.timeout;
            let serves_files = !self.files.is_empty();
            let read = timeout_at(end, request::read(&mut stream, &mut ahead, serves_files)).await;
            let request = match read {
                Ok(Ok(request)) => request,
                Ok(Err(Failure::Gone)) => return Ok(None),
                Ok(Err(Failure::Tls)) => {
                    let why = "sent a TLS handshake to a port that has no TLS (tls)";
                    return Err(Rejected::new(LogCategory::Tls, why));
                }
                Ok(Err(Failure::Refused(refusal))) => return Err(refuse(stream, refusal, None).await),
                // it has got what it wanted, and has not closed the connection
                Err(_) if answered > 0 && ahead.is_empty() => return Ok(None),
                Err(_) => {
                    let seconds = self.timeout.as_secs_f64();
                    let why = format!("no complete HTTP request in time (timeout_seconds is {seconds})");
                    let refusal = Refusal::new(Status::Timeout, why);
                    let rejected = refuse(stream, refusal, None).await;
                    return Err(Rejected { category: LogCategory::Late, ..rejected });
                }
            };
            match request {
                Request::Upgrade(request) => break request,
                Request::File(request) => {
                    answered += 1;
                    let closes = request.closes || answered >= MAX_FILE_REQUESTS;
                    if !self.answer(&mut stream, &request, closes).await {
                        return Ok(None);
                    }
                }
            }
        };
        // has sent nothing useful so far
        permit.mark_active();
        if self.tls.is_none() {
            // else it has waited before its TLS handshake
            permit.wait_for_turn().await;
        }
        let peer = Peer {
            address,
            is_secure: self.tls.is_some(),
            has_certificate: certificate.is_some(),
            has_access_rules: self.host.has_access_rules(),
        };
        let client = match self.rules.check(&request, &peer) {
            Ok(client) => client,
            Err(refusal) => return Err(refuse(stream, refusal, None).await),
        };
        let admission = match self.rules.admit(&request, &peer, client) {
            Ok(admission) => admission,
            Err(refusal) => return Err(refuse(stream, refusal, Some(client)).await),
        };
        let protocol = request.protocols.iter().any(|name| name == PROTOCOL).then_some(PROTOCOL);
        let response = switching(&request.key, protocol);
        if !matches!(timeout(self.timeout, send(&mut stream, response.as_bytes())).await, Ok(Ok(()))) {
            return Ok(None);
        }
        Ok(Some(Opened { stream, ahead, client, admission, certificate }))
    }

    /// Answers a request for a file. Returns whether the client can send another one.
    async fn answer(&self, stream: &mut Box<dyn Duplex>, request: &FileRequest, closes: bool) -> bool {
        let Some(response) = self.files.respond(request, closes) else {
            // browsers and search engines ask for files of their own accord, so it is not worth a warning
            let path: String = request.path.chars().take(64).collect();
            tracing::debug!(path, "no such file");
            let refusal = Refusal::new(Status::NotFound, "there is no such file".to_owned());
            refuse(stream, refusal, None).await;
            return false;
        };
        let parts = std::iter::once(response.head.as_bytes()).chain(response.content.chunks(WRITE_BYTES));
        for part in parts {
            if !matches!(timeout(self.timeout, send(stream, part)).await, Ok(Ok(()))) {
                return false;
            }
        }
        if closes {
            end_gently(stream).await;
        }
        !closes
    }
}

async fn send(stream: &mut (impl AsyncWrite + Unpin), bytes: &[u8]) -> io::Result<()> {
    stream.write_all(bytes).await?;
    stream.flush().await
}

/// Answers a refused request.
async fn refuse(mut stream: impl Duplex, refusal: Refusal, client: Option<SocketAddr>) -> Rejected {
    if let Ok(Ok(())) = timeout(LINGER, send(&mut stream, refusal.response().as_bytes())).await {
        end_gently(&mut stream).await;
    }
    Rejected { category: LogCategory::Refused, why: format!("HTTP request refused: {}", refusal.why), client }
}

/// Ends a connection, and reads for a moment: unread bytes would turn the end into a reset, which can
/// overtake the answer.
async fn end_gently(stream: &mut impl Duplex) {
    let end = async {
        stream.shutdown().await?;
        let mut forgotten = [0; 1024];
        while stream.read(&mut forgotten).await? > 0 {}
        Ok::<(), io::Error>(())
    };
    let _ = timeout(LINGER, end).await; // whichever comes first
}
