//! The server of an instance: its configuration, its addresses and its tokens, from `create` to `stop`. Owns
//! the order of these; `elbus-network` binds the addresses, `elbus-stream` handles the connections.

use elbus_network::{Addresses, SocketOptions, Tls};
use elbus_plugin_api::{Config, Figure, Host, Locality, PluginError, Status};
use elbus_stream::{Server, StreamSettings};
use parking_lot::{Mutex, RwLock};
use std::{path::PathBuf, sync::Arc, time::Duration};

use crate::{
    admission::AdmissionRules,
    connections::Connections,
    files::StaticFiles,
    service::{HttpTransport, Service},
    settings::{Keys, check_path},
    tokens::{StartToken, Tokens},
};

/// Serves WebSocket connections at one path, and files beside it. Its methods are the callbacks of a plugin
/// and can block, except [`status`](HttpServer::status).
pub struct HttpServer {
    addresses: Addresses,
    tokens_file: Option<PathBuf>,
    /// The token of this start, until it is logged.
    start_token: Mutex<Option<String>>,
    settings: StreamSettings,
    service: Arc<Service>,
    /// `Some` from `start` to `stop`. Not locked during calls of the server that block.
    running: Mutex<Option<Server>>,
}

impl HttpServer {
    /// Reads the keys of the server: `bind`, `allowed_origins`, `trusted_proxies`, `tokens_file`,
    /// `token_cookie`, `token_in_query`, `no_delay`, `keep_alive_seconds`, the table `tls`, and those of
    /// every stream transport. `path` is that of the WebSocket. Without `files`, it serves nothing else.
    /// Clients that connect directly from this machine with the token of the start count as running at
    /// `start_locality`: with [`Locality::SameHost`], they can administer.
    ///
    /// # Errors
    /// What is wrong with the configuration, with the key it is about; or a file that it names cannot be
    /// read.
    pub fn create(
        host: Host,
        config: &Config,
        path: String,
        files: StaticFiles,
        start_locality: Locality,
    ) -> Result<Self, PluginError> {
        let keys: Keys = config.read()?;
        let (origins, proxies) = keys.check()?;
        check_path(&path)?;
        let socket: SocketOptions = config.read()?;
        socket.check()?;
        let settings: StreamSettings = config.read()?;
        settings.check()?;
        let names = keys.names();
        let Keys { bind, tokens_file, token_cookie, token_in_query, tls, .. } = keys;
        let tls = tls.map(|keys| Tls::new(keys, settings.timeout())).transpose()?;
        let tokens = tokens_file.as_deref().map(Tokens::read).transpose()?;
        let start_token = if tokens.is_none() { Some(StartToken::new()?) } else { None };
        let (start_token, text) = start_token.unzip();
        let rules = AdmissionRules {
            path,
            origins,
            proxies,
            names,
            cookie: token_cookie,
            token_in_query,
            tokens: tokens.map(|tokens| RwLock::new(Arc::new(tokens))),
            start_token,
            start_locality,
        };
        let (connections, timeout) = (Connections::default(), settings.timeout());
        let service = Arc::new(Service { host, socket, tls, rules, files, connections, timeout });
        Ok(HttpServer {
            addresses: bind,
            tokens_file,
            start_token: Mutex::new(text),
            settings,
            service,
            running: Mutex::new(None),
        })
    }

    /// Binds the addresses. Accepts no connection yet.
    ///
    /// # Errors
    /// An address cannot be bound, or the runtime cannot be created.
    pub fn start(&self) -> Result<(), PluginError> {
        // an address such as ws://127.0.0.1:8080/bus, which clients can use, or that of the first file
        let (scheme, path) = match (self.serves_files(), self.service.tls.is_some()) {
            (false, false) => ("ws", &*self.service.rules.path),
            (false, true) => ("wss", &*self.service.rules.path),
            (true, false) => ("http", "/"),
            (true, true) => ("https", "/"),
        };
        let mut listeners = self.addresses.bind(&self.service.host, scheme)?;
        for listener in &mut listeners {
            let (scheme, address) = listener.address.split_once(':').unwrap_or((scheme, &listener.address));
            listener.address = format!("{scheme}://{address}{path}");
        }
        let transport = HttpTransport(self.service.clone());
        let server = Server::start(self.service.host.clone(), self.settings.clone(), transport, listeners)?;
        *self.running.lock() = Some(server);
        Ok(())
    }

    /// Begins to accept connections. Logs the token of this start if clients need it.
    pub fn serve(&self) {
        let running = self.running.lock();
        let Some(server) = &*running else { return };
        server.serve();
        // access rules are set by now, if there are any
        self.log_start_token(server);
    }

    /// Reads the tokens, certificates and keys again. Disconnects clients that are no longer admitted. If a
    /// file is invalid, the previous one stays in use.
    ///
    /// # Errors
    /// A file that cannot be read, with the key that names it.
    pub fn refresh(&self) -> Result<(), PluginError> {
        let service = &self.service;
        let tokens = self.tokens_file.as_deref().map(Tokens::read).transpose();
        if let (Ok(Some(new)), Some(tokens)) = (&tokens, &service.rules.tokens) {
            *tokens.write() = Arc::new(new.clone());
        }
        let has_access_rules = service.host.has_access_rules();
        let ended = service.connections.close_unless(|it| service.rules.still_admits(it, has_access_rules));
        if ended > 0 {
            tracing::warn!(disconnected = ended, "clients that are no longer admitted were disconnected");
        }
        if let Some(server) = &*self.running.lock() {
            self.log_start_token(server);
        }
        let refreshed = service.tls.as_ref().map_or(Ok(()), Tls::refresh);
        tokens.and(refreshed)
    }

    /// Stops accepting, and closes all connections until `deadline` has passed.
    pub fn stop(&self, deadline: Duration) {
        let running = self.running.lock().take();
        if let Some(server) = running {
            server.stop(deadline);
        }
    }

    /// Returns the counters and gauges of its connections. Does not block.
    pub fn figures(&self) -> Vec<Figure> {
        self.running.lock().as_ref().map(Server::figures).unwrap_or_default()
    }

    /// Returns the addresses and counters. Does not block.
    pub fn status(&self) -> Status {
        let mut status = self.running.lock().as_ref().map(Server::status).unwrap_or_default();
        if let Some(tokens) = &self.service.rules.tokens {
            status.detail = format!("{}, {} tokens", status.detail, tokens.read().len());
        }
        status
    }

    fn serves_files(&self) -> bool {
        !self.service.files.is_empty()
    }

    /// Logs the token of this start, once it is needed: not while there are access rules.
    fn log_start_token(&self, server: &Server) {
        if self.service.host.has_access_rules() {
            return;
        }
        let start_token = self.start_token.lock().take();
        if let Some(token) = start_token {
            let addresses = server.status().addresses;
            let address = addresses.first().map_or("", String::as_str);
            // a browser sends what follows # to nobody
            let separator = if self.serves_files() { '#' } else { '?' };
            tracing::warn!(
                url = format!("{address}{separator}token={token}"),
                "no tokens_file and no access rules: only local clients with this token are served, until the next \
                 start"
            );
        }
    }
}
