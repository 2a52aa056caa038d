//! Subscriptions with options over real sockets: shared work, newest values, and clients that miss
//! publications instead of holding their publishers.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use elbus_protocol::{FrameKind, Op, Qos, request::encode_request};
use std::{
    collections::BTreeMap,
    net::Shutdown,
    sync::atomic::{AtomicBool, Ordering},
    time::{Duration, Instant},
};
use support::{
    PATIENCE,
    daemon::{BOTH, Daemon},
    field, plugin_source, rounds, wait_until,
    wire::{Frame, Wire, numbered_frames},
};

fn number(frame: &Frame) -> u32 {
    u32::from_le_bytes(frame.payload()[..4].try_into().unwrap())
}

/// Returns the only subscription with options of a client.
fn options(witness: &mut Wire, name: &str) -> rmpv::Value {
    let info = witness.control("client.info", &[("name", name)]).unwrap();
    let options = field(&info, "options").as_array().unwrap();
    assert_eq!(options.len(), 1, "{options:?}");
    options[0].clone()
}

#[test]
fn workers_share_publications_and_none_is_lost() {
    const COUNT: u32 = 20_000;
    const WORKERS: usize = 4;
    for plugins in BOTH {
        let daemon = Daemon::start(plugins, &["--queue-bytes", "100000"]);
        let addresses = daemon.addresses();
        let mut publisher = daemon.client("publisher");
        let workers: Vec<_> = (0..WORKERS)
            .map(|at| {
                let address = &addresses[at % addresses.len()];
                let mut worker = Wire::connect(&daemon, address, &format!("worker.{at}"));
                worker.subscribe(&["$share/workers/jobs/#", "end"]);
                std::thread::spawn(move || {
                    let mut got = vec![];
                    loop {
                        // one of them is slow
                        if at == 0 && got.len() % 100 == 0 {
                            std::thread::sleep(Duration::from_millis(1));
                        }
                        match worker.frame() {
                            Frame::Data(_, _, topic, ..) if topic == "end" => return got,
                            frame => got.push(number(&frame)),
                        }
                    }
                })
            })
            .collect();
        let mut writer = publisher.writer();
        let writing = std::thread::spawn(move || {
            writer.write(&numbered_frames(Op::Publish, Qos::PROCESSED, "jobs/paint", COUNT, 100));
        });
        for number in 0..COUNT {
            assert_eq!(publisher.expect_ack(number), 0x01);
        }
        writing.join().unwrap();
        assert_eq!(publisher.acked(Op::Publish, "end", b"last"), 0x01);
        let got: Vec<_> = workers.into_iter().map(|worker| worker.join().unwrap()).collect();
        assert!(got.iter().all(|own| own.is_sorted() && !own.is_empty()), "in order");
        let mut all = got.concat();
        all.sort_unstable();
        assert_eq!(all, (0..COUNT).collect::<Vec<_>>(), "each to one member");
    }
}

#[test]
fn each_key_keeps_its_order_at_one_worker() {
    const KEYS: u32 = 50;
    const ROUNDS: u32 = 40;
    for plugins in BOTH {
        let daemon = Daemon::start(plugins, &[]);
        let mut publisher = daemon.client("publisher");
        let mut workers: Vec<_> = (0..3)
            .map(|at| {
                let mut worker = daemon.client(&format!("worker.{at}"));
                worker.subscribe(&["$key/g/2/device/#", "end"]);
                worker
            })
            .collect();
        for round in 0..ROUNDS {
            for key in 0..KEYS {
                let topic = format!("device/{key}/{}", round % 3);
                publisher.request(Op::Publish, Qos::NO, &topic, "", &round.to_le_bytes());
            }
        }
        assert_eq!(publisher.acked(Op::Publish, "end", b"last"), 0x01);
        let mut owners = BTreeMap::new();
        let mut next = BTreeMap::<String, u32>::new();
        for (at, worker) in workers.iter_mut().enumerate() {
            loop {
                let frame = worker.frame();
                let Frame::Data(_, _, topic, ..) = &frame else { panic!("{frame:?}") };
                if topic == "end" {
                    break;
                }
                let key = topic.rsplit_once('/').unwrap().0.to_owned();
                assert_eq!(*owners.entry(key.clone()).or_insert(at), at, "{key}");
                let next = next.entry(key).or_default();
                assert_eq!(number(&frame), *next, "in order");
                *next += 1;
            }
        }
        assert!(next.len() == KEYS as usize && next.values().all(|next| *next == ROUNDS));
        assert!((0..3).all(|at| owners.values().any(|owner| *owner == at)), "{owners:?}");
    }
}

#[test]
fn a_slow_reader_of_the_newest_values_holds_nobody() {
    const COUNT: u32 = 30_000;
    for plugins in BOTH {
        let daemon = Daemon::start(plugins, &["--queue-bytes", "100000"]);
        let mut witness = daemon.client("witness");
        for address in daemon.addresses() {
            let mut publisher = Wire::connect(&daemon, &address, "publisher");
            let mut slow = Wire::connect(&daemon, &address, "slow");
            let mut fast = Wire::connect(&daemon, &address, "fast");
            slow.subscribe(&["$latest/t/#"]);
            fast.subscribe(&["t/#"]);
            let mut writer = publisher.writer();
            let writing = std::thread::spawn(move || {
                for topic in ["t/1", "t/2"] {
                    writer.write(&numbered_frames(Op::Publish, Qos::PROCESSED, topic, COUNT, 1000));
                }
            });
            let reading = std::thread::spawn(move || {
                for topic in ["t/1", "t/2"] {
                    for expected in 0..COUNT {
                        let frame = fast.frame();
                        assert!(matches!(&frame, Frame::Data(_, _, of, ..) if of == topic));
                        assert_eq!(number(&frame), expected);
                    }
                }
            });
            for number in (0..COUNT).chain(0..COUNT) {
                assert_eq!(publisher.expect_ack(number), 0x01, "although nobody reads the slow one");
            }
            writing.join().unwrap();
            reading.join().unwrap();
            let waiting = options(&mut witness, "slow");
            assert!(field(&waiting, "replaced").as_u64().unwrap() > u64::from(COUNT), "{waiting:?}");
            assert_eq!(field(&waiting, "missed").as_u64(), Some(0));
            let mut last = BTreeMap::new();
            let mut count = 0;
            while last.values().filter(|last| **last == COUNT - 1).count() < 2 {
                let frame = slow.frame();
                let Frame::Data(FrameKind::Publish, sender, topic, ..) = &frame else { panic!("{frame:?}") };
                assert_eq!(sender, "publisher");
                let number = number(&frame);
                let before = last.insert(topic.clone(), number);
                assert!(before.is_none_or(|before| before < number), "in order");
                count += 1;
            }
            assert!(count < COUNT / 2, "{count} of {COUNT}");
            assert_eq!(slow.frame_within(Duration::from_millis(20)), None);
        }
    }
}

#[test]
fn a_reader_that_keeps_up_gets_recent_values() {
    let daemon = Daemon::start("library", &[]);
    let mut publisher = daemon.client("publisher");
    let mut reader = daemon.client("reader");
    reader.subscribe(&["$latest/t"]);
    for number in 0..2000u32 {
        publisher.request(Op::Publish, Qos::NO, "t", "", &number.to_le_bytes());
        let frame = reader.frame();
        assert_eq!(self::number(&frame), number, "nothing is left out while the reader is faster");
    }
}

#[test]
fn the_last_value_of_an_interval_arrives_without_another_publication() {
    let daemon = Daemon::start("library", &[]);
    let mut publisher = daemon.client("publisher");
    let mut reader = daemon.client("reader");
    reader.subscribe(&["$every/200/t/+"]);
    let begins = Instant::now();
    for number in 0..100u32 {
        for topic in ["t/1", "t/2"] {
            assert_eq!(publisher.acked(Op::Publish, topic, &number.to_le_bytes()), 0x01);
        }
    }
    let took = begins.elapsed();
    let mut last = BTreeMap::new();
    let mut count = 0;
    while last.len() < 2 || last.values().any(|last| *last != 99) {
        let frame = reader.frame();
        let Frame::Data(_, _, topic, ..) = &frame else { panic!("{frame:?}") };
        last.insert(topic.clone(), number(&frame));
        count += 1;
    }
    let most = 2 * (2 + took.as_millis() / 200);
    assert!(begins.elapsed() >= Duration::from_millis(200) && count <= most, "{count} of {most}");
}

#[test]
fn a_stopped_lossy_reader_holds_nobody_and_learns_what_it_has_missed() {
    const COUNT: u32 = 10_000;
    for plugins in BOTH {
        let daemon = Daemon::start(plugins, &["--queue-bytes", "100000"]);
        let mut witness = daemon.client("witness");
        for address in daemon.addresses() {
            let mut publisher = Wire::connect(&daemon, &address, "publisher");
            let mut lossy = Wire::connect(&daemon, &address, "lossy");
            lossy.subscribe(&["$lossy/t", ".broker/missed"]);
            let mut writer = publisher.writer();
            let writing = std::thread::spawn(move || {
                writer.write(&numbered_frames(Op::Publish, Qos::PROCESSED, "t", COUNT, 5000));
            });
            (0..COUNT).for_each(|number| assert_eq!(publisher.expect_ack(number), 0x01));
            writing.join().unwrap();
            let missed = field(&options(&mut witness, "lossy"), "missed").as_u64().unwrap();
            assert!(missed > 0);
            let (mut got, mut reported) = (0, 0);
            while got + reported < u64::from(COUNT) {
                match lossy.frame() {
                    Frame::Data(_, sender, topic, payload, _) if sender == ".broker" => {
                        assert_eq!(topic, ".broker/missed");
                        let report = rmpv::decode::read_value(&mut &payload[..]).unwrap();
                        assert_eq!(field(&report, "filter").as_str(), Some("$lossy/t"));
                        assert_eq!(field(&report, "topic").as_str(), Some("t"));
                        reported += field(&report, "count").as_u64().unwrap();
                    }
                    _ => got += 1,
                }
            }
            assert_eq!((got + reported, reported), (u64::from(COUNT), missed), "exact");
        }
    }
}

#[test]
fn rules_decide_about_the_filter_behind_the_options() {
    let config = |rules: &str| {
        format!(
            "[[plugin]]\nname = \"local\"\n{}\nconfig = {{ path = \"bus.sock\", timeout_seconds = 600.0 }}\n\
             [[plugin]]\nname = \"rpc\"\n{}\n[[plugin]]\nname = \"acl\"\n{}\n[plugin.config]\n\
             [[plugin.config.client]]\nname = \"*\"\npublish = [\"allow #\"]\ncall = [\"allow *\"]\n\
             subscribe = [{rules}]\n",
            plugin_source("library", "unix"),
            plugin_source("library", "rpc"),
            plugin_source("library", "acl"),
        )
    };
    let daemon = Daemon::start_config(&config("\"deny secret/#\", \"allow #\""));
    let (mut admin, mut client) = (daemon.client("admin"), daemon.client("client"));
    for options in ["$share/g/", "$key/g/1/", "$latest/", "$every/5/", "$lossy/", "$share/secret/$lossy/"] {
        assert_eq!(client.filters(Op::Subscribe, &[&format!("{options}secret/x")]), 0x79, "{options}");
        assert_eq!(client.filters(Op::Subscribe, &[&format!("{options}open/x")]), 0x01, "{options}");
        let explained = admin.control(
            "explain",
            &[("action", "subscribe"), ("name", "client"), ("target", &format!("{options}secret/x"))],
        );
        assert_eq!(field(&explained.unwrap(), "allowed").as_bool(), Some(false), "{options}");
    }
    assert_eq!(admin.acked(Op::Publish, "open/x", b"1"), 0x01);
    assert_eq!(client.frame().payload(), b"1");
    // subscriptions that new rules do not allow end
    std::fs::write(daemon.path("broker.toml"), config("\"deny open/#\", \"allow #\"")).unwrap();
    admin.control("config.reload", &[]).unwrap();
    let info = admin.control("client.info", &[("name", "client")]).unwrap();
    assert_eq!(field(&info, "options").as_array().map(Vec::len), Some(0));
    assert_eq!(admin.acked(Op::Publish, "open/x", b"2"), 0x01);
    assert_eq!(client.filters(Op::Subscribe, &["$latest/secret/x"]), 0x01);
    assert_eq!(admin.acked(Op::Publish, "secret/x", b"3"), 0x01);
    assert_eq!(client.frame().payload(), b"3");
}

#[test]
fn malformed_options_are_refused_and_the_connection_goes_on() {
    for plugins in BOTH {
        let daemon = Daemon::start(plugins, &[]);
        for address in daemon.addresses() {
            let mut client = Wire::connect(&daemon, &address, "client");
            let long = format!("$share/{}/f", "g".repeat(65_000));
            for filter in
                ["$share//f", &long, "$key/g/33/f", "$every/86400001/f", "$lossy", "$latest/$key/g/1/f"]
            {
                for op in [Op::Subscribe, Op::Unsubscribe, Op::Exclude, Op::Unexclude] {
                    assert_eq!(client.filters(op, &[filter]), 0x72, "{op:?}");
                }
            }
            assert_eq!(client.filters(Op::Exclude, &["$latest/f"]), 0x72);
            assert_eq!(client.acked(Op::Publish, "$share/g/f", b"x"), 0x72);
            assert_eq!(client.acked(Op::Publish, "$other/g/f", b"x"), 0x01);
        }
    }
}

#[test]
fn a_reader_that_leaves_and_returns_gets_no_old_values() {
    let daemon = Daemon::start("library", &["--queue-bytes", "100000"]);
    let mut publisher = daemon.client("publisher");
    let mut witness = daemon.client("witness");
    let mut reader = daemon.client("reader");
    reader.subscribe(&["$latest/#"]);
    for topic in 0..3000 {
        let payload = [7; 1000];
        publisher.request(Op::Publish, Qos::NO, &format!("t/{topic}"), "", &payload);
    }
    assert_eq!(publisher.acked(Op::Publish, "t/0", b"old"), 0x01, "the broker has taken all of them");
    wait_until("values wait", || field(&options(&mut witness, "reader"), "pending").as_u64().unwrap() > 0);
    drop(reader);
    let mut reader = daemon.client("reader");
    reader.subscribe(&["$latest/#"]);
    assert_eq!(publisher.acked(Op::Publish, "t", b"new"), 0x01);
    assert_eq!(reader.frame().payload(), b"new");
    wait_until("nothing is queued", || support::queued_bytes(&mut witness) == 0);
}

/// Reads until the broker closes the connection; returns the numbers of the publications.
fn read_to_end(client: &mut Wire) -> Vec<u32> {
    let mut got = vec![];
    while let Some(frame) = client.frame_within(PATIENCE) {
        if let Frame::Data(FrameKind::Publish, ..) = &frame {
            got.push(number(&frame));
        }
    }
    got
}

#[test]
fn members_leave_under_load_and_what_was_not_handed_to_their_sockets_goes_to_the_others() {
    for plugins in BOTH {
        let daemon = Daemon::start(plugins, &["--queue-bytes", "300000"]);
        let addresses = daemon.addresses();
        // over TCP, a client that closes with unread data in the other direction may be reset
        let address = addresses.iter().find(|address| address.starts_with("unix:")).unwrap();
        let mut publisher = daemon.client("publisher");
        let mut last = Wire::connect(&daemon, address, "last");
        last.subscribe(&["$share/g/t/#", "end"]);
        let rounds = rounds(200, 10_000) as u32;
        let ended = AtomicBool::new(false);
        let (published, mut got, cut) = std::thread::scope(|scope| {
            let publishing = scope.spawn(|| {
                let mut count = 0u32;
                while !ended.load(Ordering::SeqCst) {
                    let mut bytes = Vec::new();
                    for number in count..count + 100 {
                        let (topic, mut payload) = (format!("t/{}", number / 10 % 3), vec![0; 700]);
                        payload[..4].copy_from_slice(&number.to_le_bytes());
                        encode_request(&mut bytes, number, Op::Publish, Qos::PROCESSED, &topic, "", &payload)
                            .unwrap();
                    }
                    publisher.write(&bytes);
                    (count..count + 100).for_each(|number| assert_eq!(publisher.expect_ack(number), 0x01));
                    count += 100;
                }
                assert_eq!(publisher.acked(Op::Publish, "end", b"last"), 0x01);
                count
            });
            let reading = scope.spawn(|| {
                let mut got = vec![];
                loop {
                    match last.frame() {
                        Frame::Data(_, _, topic, ..) if topic == "end" => return got,
                        frame => got.push(number(&frame)),
                    }
                }
            });
            let (mut got, mut cut) = (vec![], 0);
            for round in 0..rounds {
                let mut member = Wire::connect(&daemon, address, &format!("m.{round}"));
                member.subscribe(&["$share/g/t/#"]);
                // so long that its socket is full, or not at all
                if round % 4 == 0 {
                    std::thread::sleep(Duration::from_millis(20));
                }
                member.shutdown(Shutdown::Write);
                got.extend(read_to_end(&mut member));
                cut += usize::from(member.has_partial_frame());
            }
            ended.store(true, Ordering::SeqCst);
            let published = publishing.join().unwrap();
            got.extend(reading.join().unwrap());
            (published, got, cut)
        });
        got.sort_unstable();
        let before = got.len();
        got.dedup();
        assert_eq!(got.len(), before, "nothing twice");
        // but frames that were partly in the socket of a member
        assert_eq!(got.len() + cut, published as usize, "{cut} were cut");
    }
}
