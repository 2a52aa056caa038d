//! Damaged plugin files: a check exits normally, and a broker that reloads one keeps its running instance.
//! `ELBUS_MUTATIONS` sets how many are tried.

use crate::support::{
    daemon::{Daemon, folder, run_to_end},
    field,
    load::Load,
    plugin,
    wire::Wire,
};
use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::atomic::{AtomicUsize, Ordering},
};

/// One in this number of damaged libraries may pass the probe and end a check, and one may end a running
/// broker: its damage shows in some runs only.
const MUTATIONS_PER_CRASH: usize = 1000;
/// Checks that run at the same time.
const AT_ONCE: usize = 2;

fn count() -> usize {
    std::env::var("ELBUS_MUTATIONS").ok().and_then(|count| count.parse().ok()).unwrap_or(60)
}

/// xorshift64*, a deterministic random number generator.
struct Random(u64);

impl Random {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) % limit
    }
}

/// Returns the offset and length of each loaded segment of an ELF file. The rest is symbols and debug
/// information.
fn loaded_parts(bytes: &[u8]) -> Vec<(u64, u64)> {
    let number = |at: usize, size: usize| {
        bytes[at..at + size].iter().rev().fold(0, |number, byte| number << 8 | u64::from(*byte))
    };
    let (table, size, count) = (number(32, 8), number(54, 2), number(56, 2));
    let headers = (0..count).map(|index| (table + index * size) as usize);
    let loaded = headers.filter(|at| number(*at, 4) == 1);
    loaded.map(|at| (number(at + 8, 8), number(at + 32, 8))).collect()
}

/// Returns the library with some bytes changed.
fn mutated(good: &[u8], parts: &[(u64, u64)], seed: usize) -> Vec<u8> {
    let mut bytes = good.to_vec();
    let mut random = Random((seed as u64 + 1).wrapping_mul(0x9E37_79B9_7F4A_7C15));
    for _ in 0..=random.below(8) {
        let (offset, length) = parts[random.below(parts.len() as u64) as usize];
        // half of the changes hit the headers and tables at the start
        let length = if random.below(2) == 0 { length.min(64 * 1024) } else { length };
        let at = (offset + random.below(length)) as usize;
        bytes[at] = random.below(256) as u8;
    }
    bytes
}

const CONFIG: &str = "broker.plugin_dirs = [\".\"]\nbroker.start_seconds = 5.0\n\
    [[plugin]]\nname = \"local\"\nlibrary = \"elbus_unix\"\n\
    config = { path = \"bus.sock\", timeout_seconds = 600.0 }\n\
    [[plugin]]\nname = \"rpc\"\nlibrary = \"elbus_rpc\"\n\
    [[plugin]]\nname = \"it\"\nlibrary = \"damaged\"\n";

/// A running broker under load, and the client that reloads its plugin.
struct Running {
    daemon: Daemon,
    load: Load,
    operator: Wire,
}

impl Running {
    fn start(good: &[u8]) -> Self {
        let home = folder();
        std::fs::write(home.path().join("libdamaged.so"), good).unwrap();
        std::fs::write(home.path().join("broker.toml"), CONFIG).unwrap();
        let daemon = Daemon::start_in(home, &["--config", "broker.toml"]);
        let load = Load::start(&daemon);
        let operator = daemon.client("operator");
        Running { daemon, load, operator }
    }

    /// Reloads the plugin with this library. Returns whether the broker has refused it.
    fn refuses(&mut self, library: &[u8], why: &str) -> bool {
        std::fs::write(self.daemon.path("libdamaged.so"), library).unwrap();
        let answer = self.operator.control("plugin.reload", &[("name", "it")]);
        let it = plugin(&mut self.operator, "it").unwrap();
        assert_eq!(field(&it, "state").as_str(), Some("started"), "{why}");
        answer.is_err()
    }
}

#[test]
fn damaged_libraries_crash_neither_a_check_nor_a_broker() {
    let executable = std::env::current_exe().unwrap();
    let good = std::fs::read(executable.parent().unwrap().join("libelbus_faulty.so")).unwrap();
    let parts = loaded_parts(&good);
    let mut running = Running::start(&good);
    let (next, (give, take)) = (AtomicUsize::new(0), std::sync::mpsc::channel());
    let (mut refused, mut died, mut ended, passed_probe) = (0, 0, 0, AtomicUsize::new(0));
    std::thread::scope(|scope| {
        for _ in 0..AT_ONCE {
            let (give, next, good, parts) = (give.clone(), &next, &good, &parts);
            let passed_probe = &passed_probe;
            scope.spawn(move || {
                let folder = folder();
                // damaged code may loop
                let only =
                    "broker.start_seconds = 5.0\n[[plugin]]\nname = \"it\"\nlibrary = \"./libdamaged.so\"\n";
                std::fs::write(folder.path().join("broker.toml"), only).unwrap();
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= count() {
                        return;
                    }
                    let bytes = mutated(good, parts, seed);
                    std::fs::write(folder.path().join("libdamaged.so"), &bytes).unwrap();
                    let checked = run_to_end(folder.path(), &["--config", "broker.toml", "--check"]);
                    if checked.status.code().is_none() {
                        // damage that has an effect in some runs only, and had none in the probe
                        assert!(checked.stderr.contains("elbus-faulty"), "{seed}: {}", checked.stderr);
                        passed_probe.fetch_add(1, Ordering::Relaxed);
                    }
                    if checked.status.code() == Some(1) {
                        give.send((bytes, checked.stderr)).unwrap();
                    }
                }
            });
        }
        drop(give);
        // a reload refuses every library that a check refuses, and keeps the running instance
        for (bytes, why) in take {
            died += usize::from(why.contains("ended the probe process"));
            match catch_unwind(AssertUnwindSafe(|| running.refuses(&bytes, &why))) {
                // some damage has an effect only at some addresses, hence not in every run
                Ok(is_refused) => refused += usize::from(is_refused),
                Err(_) => {
                    ended += 1;
                    let previous = std::mem::replace(&mut running, Running::start(&good));
                    let (status, log) = previous.daemon.wait_end();
                    println!("a damaged library ended the broker ({status}); its check: {why}\n{log}");
                }
            }
        }
    });
    let passed_probe = passed_probe.into_inner();
    assert!(passed_probe * MUTATIONS_PER_CRASH <= count(), "{passed_probe} of {} ended a check", count());
    assert!(died > 0 && refused > 0, "{refused} refused, {died} of them ended the probe");
    assert!(ended * MUTATIONS_PER_CRASH <= count(), "{ended} of {} ended a broker", count());
    println!(
        "{} mutations: {refused} refused, {died} of them ended the probe process, {passed_probe} passed it and \
         ended a check, {ended} ended a broker",
        count()
    );
    let Running { daemon, load, mut operator } = running;
    std::fs::write(daemon.path("libdamaged.so"), &good).unwrap();
    operator.control("plugin.reload", &[("name", "it")]).unwrap();
    load.wait_for_more();
    let counts = load.stop();
    assert!(counts.acknowledged > 0, "{counts:?}");
}
