//! What is a filter with options, and how such a subscription ends.

use elbus_plugin_api::{Code, Op, Qos};

use crate::{
    publish_code,
    support::{Peer, broker},
};

#[test]
fn malformed_options_are_refused_and_change_nothing() {
    let broker = broker();
    let (mut a, mut sender) = (Peer::new(&broker, "a"), Peer::new(&broker, "sender"));
    let long = format!("$share/{}/f", "g".repeat(65_000));
    for filter in
        ["$share//f", "$share/g", "$share/g+/f", &long, "$key/g/0/f", "$latest/$share/g/f", "$every/x/f"]
    {
        for op in [Op::Subscribe, Op::Unsubscribe, Op::Exclude, Op::Unexclude] {
            assert_eq!(a.filters(op, &["ok", filter]), Code::BadData, "{op:?} {filter}");
        }
    }
    for filter in ["$latest/f", "$share/g/f", "$lossy/f"] {
        assert_eq!(a.filters(Op::Exclude, &[filter]), Code::BadData);
        assert_eq!(a.filters(Op::Unexclude, &[filter]), Code::BadData);
        assert_eq!(publish_code(&mut sender, filter), Code::BadData);
        assert_eq!(sender.mixed(&[(Op::Publish, filter, b"x")]), [Code::BadData as u8]);
    }
    assert_eq!(
        sender.dispatch(Op::PublishFor, Qos::PROCESSED, "$latest/f", "a", &[b"x"]).code(),
        Code::BadData
    );
    sender.publish("ok", b"1");
    assert!(a.take().is_empty(), "no filter of the requests was added");
    // an unknown option is an ordinary topic
    a.subscribe(&["$newest/f"]);
    assert_eq!(sender.publish("$newest/f", b"1"), 1);
    assert_eq!(a.payloads(), ["1"]);
}

#[test]
fn a_subscription_ends_by_its_only_spelling() {
    let broker = broker();
    let (mut a, mut sender) = (Peer::new(&broker, "a"), Peer::new(&broker, "sender"));
    a.subscribe(&["$share/g/$latest/f/#"]);
    for other in ["f/#", "$share/g/f/#", "$latest/f/#", "$share/h/$latest/f/#", "$share/g/$latest/f/+"] {
        assert_eq!(a.filters(Op::Unsubscribe, &[other]), Code::Ok, "{other} was not there");
        assert_eq!(sender.publish("f/x", b"1"), 1);
    }
    // what follows a `#` has no meaning
    assert_eq!(a.filters(Op::Unsubscribe, &["$share/g/$latest/f/#/behind"]), Code::Ok);
    assert_eq!(sender.publish("f/x", b"1"), 0);
}
