//! A broker with the plugin `web`: HTTP requests to its port, and calls of its methods.

use elbus_testing::websocket::ask;
use rmpv::Value;
use std::{io::Read, net::TcpStream};

use super::{
    PATIENCE,
    daemon::{Daemon, folder},
    field,
    wire::Wire,
};

/// Starts a broker with the page and a UNIX socket. Returns it and the page's `host:port`.
pub(crate) fn start(web: &str) -> (Daemon, String) {
    let daemon = Daemon::start_in(folder(), &["--web", web, "--bind", "./bus.sock", "--workers", "2"]);
    let host = host_of(&daemon);
    (daemon, host)
}

pub(crate) fn host_of(daemon: &Daemon) -> String {
    daemon.address_of("http:").trim_matches('/').to_owned()
}

/// Returns the token of this start, which the log has as part of the page's address.
pub(crate) fn start_token(daemon: &Daemon) -> String {
    daemon.wait_for_log("/#token=");
    let log = daemon.log();
    let at = log.find("/#token=").unwrap() + "/#token=".len();
    log[at..].split('"').next().unwrap().to_owned()
}

pub(crate) fn connect(host: &str) -> TcpStream {
    let socket = TcpStream::connect(host).unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    socket
}

/// A response over a connection that can stay open.
pub(crate) struct Response {
    pub(crate) status: u16,
    pub(crate) head: String,
    pub(crate) body: Vec<u8>,
}

pub(crate) fn get_over(socket: &mut TcpStream, method: &str, path: &str, fields: &str) -> Response {
    let head = ask(socket, &format!("{method} {path} HTTP/1.1\r\nHost: a\r\n{fields}\r\n")).unwrap();
    let status = head.split(' ').nth(1).and_then(|text| text.parse().ok()).unwrap_or(0);
    let length = head.split("Content-Length: ").nth(1).and_then(|rest| rest.split("\r\n").next());
    let length = length.filter(|_| method == "GET").map_or(0, |text| text.parse().unwrap());
    let mut body = vec![0; length];
    socket.read_exact(&mut body).unwrap();
    Response { status, head, body }
}

pub(crate) fn get(host: &str, path: &str, fields: &str) -> Response {
    get_over(&mut connect(host), "GET", path, fields)
}

/// Calls a method of the plugin with `{after: N}`.
pub(crate) fn ask_web(client: &mut Wire, method: &str, after: u64) -> Value {
    let mut params = Vec::new();
    rmpv::encode::write_value(&mut params, &Value::Map(vec![("after".into(), after.into())])).unwrap();
    let result = client.call(".broker", method, &params).unwrap();
    rmpv::decode::read_value(&mut &result[..]).unwrap()
}

pub(crate) fn array<'v>(map: &'v Value, key: &str) -> &'v [Value] {
    field(map, key).as_array().unwrap()
}
