//! Rules for client certificates, revoked and expired certificates, and keys that other users can read.

use super::*;

#[test]
fn rules_bind_client_names_to_certificate_names() {
    let plant = Plant::new(
        "",
        "client_ca = 'ca.pem'\n[[plugin]]\nname = 'access'\nlibrary = 'elbus_acl'\n[plugin.config]\ndefault = 'allow'\n\
         [[plugin.config.client]]\nname = 'plc.*'\nwho = [{ certificate = 'cn:{name}' }]\n\
         [[plugin.config.client]]\nname = 'hmi.*'\nwho = [{ certificate = '*.panels.plant' }]\n\
         [[plugin.config.client]]\nname = 'dns.*'\nwho = [{ certificate = 'dns:*.panels.plant' }]\n\
         [[plugin.config.client]]\nname = 'uri.*'\nwho = [{ certificate = 'uri:*.panels.plant' }]\n\
         [[plugin.config.client]]\nname = 'any.*'\nwho = [{ certificate = 'plc.1' }]",
    );
    let names = vec![SanType::DnsName("a.panels.plant".try_into().unwrap())];
    plant.authority.issue(plant.daemon.folder.path(), "plc.1", "plc.1", names);
    let certified = || plant.config().identity(plant.path("plc.1.pem"), plant.path("plc.1.key"));
    let connect = |name: &str| {
        Client::builder(name)
            .tls(certified())
            .timeout(PATIENCE)
            .connect(plant.address())
            .map(|(client, _)| client)
    };
    for name in ["plc.1", "hmi.5", "dns.1", "other"] {
        connect(name).unwrap();
    }
    // the certificate has other names, so its common name counts only if a rule specifies `cn:`
    for name in ["plc.2", "uri.1", "any.1"] {
        let refused = connect(name).unwrap_err();
        assert!(matches!(refused, Error::AccessDenied { .. }), "{name} {refused:?}");
    }
    plant.daemon.wait_for_log("client does not match `who` of [[client]] \"plc.*\" (broker.toml:");
}

#[test]
fn clients_of_a_revoked_authority_are_disconnected_by_a_reload() {
    let plant = Plant::new("", "client_ca = 'ca.pem'");
    let (folder, revoked) = (plant.daemon.folder.path(), Authority::new());
    let both = [plant.authority.pem(), revoked.pem()].concat();
    std::fs::write(plant.path("ca.pem"), both).unwrap();
    let mut witness = Wire::connect(&plant.daemon, &plant.daemon.address(), "witness");
    let refreshed = |witness: &mut Wire| {
        let answer = witness.control("config.reload", &[]).unwrap();
        assert_eq!(support::field(&answer, "errors").as_array().unwrap().len(), 0, "{answer}");
        let names = support::field(&answer, "refreshed").as_array().unwrap().clone();
        assert!(names.iter().any(|name| name.as_str() == Some("network")), "{names:?}");
    };
    refreshed(&mut witness);
    plant.authority.issue(folder, "good", "good", vec![]);
    revoked.issue(folder, "bad", "bad", vec![]);
    let connect = |name: &str| {
        let (certificate, key) = (plant.path(&format!("{name}.pem")), plant.path(&format!("{name}.key")));
        plant.builder(name).tls(plant.config().identity(certificate, key)).connect(plant.address())
    };
    let (good, mut to_good) = connect("good").unwrap();
    let (bad, _frames) = connect("bad").unwrap();
    refreshed(&mut witness);
    assert!(good.is_connected() && bad.is_connected(), "both certificates are valid");

    std::fs::write(plant.path("ca.pem"), plant.authority.pem()).unwrap();
    refreshed(&mut witness);
    wait_until("the client with the revoked certificate is disconnected", || !bad.is_connected());
    plant.daemon.wait_for_log("the client certificate is no longer valid: ");
    wait_until("its name is free", || witness.send("bad", b"") == 0x71);
    assert!(matches!(connect("bad").err().unwrap(), Error::Tls { .. }));
    assert_eq!(witness.send("good", b"still here"), 0x01);
    assert_eq!(to_good.next_timeout(PATIENCE).unwrap().payload(), b"still here");
}

#[test]
fn expired_certificates_and_readable_keys_are_reported() {
    use std::{fs::Permissions, os::unix::fs::PermissionsExt};
    let (folder, authority) = (folder(), Authority::new());
    authority.issue_for(folder.path(), "broker", "broker", vec![], 1975..2000);
    let key = folder.path().join("broker.key");
    std::fs::set_permissions(&key, Permissions::from_mode(0o640)).unwrap();
    let daemon = start(folder.clone(), "127.0.0.1:0", "", "");
    let expired =
        "tls.certificate: the certificate of \"CN=broker\" in \"broker.pem\" has expired: it was valid until";
    let open = "tls.key: \"broker.key\" is accessible to its group (mode 0640)";
    for text in [expired, open] {
        daemon.wait_for_log(text);
    }
    let check = || support::daemon::run_to_end(folder.path(), &["--config", "broker.toml", "--check"]);
    let checked = check();
    assert!(checked.status.success() && checked.stderr.contains(expired), "{}", checked.stderr);
    assert!(checked.stderr.contains(open), "{}", checked.stderr);

    authority.issue_for(folder.path(), "broker", "broker", vec![], 3000..4000);
    std::fs::set_permissions(&key, Permissions::from_mode(0o644)).unwrap();
    let mut witness = Wire::connect(&daemon, &daemon.address(), "witness");
    witness.control("config.reload", &[]).unwrap();
    daemon.wait_for_log("in \"broker.pem\" is not valid yet: it will be valid from");
    daemon.wait_for_log("tls.key: \"broker.key\" is accessible to all users (mode 0644)");

    authority.issue(folder.path(), "broker", "broker", vec![]);
    std::fs::set_permissions(&key, Permissions::from_mode(0o600)).unwrap();
    let checked = check();
    assert!(checked.status.success() && !checked.stderr.contains("WARN"), "{}", checked.stderr);
}
