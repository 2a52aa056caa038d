//! Requests to the HTTP server of the plugin `metrics`, and the samples in its answers.

use std::{
    collections::BTreeMap,
    io::{Read, Write},
    net::TcpStream,
};

use super::{PATIENCE, daemon::Daemon};

/// An answer.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) head: String,
    pub(crate) body: String,
}

/// The samples of a scrape: values by name and labels, such as
/// `elbus_clients{plugin="local",kind="primary"}`.
#[derive(Debug)]
pub(crate) struct Samples(pub(crate) BTreeMap<String, f64>);

/// Returns the host and port of the server.
pub(crate) fn address(daemon: &Daemon) -> String {
    daemon.address_of("http://").strip_suffix("/metrics").unwrap().to_owned()
}

/// Opens a connection to the server.
pub(crate) fn connect(daemon: &Daemon) -> TcpStream {
    let stream = TcpStream::connect(address(daemon)).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.set_write_timeout(Some(PATIENCE)).unwrap();
    stream
}

/// Sends a request and reads the answer to the end of the connection.
pub(crate) fn exchange(mut stream: impl Read + Write, request: &str) -> Answer {
    stream.write_all(request.as_bytes()).unwrap();
    let mut bytes = Vec::new();
    stream.read_to_end(&mut bytes).unwrap();
    let text = String::from_utf8(bytes).unwrap();
    let (head, body) = text.split_once("\r\n\r\n").unwrap_or_else(|| panic!("{text:?}"));
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    Answer { status, head: head.to_owned(), body: body.to_owned() }
}

/// Requests a path.
pub(crate) fn get(daemon: &Daemon, path: &str) -> Answer {
    exchange(connect(daemon), &format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n"))
}

/// Returns the text of a scrape.
pub(crate) fn scrape_text(daemon: &Daemon) -> String {
    let answer = get(daemon, "/metrics");
    assert_eq!(answer.status, 200, "{answer:?}");
    answer.body
}

/// Returns the samples of a scrape.
pub(crate) fn scrape(daemon: &Daemon) -> Samples {
    let text = scrape_text(daemon);
    let lines = text.lines().filter(|line| !line.starts_with('#'));
    Samples(
        lines.map(|line| line.rsplit_once(' ').unwrap()).map(|(k, v)| (k.to_owned(), number(v))).collect(),
    )
}

fn number(text: &str) -> f64 {
    text.parse().unwrap_or_else(|error| panic!("{text:?}: {error}"))
}

impl Samples {
    /// Returns the value of a sample, 0 if there is none.
    pub(crate) fn value(&self, name: &str) -> f64 {
        self.0.get(name).copied().unwrap_or_default()
    }

    /// Returns the values of all samples of a name, by their labels.
    pub(crate) fn of<'s>(&'s self, name: &'s str) -> impl Iterator<Item = (&'s str, f64)> {
        let labels = move |key: &'s str| key.strip_prefix(name).filter(|labels| labels.starts_with('{'));
        self.0.iter().filter_map(move |(key, value)| Some((labels(key)?, *value)))
    }
}
