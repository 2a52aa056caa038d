//! The WebSocket transport of ELBUS: browsers, and clients behind HTTP proxies. The bytes of the protocol are
//! in binary messages, whose boundaries have no meaning.
//!
//! It owns the lifecycle of an instance; `elbus-http` has the HTTP request, the WebSocket frames, tokens, and
//! who may connect.
//!
//! ```toml
//! [[plugin]]
//! name = "web"
//! library = "elbus_websocket"
//! [plugin.config]
//! bind = "127.0.0.1:8080"                   # or several addresses; names are resolved
//! path = "/"                                # the default
//! allowed_origins = ["https://panel.plant"] # of pages, besides the same origin; or one text
//! trusted_proxies = ["127.0.0.1"]           # whose X-Forwarded-For is believed; or one text; default: none
//! tokens_file = "/etc/elbus/tokens"         # lines of `elbusd --make-token NAME`
//! token_cookie = "elbus_token"              # the default
//! token_in_query = false                    # the default
//! no_delay = true                           # the default
//! keep_alive_seconds = 60                   # the default; 0: off
//! [plugin.config.tls]                       # as of `elbus_tcp`; none: without TLS
//! certificate = "/etc/elbus/broker.pem"
//! key = "/etc/elbus/broker.key"
//! # and, in plugin.config, the keys of every stream transport, see `StreamSettings`
//! ```
//!
//! A client needs a token of the file or a verified certificate. Without `tokens_file`, access rules decide,
//! if the broker has any. Without both, only clients of this machine are served, with a token that is made at
//! each start and logged.
#![deny(unsafe_code)]

use elbus_http::{HttpServer, StaticFiles};
use elbus_plugin_api::{Config, Figure, Host, Locality, Plugin, PluginError, Status};
use serde::Deserialize;
use std::time::Duration;

pub use elbus_http::{NewToken, make_token};

/// The transport.
pub struct WebSocket(HttpServer);

/// The keys of the plugin itself.
#[derive(Deserialize)]
struct Keys {
    #[serde(default = "default_path")]
    path: String,
}

fn default_path() -> String {
    "/".to_owned()
}

impl Plugin for WebSocket {
    const ABOUT: &'static str = "browsers and clients behind HTTP proxies, over WebSocket";

    fn create(host: Host, config: &Config) -> Result<Self, PluginError> {
        let Keys { path } = config.read()?;
        // programs present the token of the start in an address, which they log and show
        let start = Locality::Remote;
        HttpServer::create(host, config, path, StaticFiles::default(), start).map(WebSocket)
    }

    fn start(&self) -> Result<(), PluginError> {
        self.0.start()
    }

    fn serve(&self) {
        self.0.serve();
    }

    fn refresh(&self) -> Result<(), PluginError> {
        self.0.refresh()
    }

    fn stop(&self, deadline: Duration) {
        self.0.stop(deadline);
    }

    fn figures(&self) -> Vec<Figure> {
        self.0.figures()
    }

    fn status(&self) -> Status {
        self.0.status()
    }
}

/// A separate module, since the macro's code contains unsafe attributes.
mod export {
    #![allow(unsafe_code)]
    elbus_plugin_api::export_plugin!(crate::WebSocket);
}
pub use export::plugin;
