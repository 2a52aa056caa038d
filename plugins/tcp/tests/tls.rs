//! The table `tls`: its errors, and certificates that are read again while connections continue.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use elbus_plugin_api::{Config, Plugin, testing::FakeHost};
use elbus_tcp::Tcp;
use elbus_testing::authority::Authority;
use elbus_tls::{ClientFiles, dial};
use std::{
    fs,
    path::Path,
    time::{Duration, Instant},
};
use tempfile::TempDir;
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::TcpStream,
    runtime::Runtime,
};

fn folder() -> (TempDir, Authority) {
    let (folder, authority) = (tempfile::tempdir().unwrap(), Authority::new());
    authority.write(&folder.path().join("ca.pem"));
    authority.issue(folder.path(), "broker", "broker", vec![]);
    (folder, authority)
}

fn table(folder: &Path, more: &str) -> String {
    let at = |file: &str| folder.join(file).display().to_string();
    format!(
        "bind = '127.0.0.1:0'\n[tls]\ncertificate = '{}'\nkey = '{}'\n{more}",
        at("broker.pem"),
        at("broker.key")
    )
}

fn error(text: &str) -> String {
    FakeHost::new().create::<Tcp>("network", text).err().unwrap().to_string()
}

#[test]
fn errors_name_key_and_file() {
    let (folder, authority) = folder();
    let path = folder.path();
    let good = table(path, "");
    assert!(FakeHost::new().create::<Tcp>("network", &good).is_ok());

    let missing = error(&good.replace("broker.pem", "nowhere.pem"));
    assert!(missing.starts_with("tls.certificate: cannot read \"/"), "{missing}");
    assert!(missing.contains("nowhere.pem\": No such file"), "{missing}");
    let none = error(&good.replace("broker.pem", "broker.key"));
    assert!(
        none.starts_with("tls.certificate: ") && none.ends_with("contains no certificate in PEM form"),
        "{none}"
    );
    let no_key = error(&good.replace("broker.key", "broker.pem"));
    assert!(
        no_key.starts_with("tls.key: ") && no_key.ends_with("contains no private key in PEM form"),
        "{no_key}"
    );
    authority.issue(path, "other", "other", vec![]);
    let foreign = error(&good.replace("broker.key", "other.key"));
    assert!(
        foreign.starts_with("tls.key: ") && foreign.contains("other.key\" is not the key of"),
        "{foreign}"
    );
    fs::write(path.join("broken.pem"), "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n")
        .unwrap();
    let broken = error(&good.replace("broker.pem", "broken.pem"));
    assert!(broken.starts_with("tls.certificate: ") && broken.contains("broken.pem"), "{broken}");

    let no_ca = error(&table(path, "client_certificates = 'optional'"));
    assert!(no_ca.starts_with("tls.client_ca: missing key"), "{no_ca}");
    let empty = error(&table(path, &format!("client_ca = '{}'", path.join("broker.key").display())));
    assert!(empty.starts_with("tls.client_ca: ") && empty.contains("no certificate"), "{empty}");
    assert!(error(&table(path, "client_certificates = 'maybe'")).starts_with("tls.client_certificates: "));
    assert!(error(&table(path, "max_handshakes = 0")).starts_with("tls.max_handshakes: "));
    assert!(error(&table(path, "cipher = 'x'")).contains("unknown field `cipher`"));
}

trait Both: AsyncRead + AsyncWrite + Unpin {}
impl<S: AsyncRead + AsyncWrite + Unpin> Both for S {}

/// Connects and registers a client that trusts this authority, or returns the error.
async fn connect(address: &str, ca: &Path, name: &str) -> Result<impl Both + use<>, String> {
    let dialer = ClientFiles { roots: Some(ca.to_owned()), identity: None }.load().unwrap();
    let stream = TcpStream::connect(address.strip_prefix("tls:").unwrap()).await.unwrap();
    let mut stream = dial(&dialer, "127.0.0.1", stream).await.map_err(|error| error.to_string())?;
    let hello = [&[0xEB, 1, 0, name.len() as u8, 0][..], name.as_bytes()].concat();
    stream.write_all(&hello).await.unwrap();
    let mut answer = [0; 5];
    stream.read_exact(&mut answer).await.unwrap();
    assert_eq!(answer, [0xEB, 1, 0, 1, 1]);
    Ok(stream)
}

/// Sends an acknowledged message without a recipient.
async fn exchange(stream: &mut impl Both) {
    stream.write_all(&[7, 0, 0, 0, 0x52, 2, 0, 0, 0, b'x', 0]).await.unwrap();
    let mut ack = [0; 6];
    loop {
        stream.read_exact(&mut ack).await.unwrap();
        if ack[0] != 0 {
            assert_eq!(ack, [0xFE, 7, 0, 0, 0, 1]);
            return;
        }
    }
}

#[test]
fn new_certificates_apply_to_new_connections_and_invalid_ones_are_ignored() {
    let (folder, _authority) = folder();
    let path = folder.path();
    let fake = FakeHost::new();
    let config = Config::parse(&table(path, "")).unwrap();
    let plugin = Tcp::create(fake.host("network"), &config).unwrap();
    plugin.start().unwrap();
    plugin.serve();
    let address = plugin.status().addresses[0].clone();
    let first_ca = path.join("ca.pem");
    let runtime = Runtime::new().unwrap();
    runtime.block_on(async {
        let mut first = connect(&address, &first_ca, "first").await.unwrap();
        exchange(&mut first).await;

        fs::rename(path.join("broker.key"), path.join("away.key")).unwrap();
        let error = plugin.refresh().unwrap_err();
        assert_eq!(error.key, "tls.key");
        exchange(&mut connect(&address, &first_ca, "second").await.unwrap()).await;

        let (second_ca, authority) = (path.join("ca2.pem"), Authority::new());
        authority.write(&second_ca);
        authority.issue(path, "broker", "broker", vec![]);
        exchange(&mut connect(&address, &first_ca, "third").await.unwrap()).await;
        plugin.refresh().unwrap();
        let error = connect(&address, &first_ca, "fourth").await.err().unwrap();
        assert!(error.contains("invalid peer certificate"), "{error}");
        exchange(&mut connect(&address, &second_ca, "fifth").await.unwrap()).await;
        exchange(&mut first).await;
    });
    plugin.stop(Duration::from_secs(5));
    assert!(fake.failures().is_empty());
}

#[test]
fn client_certificates_are_verified_in_each_session() {
    let (folder, authority) = folder();
    let path = folder.path();
    authority.issue(path, "plc", "plc", vec![]);
    let identity = Some((path.join("plc.pem"), path.join("plc.key")));
    let client_ca = format!("client_ca = '{}'", path.join("ca.pem").display());
    let runtime = Runtime::new().unwrap();
    for (more, resumed) in [("", true), (&*client_ca, false)] {
        let fake = FakeHost::new();
        let instance = fake.create::<Tcp>("network", &table(path, more)).unwrap();
        instance.start().unwrap();
        instance.serve();
        let address = instance.status().addresses[0].clone();
        let dialer = ClientFiles { roots: Some(path.join("ca.pem")), identity: identity.clone() };
        let dialer = dialer.load().unwrap();
        let mut kinds = Vec::new();
        runtime.block_on(async {
            for _ in 0..2 {
                let stream = TcpStream::connect(address.strip_prefix("tls:").unwrap()).await.unwrap();
                let mut stream = dial(&dialer, "127.0.0.1", stream).await.unwrap();
                // after the session tickets that the server sends
                let mut greeting = [0; 3];
                stream.read_exact(&mut greeting).await.unwrap();
                kinds.push(format!("{:?}", stream.get_ref().1.handshake_kind().unwrap()));
            }
        });
        assert_eq!(kinds[1] == "Resumed", resumed, "{kinds:?}");
        instance.stop(Duration::from_secs(5));
    }
}

#[test]
fn the_oldest_handshake_is_evicted_for_a_new_one() {
    let (folder, _authority) = folder();
    let fake = FakeHost::new();
    let text = table(folder.path(), "max_handshakes = 1");
    let instance = fake.create::<Tcp>("network", &format!("timeout_seconds = 60\n{text}")).unwrap();
    instance.start().unwrap();
    instance.serve();
    let address = instance.status().addresses[0].clone();
    let runtime = Runtime::new().unwrap();
    runtime.block_on(async {
        let plain = || TcpStream::connect(address.strip_prefix("tls:").unwrap());
        // a silent connection takes no slot; one that has begun its handshake loses its slot to the next one
        let (mut silent, mut one) = (plain().await.unwrap(), plain().await.unwrap());
        one.write_all(&[0x16, 3, 1]).await.unwrap();
        let mut two = plain().await.unwrap();
        two.write_all(&[0x16, 3, 1]).await.unwrap();
        let (mut first, mut second, mut third) = ([0], [0], [0]);
        tokio::select! {
            // the order in which they reach the broker is random
            end = one.read(&mut first) => assert_eq!(end.unwrap_or(0), 0),
            end = two.read(&mut second) => assert_eq!(end.unwrap_or(0), 0),
            _ = silent.read(&mut third) => panic!("a silent connection is not evicted"),
        }
        let until = Instant::now() + Duration::from_secs(20);
        while !instance.status().detail.ends_with(" 1 connections refused") {
            assert!(Instant::now() < until, "{}", instance.status().detail);
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        connect(&address, &folder.path().join("ca.pem"), "a").await.unwrap();
    });
    instance.stop(Duration::from_secs(5));
    assert_eq!(fake.failures(), Vec::<String>::new());
}
