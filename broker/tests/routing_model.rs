//! A property: for any client operations, the router delivers what a naive model of the specification
//! delivers.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use elbus_plugin_api::Op;
use proptest::prelude::*;
use support::model::{Compared, NAMES, Step, limited};

fn path(separator: &'static str, wildcards: [&'static str; 2]) -> impl Strategy<Value = String> {
    let segment = prop::sample::select(vec!["a", "b", "c", wildcards[0], wildcards[1]]);
    prop::collection::vec(segment, 1..4).prop_map(move |segments| segments.join(separator))
}

fn step() -> impl Strategy<Value = Step> {
    let who = || 0..NAMES.len();
    let name = || prop::sample::select(NAMES.to_vec()).prop_map(str::to_owned);
    let deep = || {
        let segments = prop::collection::vec(prop::sample::select(vec!["a", "a", "+"]), 7..20);
        (segments, any::<bool>())
            .prop_map(|(segments, rest)| [segments.join("/"), if rest { "/#" } else { "" }.into()].concat())
    };
    let topic = || prop_oneof![4 => path("/", ["+", "#"]), 1 => deep()];
    let options = || {
        let options = vec!["$share/g/", "$share/g/", "$share/h/", "$lossy/", "$share/g/$lossy/"];
        prop::sample::select(options)
    };
    let filter = || {
        prop_oneof![
            3 => topic(),
            2 => (options(), topic()).prop_map(|(options, filter)| [options, &filter].concat()),
        ]
    };
    let filter_op =
        prop::sample::select(vec![Op::Subscribe, Op::Subscribe, Op::Unsubscribe, Op::Exclude, Op::Unexclude]);
    let frame = prop_oneof![
        topic().prop_map(|topic| (Op::Publish, topic)),
        name().prop_map(|name| (Op::Message, name)),
    ];
    prop_oneof![
        3 => who().prop_map(Step::Connect),
        1 => who().prop_map(Step::Leave),
        5 => (who(), filter_op, prop::collection::vec(filter(), 1..4))
            .prop_map(|(w, op, f)| Step::Filters(w, op, allowed(op, f))),
        5 => (who(), topic()).prop_map(|(w, t)| Step::Publish(w, t)),
        2 => (who(), topic(), name()).prop_map(|(w, t, r)| Step::PublishFor(w, t, r)),
        3 => (who(), path(".", ["?", "*"])).prop_map(|(w, m)| Step::Broadcast(w, m)),
        3 => (who(), name()).prop_map(|(w, n)| Step::Send(w, n)),
        4 => (who(), prop::collection::vec(frame, 1..300)).prop_map(|(w, frames)| Step::Mixed(w, frames)),
        1 => (who(), prop::option::of(0..50usize)).prop_map(|(w, room)| Step::Room(w, room)),
        1 => who().prop_map(Step::Fill),
        1 => who().prop_map(Step::Drain),
        1 => any::<bool>().prop_map(Step::Intercept),
    ]
}

/// Exclusions have no options.
fn allowed(op: Op, mut filters: Vec<String>) -> Vec<String> {
    if [Op::Exclude, Op::Unexclude].contains(&op) {
        filters.iter_mut().filter(|filter| filter.starts_with('$')).for_each(|filter| *filter = "a".into());
    }
    filters
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]
    #[test]
    fn equals_the_model(steps in prop::collection::vec(step(), 1..80)) {
        let broker = limited();
        let mut compared = Compared::new(&broker);
        steps.iter().for_each(|step| compared.step(step));
    }
}
