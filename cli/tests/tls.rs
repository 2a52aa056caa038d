//! Connections with TLS.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use elbus_broker::PluginDeclaration;
use elbus_testing::authority::Authority;
use support::Bus;

#[test]
fn tls_connections_use_certificate_files_and_report_their_errors() {
    let (mut bus, authority) = (Bus::without_broker(), Authority::new());
    authority.write(&bus.path("ca.pem"));
    authority.issue(bus.folder.path(), "broker", "broker", vec![]);
    authority.issue(bus.folder.path(), "me", "plc-1", vec![]);
    let file = |name: &str| toml::Value::from(bus.path(name).to_str().unwrap());
    let files = [("certificate", "broker.pem"), ("key", "broker.key"), ("client_ca", "ca.pem")];
    let table: toml::Table = files.map(|(key, name)| (key.to_owned(), file(name))).into_iter().collect();
    bus.start_with(|builder| {
        let tcp = PluginDeclaration::linked("tls", elbus_tcp::plugin()).set("bind", "127.0.0.1:0");
        builder.plugin(tcp.set("tls", table)).plugin(PluginDeclaration::linked("rpc", elbus_rpc::plugin()))
    });
    let address = bus.address_of("tls:");
    let under_tls = ["--addr", &format!("tls://{address}"), "--tls-ca", "ca.pem"];
    let me = ["--tls-cert", "me.pem", "--tls-key", "me.key", "--name", "plc"];

    let info = bus.output(&[&under_tls[..], &me, &["client", "info", "plc"]].concat());
    assert!(info.contains("tls") && info.contains("plc-1"), "{info}");
    // an authority implies TLS, also without tls:// in the address
    let test = [&["--addr", &address, "--tls-ca", "ca.pem"][..], &me, &["broker", "test"]].concat();
    bus.output(&test);

    let refused = bus.failure(1, &[&under_tls[..], &["broker", "test"]].concat());
    assert!(refused.contains(&format!("TLS connection to tls://{address} failed")), "{refused}");
    let other = bus.failure(1, &[&under_tls[..], &me, &["--tls-name", "other", "broker", "test"]].concat());
    assert!(other.contains("not valid for name"), "{other}");
    let half = bus.failure(2, &[&under_tls[..], &["--tls-cert", "me.pem", "broker", "test"]].concat());
    assert!(half.contains("--tls-cert requires --tls-key"), "{half}");
    let none = bus.failure(1, &[&under_tls[..2], &["--tls-ca", "nowhere.pem", "broker", "test"]].concat());
    assert!(none.contains("cannot read \"nowhere.pem\""), "{none}");
}
