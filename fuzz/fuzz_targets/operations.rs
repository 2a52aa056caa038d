//! For any sequence of client operations, a broker delivers what the naive model of the specification
//! delivers.
#![no_main]

#[path = "../../broker/tests/support/mod.rs"]
mod support;

use elbus_broker::Broker;
use elbus_plugin_api::Op;
use libfuzzer_sys::fuzz_target;
use std::sync::OnceLock;
use support::model::{Compared, NAMES, Step, limited};

/// Longer sequences make a run slower and find nothing more.
const STEPS: usize = 200;

/// Numbers read from the input; 0 at its end.
struct Numbers<'a>(&'a [u8]);

impl Numbers<'_> {
    fn below(&mut self, end: usize) -> usize {
        let Some((first, rest)) = self.0.split_first() else { return 0 };
        self.0 = rest;
        usize::from(*first) % end
    }

    /// Returns a path of a few segments from a small set, so that paths often match.
    fn path(&mut self, separator: &str, wildcards: [&'static str; 2]) -> String {
        let segments = ["a", "b", "c", "", wildcards[0], wildcards[1]];
        // sometimes more, since filters of many segments have limits of their own
        let count = if self.below(8) == 0 { 1 + self.below(20) } else { 1 + self.below(4) };
        (0..count).map(|_| segments[self.below(segments.len())]).collect::<Vec<_>>().join(separator)
    }

    fn options(&mut self) -> &'static str {
        const OPTIONS: [&str; 4] = ["$share/g/", "$share/h/", "$lossy/", "$share/g/$lossy/"];
        OPTIONS.get(self.below(10)).copied().unwrap_or_default()
    }

    fn frame(&mut self) -> (Op, String) {
        match self.below(2) {
            0 => (Op::Publish, self.path("/", ["+", "#"])),
            _ => (Op::Message, NAMES[self.below(NAMES.len())].to_owned()),
        }
    }

    fn step(&mut self) -> Step {
        let who = self.below(NAMES.len());
        match self.below(13) {
            0 => Step::Connect(who),
            1 => Step::Leave(who),
            2 | 3 => {
                let op = [Op::Subscribe, Op::Unsubscribe, Op::Exclude, Op::Unexclude][self.below(4)];
                let count = 1 + self.below(3);
                let mut filters: Vec<_> = (0..count).map(|_| self.path("/", ["+", "#"])).collect();
                // no filter and one empty filter are the same bytes; this is the empty filter
                filters.retain(|filter| !filter.is_empty());
                if filters.is_empty() {
                    filters.push(String::new());
                } else if [Op::Subscribe, Op::Unsubscribe].contains(&op) {
                    filters.iter_mut().for_each(|filter| filter.insert_str(0, self.options()));
                }
                Step::Filters(who, op, filters)
            }
            4 => Step::Publish(who, self.path("/", ["+", "#"])),
            5 => Step::PublishFor(who, self.path("/", ["+", "#"]), NAMES[self.below(NAMES.len())].to_owned()),
            6 => Step::Broadcast(who, self.path(".", ["?", "*"])),
            7 => Step::Fill(who),
            8 => Step::Drain(who),
            9 => {
                let count = 1 + self.below(30);
                Step::Mixed(who, (0..count).map(|_| self.frame()).collect())
            }
            10 => Step::Room(who, [None, Some(self.below(20))][self.below(2)]),
            11 => Step::Intercept(self.below(4) != 0),
            _ => Step::Send(who, NAMES[self.below(NAMES.len())].to_owned()),
        }
    }
}

fuzz_target!(|data: &[u8]| {
    static BROKER: OnceLock<Broker> = OnceLock::new();
    let (mut numbers, mut compared) = (Numbers(data), Compared::new(BROKER.get_or_init(limited)));
    for _ in 0..STEPS {
        if numbers.0.is_empty() {
            break;
        }
        compared.step(&numbers.step());
    }
});
