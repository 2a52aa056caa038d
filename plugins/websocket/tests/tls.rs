//! WebSocket under TLS: certificates of clients, pages, and what is no TLS.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use elbus_plugin_api::testing::{FakeHost, FakeInstance};
use elbus_testing::{
    authority::Authority,
    stream::LONG,
    websocket::{frame, request},
};
use elbus_tls::{ClientFiles, dial};
use elbus_websocket::{WebSocket, make_token};
use std::{fs, os::unix::fs::PermissionsExt, path::Path};
use tempfile::TempDir;
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::TcpStream,
    runtime::Runtime,
};

struct Plant {
    folder: TempDir,
    authority: Authority,
    fake: FakeHost,
    instance: FakeInstance,
    runtime: Runtime,
}

/// A connection as a client sees it.
trait Stream: AsyncRead + AsyncWrite + Unpin {}
impl<S: AsyncRead + AsyncWrite + Unpin> Stream for S {}

impl Plant {
    fn new(settings: &str, tls: &str) -> Self {
        let (folder, authority) = (tempfile::tempdir().unwrap(), Authority::new());
        let path = folder.path();
        authority.write(&path.join("ca.pem"));
        authority.issue(path, "broker", "broker", vec![]);
        authority.issue(path, "plc", "plc", vec![]);
        let at = |file: &str| path.join(file).display().to_string();
        let fake = FakeHost::new();
        let config = format!(
            "bind = '127.0.0.1:0'\n{settings}\n[tls]\ncertificate = '{}'\nkey = '{}'\nclient_ca = '{}'\n{tls}",
            at("broker.pem"),
            at("broker.key"),
            at("ca.pem")
        );
        let instance = fake.create::<WebSocket>("web", &config.replace("FOLDER", &at(""))).unwrap();
        instance.start().unwrap();
        instance.serve();
        Plant { folder, authority, fake, instance, runtime: Runtime::new().unwrap() }
    }

    fn address(&self) -> String {
        let address = self.instance.status().addresses[0].clone();
        address.strip_prefix("wss://").unwrap().trim_end_matches('/').to_owned()
    }

    /// Sends a request under TLS; returns the connection and the response.
    fn ask(&self, identity: Option<&str>, fields: &str) -> (Box<dyn Stream>, String) {
        let at = |file: String| self.folder.path().join(file);
        let identity = identity.map(|name| (at(format!("{name}.pem")), at(format!("{name}.key"))));
        let files = ClientFiles { roots: Some(at("ca.pem".into())), identity };
        self.runtime.block_on(async {
            let stream = TcpStream::connect(self.address()).await.unwrap();
            let mut stream = dial(&files.load().unwrap(), "127.0.0.1", stream).await.unwrap();
            stream.write_all(request("/", "127.0.0.1", fields).as_bytes()).await.unwrap();
            let mut response = vec![];
            while !response.ends_with(b"\r\n\r\n") {
                response.push(stream.read_u8().await.unwrap());
            }
            (Box::new(stream) as Box<dyn Stream>, String::from_utf8(response).unwrap())
        })
    }

    /// Registers under a name; the frames of the broker are short.
    fn register(&self, stream: &mut dyn Stream, name: &str) {
        self.runtime.block_on(async {
            let wire = [&b"\xEB\x01\x00"[..], &(name.len() as u16).to_le_bytes(), name.as_bytes()].concat();
            stream.write_all(&frame(0x82, &wire)).await.unwrap();
            let (mut received, mut expected) = (vec![], b"\xEB\x01\x00\x01\x01".to_vec());
            while received.len() < expected.len() {
                assert_eq!(stream.read_u8().await.unwrap(), 0x82);
                for _ in 0..stream.read_u8().await.unwrap() {
                    received.push(stream.read_u8().await.unwrap());
                }
            }
            expected.truncate(received.len());
            assert_eq!(received, expected);
        });
    }

    /// Reads until the broker ends the connection; returns the code of its close frame.
    fn close_code(&self, stream: &mut dyn Stream) -> u16 {
        self.runtime.block_on(async {
            let mut rest = vec![];
            let _ = tokio::time::timeout(LONG, stream.read_to_end(&mut rest)).await.unwrap();
            let at = rest.iter().position(|byte| *byte == 0x88).unwrap();
            u16::from_be_bytes([rest[at + 2], rest[at + 3]])
        })
    }
}

fn write_tokens(folder: &Path, line: &str) {
    let path = folder.join("tokens");
    fs::write(&path, line).unwrap();
    fs::set_permissions(&path, PermissionsExt::from_mode(0o640)).unwrap();
}

#[test]
fn a_certificate_admits_without_a_token_and_ends_with_its_authority() {
    let plant = Plant::new("", "client_certificates = 'optional'");
    let (mut stream, response) = plant.ask(Some("plc"), "");
    assert!(response.starts_with("HTTP/1.1 101 "), "{response}");
    plant.register(&mut stream, "plc");
    let info = plant.fake.client_info("plc").unwrap();
    assert_eq!((info.kind.as_str(), &info.certificate_names[..]), ("websocket", &["cn:plc".to_owned()][..]));
    // without a certificate it is a local client as any other, and needs the token of the start
    assert!(plant.ask(None, "").1.starts_with("HTTP/1.1 401 "));
    // a browser sends the certificate for every page
    let evil = plant.ask(Some("plc"), "Origin: https://evil.example\r\n").1;
    assert!(evil.starts_with("HTTP/1.1 403 "), "{evil}");
    let insecure = plant.ask(Some("plc"), "Origin: http://127.0.0.1\r\n").1;
    assert!(insecure.starts_with("HTTP/1.1 403 "), "a page without TLS: {insecure}");
    assert!(plant.ask(Some("plc"), "Origin: https://127.0.0.1\r\n").1.starts_with("HTTP/1.1 101 "));

    Authority::new().write(&plant.folder.path().join("ca.pem"));
    plant.instance.refresh().unwrap();
    assert_eq!(plant.close_code(&mut stream), 1008);
    assert!(plant.fake.wait_until(LONG, |fake| fake.clients().is_empty()));
    plant.authority.write(&plant.folder.path().join("ca.pem"));
    plant.instance.refresh().unwrap();
    assert!(plant.ask(Some("plc"), "").1.starts_with("HTTP/1.1 101 "));
}

#[test]
fn with_tokens_a_client_has_a_certificate_or_a_token_or_both() {
    let made = make_token("panel").unwrap();
    let folder = tempfile::tempdir().unwrap();
    write_tokens(folder.path(), &made.line);
    let settings = format!("tokens_file = '{}'", folder.path().join("tokens").display());
    let plant = Plant::new(&settings, "client_certificates = 'optional'");
    let with_token = format!("Authorization: Bearer {}\r\n", made.token);
    for (identity, fields, status) in [
        (None, "", "401"),
        (None, &*with_token, "101"),
        (Some("plc"), "", "101"),
        (Some("plc"), "Authorization: Bearer elbus_x\r\n", "401"),
    ] {
        let response = plant.ask(identity, fields).1;
        assert!(response.starts_with(&format!("HTTP/1.1 {status} ")), "{identity:?} {fields}: {response}");
    }
    let (mut stream, _) = plant.ask(Some("plc"), &with_token);
    plant.register(&mut stream, "both");
    let info = plant.fake.client_info("both").unwrap();
    assert_eq!((info.token.as_deref(), info.certificate_names.len()), (Some("panel"), 1));
    write_tokens(folder.path(), "");
    plant.instance.refresh().unwrap();
    assert_eq!(plant.close_code(&mut stream), 1008, "both are needed as long as it is connected");
}

#[test]
fn a_plain_request_at_a_tls_port_ends_and_is_counted() {
    let plant = Plant::new("timeout_seconds = 0.5", "");
    plant.runtime.block_on(async {
        for wire in [request("/", "a", ""), "\u{16}\u{3}\u{1}\u{2}".to_owned(), String::new()] {
            let mut stream = TcpStream::connect(plant.address()).await.unwrap();
            stream.write_all(wire.as_bytes()).await.unwrap();
            let mut rest = vec![];
            // unread bytes can turn the end into a reset
            let _ = tokio::time::timeout(LONG, stream.read_to_end(&mut rest)).await.unwrap();
            assert!(!rest.starts_with(b"HTTP"), "{rest:?}");
        }
    });
    assert!(
        plant.fake.wait_until(LONG, |_| plant.instance.status().detail.ends_with(" 3 connections refused"))
    );
}
