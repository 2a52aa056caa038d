//! Authorisation of control calls by the calling registration and the rules in force; and system senders.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use elbus_broker::Broker;
use elbus_plugin_api::{
    Call, Client, ClientInfo, Code, Credentials, Locality, Op, Payload, Qos, Request,
    access::{AccessRules, ClientRules, Rule, Verdict},
};
use std::collections::BTreeMap;
use support::{Peer, broker};

fn rules(texts: &[&str]) -> Vec<Rule> {
    texts.iter().map(|text| text.parse().unwrap()).collect()
}

fn clients(name: &str) -> ClientRules {
    ClientRules { name: name.to_owned(), ..ClientRules::default() }
}

fn set(broker: &Broker, default: Verdict, clients: Vec<ClientRules>) {
    let rules = AccessRules { default, clients, user_names: vec![] };
    broker.host().set_access_rules(&rules).unwrap();
}

fn peer(broker: &Broker, name: &str, uid: u32) -> Peer {
    let credentials = Credentials { pid: 0, uid, gid: uid };
    let info = ClientInfo::new("", Locality::SameHost).with_credentials(credentials);
    Peer::of(broker, name, info).unwrap_or_else(|code| panic!("{name} refused: {code}"))
}

/// Kicks a client; authorises the call first, as for a queued call.
fn kick(broker: &Broker, caller: &str, caller_id: u64, target: &str) -> Result<Vec<u8>, i16> {
    let params = rmp_serde::to_vec_named(&BTreeMap::from([("name", target)])).unwrap();
    let call = Call { caller, caller_id, method: "client.kick", params: &params };
    let checked = broker.host().authorize(&call).map_err(|error| error.code);
    let called = broker.host().call(&call).map_err(|error| error.code);
    assert_eq!(checked.is_ok(), called.is_ok(), "{caller} {caller_id}: authorisation and call agree");
    called
}

#[test]
fn a_call_is_authorised_by_the_registration_and_not_by_the_name() {
    let denied = Err(Code::AccessDenied.rpc_code());
    let broker = broker();
    let target = peer(&broker, "target", 1);
    // without rules: a name that is not registered, a registration id of no client, one of a client that has
    // left
    assert_eq!(kick(&broker, "nobody", 0, "target"), denied);
    assert_eq!(kick(&broker, "nobody", 77, "target"), denied);
    let local = peer(&broker, "a", 1);
    assert_eq!(kick(&broker, "a", 0, "target"), denied);
    let previous = local.client.id();
    drop(local);
    assert_eq!(kick(&broker, "a", previous, "target"), denied);
    let remote = Peer::new(&broker, "a");
    assert_ne!(remote.client.id(), previous, "ids are never reused");
    assert_eq!(kick(&broker, "a", previous, "target"), denied, "the new owner of the name gives no rights");
    assert_eq!(kick(&broker, "a", remote.client.id(), "target"), denied, "remote");
    assert_eq!(
        kick(&broker, ".broker", remote.client.id(), "target"),
        denied,
        "the broker's name gives no rights either"
    );
    assert!(target.closed().is_empty());
    drop(remote);
    let local = peer(&broker, "a", 1);
    assert!(kick(&broker, "a", local.client.id(), "target").is_ok());
    assert_eq!(target.closed(), ["kicked by a"]);
}

#[test]
fn a_call_is_checked_against_the_rules_in_force_when_it_is_made() {
    let broker = broker();
    let a = peer(&broker, "a", 1);
    let call =
        |method| broker.host().call(&Call { caller: "a", caller_id: a.client.id(), method, params: b"" });
    assert!(call("test").is_ok());
    set(&broker, Verdict::Deny, vec![ClientRules { call: rules(&["allow info"]), ..clients("a") }]);
    assert_eq!(call("test").unwrap_err().code, Code::AccessDenied.rpc_code());
    assert!(call("info").is_ok());
    set(&broker, Verdict::Deny, vec![ClientRules { call: rules(&["allow test"]), ..clients("a") }]);
    assert!(call("test").is_ok() && call("info").is_err());
}

#[test]
fn registrations_of_one_identity_have_one_number() {
    let broker = broker();
    let from = |name: &str, info: ClientInfo| Peer::of(&broker, name, info).unwrap();
    let at = |address: &str| ClientInfo::default().with_source(address);
    let certified = |names: &[&str]| {
        let names = names.iter().map(|name| (*name).to_owned()).collect();
        at("10.0.0.1:5").with_certificate_names(names)
    };
    let within = || ClientInfo::new("", Locality::InProcess);
    let pairs = [
        [peer(&broker, "a", 1), peer(&broker, "b", 1)],
        [peer(&broker, "c", 2), peer(&broker, "d", 2)],
        [from("e", at("10.0.0.1:5")), from("f", at("10.0.0.1:6"))],
        [from("g", at("[2001:db8::1]:5")), from("h", at("[2001:db8::2]:6"))],
        [from("i", certified(&["cn:x"])), from("j", certified(&["cn:x"]))],
        [from("k", certified(&["cn:y"])), from("l", certified(&["cn:y"]))],
        [from("m", within()), from("n", within())],
    ];
    let number = |peer: &Peer| broker.host().identity(&peer.name, peer.client.id());
    let mut numbers = vec![];
    for [one, other] in &pairs {
        assert_eq!(number(one), number(other), "{} {}", one.name, other.name);
        assert_ne!(number(one), 0);
        assert!(!numbers.contains(&number(one)), "{}", one.name);
        numbers.push(number(one));
    }
    let [[a, _], ..] = pairs;
    let id = a.client.id();
    assert_eq!((broker.host().identity("a", id + 1), broker.host().identity("b", id)), (0, 0));
    drop(a);
    assert_eq!(broker.host().identity("a", id), 0, "its registration has ended");
}

#[test]
fn a_reply_reaches_its_registration_and_no_later_owner_of_the_name() {
    let broker = broker();
    let mut server = peer(&broker, "server", 1);
    let asker = peer(&broker, "asker", 1);
    let mut reply = |id| {
        let payloads = [Payload::from(&b"secret"[..])];
        let request = Request::new(Op::Message, Qos::PROCESSED, "asker", &payloads).with_receiver_id(id);
        server.client.dispatch(&request.ending_batch()).code()
    };
    let id = asker.client.id();
    assert_eq!(reply(id), Code::Ok);
    assert_eq!(asker.payloads(), ["secret"]);
    drop(asker);
    let thief = peer(&broker, "asker", 1);
    assert_eq!(reply(id), Code::NotRegistered);
    assert_eq!(thief.payloads(), [""; 0]);
    assert_eq!((reply(thief.client.id()), reply(0)), (Code::Ok, Code::Ok));
}

#[test]
fn runs_carry_the_registration_of_their_sender() {
    let broker = broker();
    let (mut a, b) = (peer(&broker, "a", 1), peer(&broker, "b", 1));
    a.send("b", b"x");
    assert_eq!(b.take_ids(), [a.client.id()]);
    let mut speaker = broker.host().system_client();
    assert_eq!(speaker.id(), 0);
    let payloads = [Payload::from(&b"x"[..])];
    let request = Request::new(Op::Message, Qos::NO, "b", &payloads);
    speaker.dispatch(&request.ending_batch());
    assert_eq!(b.take_ids(), [0], "the broker itself");
}

/// Sends as a system sender and returns the result.
fn send(sender: &mut Client, op: Op, target: &str) -> Code {
    let payloads = [Payload::from(&b"x"[..])];
    sender.dispatch(&Request::new(op, Qos::PROCESSED, target, &payloads).ending_batch()).code()
}

#[test]
fn a_system_sender_sends_as_the_broker_and_cannot_administer() {
    let broker = broker();
    let mut b = peer(&broker, "b", 1);
    b.subscribe(&["t"]);
    let mut sender = broker.host().system_sender("fifo", false).unwrap();
    assert_ne!(sender.id(), 0, "it has its own registration");
    for (op, target) in [(Op::Message, "b"), (Op::Broadcast, "*"), (Op::Publish, "t")] {
        assert_eq!(send(&mut sender, op, target), Code::Ok);
    }
    let senders: Vec<_> = b.take().into_iter().map(|(_, sender, ..)| sender).collect();
    assert_eq!(senders, [".broker"; 3]);
    assert_eq!(b.take_ids(), [sender.id(); 3]);
    let none: [Payload<'_>; 0] = [];
    let subscribed = sender.dispatch(&Request::new(Op::Subscribe, Qos::PROCESSED, "#", &none));
    assert_eq!(subscribed.code(), Code::NotSupported);

    let denied = Err(Code::AccessDenied.rpc_code());
    assert_eq!(kick(&broker, ".broker", sender.id(), "b"), denied);
    let test = Call { caller: ".broker", caller_id: sender.id(), method: "test", params: b"" };
    assert!(broker.host().call(&test).is_ok());
    let admin = broker.host().system_sender("fifo", true).unwrap();
    assert!(kick(&broker, ".broker", admin.id(), "b").is_ok());
    assert_eq!(b.closed(), ["kicked by .fifo."], "with the name used in rules");
    drop((sender, admin));
    assert_eq!(
        broker.host().call(&test).unwrap_err().code,
        Code::AccessDenied.rpc_code(),
        "its registration has ended"
    );
}

#[test]
fn rules_apply_to_a_system_sender_under_its_own_name() {
    let broker = broker();
    let b = peer(&broker, "b", 1);
    let mut sender = broker.host().system_sender("fifo", false).unwrap();
    let in_b = || clients("b");
    set(&broker, Verdict::Deny, vec![in_b()]);
    assert_eq!(send(&mut sender, Op::Message, "b"), Code::AccessDenied, "no table matches its name");
    let mut late = broker.host().system_sender("fifo", false).unwrap();
    assert_eq!(send(&mut late, Op::Message, "b"), Code::AccessDenied, "the same for a later system sender");
    let allowed = || ClientRules { send: rules(&["allow b"]), ..clients(".fifo.*") };
    set(&broker, Verdict::Deny, vec![in_b(), allowed()]);
    assert_eq!(send(&mut sender, Op::Message, "b"), Code::Ok);
    assert_eq!(send(&mut sender, Op::Broadcast, "*"), Code::AccessDenied);
    assert_eq!(kick(&broker, ".broker", sender.id(), "b"), Err(Code::AccessDenied.rpc_code()));
    // a table with `who`, which a system sender cannot match
    let who = vec![elbus_plugin_api::access::Identity { uid: Some(0), ..Default::default() }];
    set(&broker, Verdict::Allow, vec![ClientRules { who, ..allowed() }]);
    assert_eq!(send(&mut sender, Op::Message, "b"), Code::AccessDenied);
    // for administrative methods a default is not enough; a rule is
    set(&broker, Verdict::Allow, vec![]);
    assert_eq!(send(&mut sender, Op::Message, "b"), Code::Ok);
    assert_eq!(kick(&broker, ".broker", sender.id(), "b"), Err(Code::AccessDenied.rpc_code()));
    set(&broker, Verdict::Allow, vec![ClientRules { call: rules(&["allow client.kick"]), ..allowed() }]);
    assert!(kick(&broker, ".broker", sender.id(), "b").is_ok());
    assert_eq!(b.payloads(), ["x", "x"]);
}

#[test]
fn names_of_system_senders_cannot_be_registered() {
    let broker = broker();
    for internal in [false, true] {
        let mut info = ClientInfo::in_process();
        info.internal = internal;
        assert_eq!(Peer::of(&broker, ".fifo.commands", info).err(), Some(Code::BadData));
    }
    assert_eq!(broker.host().system_sender("a.b", false).err(), Some(Code::BadData));
    assert_eq!(broker.host().system_sender("", false).err(), Some(Code::BadData));
}
