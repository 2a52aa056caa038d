//! Hostile senders beside other clients: long names with empty messages, so that each byte becomes a hundred,
//! to receivers that do not read; and large frames that are never completed.

use elbus_protocol::{Op, Qos, request::encode_request};
use std::time::{Duration, Instant};

use crate::support::{
    daemon::{BOTH, Daemon},
    field,
    load::Load,
    wire::Wire,
};

const MAX_QUEUED: u64 = 32 << 20;
/// Memory held beyond the limit: a run for each queue and thread (2 MiB), a read for each sender (3.75 MiB),
/// and for each transport the frame that continues without budget (two of 4 MB).
const BEYOND: u64 = 14 << 20;

#[test]
fn hostile_senders_use_no_more_memory_than_the_queue_limit() {
    for plugins in BOTH {
        let key = if plugins == "library" { "library = \"elbus_" } else { "builtin = \"" };
        let text = format!(
            r#"
            broker.max_queued_bytes = {MAX_QUEUED}
            [[plugin]]
            name = "local"
            {key}unix"
            config = {{ path = "bus.sock", queue_bytes = 4000000, timeout_seconds = 3.0, stall_seconds = 2.0 }}
            [[plugin]]
            name = "network"
            {key}tcp"
            config = {{ bind = "127.0.0.1:0", queue_bytes = 4000000, timeout_seconds = 3.0, stall_seconds = 2.0 }}
            [[plugin]]
            name = "rpc"
            {key}rpc"
            "#
        );
        let daemon = Daemon::start_config(&text);
        let load = Load::start(&daemon);
        let addresses = daemon.addresses();
        let mut witness = daemon.client("witness");
        let before = daemon.memory();
        let end = Instant::now() + Duration::from_secs(4);
        std::thread::scope(|scope| {
            for number in 0..4 {
                let stuck = Wire::connect(&daemon, &addresses[number % 2], &format!("stuck{number}"));
                let mut flood = Vec::new();
                for id in 0..10_000 {
                    encode_request(&mut flood, id, Op::Message, Qos::NO, &format!("stuck{number}"), "", b"")
                        .unwrap();
                }
                for (sender, address) in addresses.iter().enumerate().take(2) {
                    let name = format!("{number}{sender}{}", "n".repeat(1022));
                    let mut sender = Wire::connect(&daemon, address, &name);
                    let flood = flood.clone();
                    scope.spawn(move || while Instant::now() < end && sender.try_write(&flood) {});
                }
                scope.spawn(move || {
                    let mut pinging = stuck.writer();
                    while Instant::now() < end && pinging.try_write(&[0; 9]) {
                        std::thread::sleep(Duration::from_millis(50));
                    }
                    drop(stuck);
                });
            }
            for number in 0..12 {
                let mut sender = Wire::connect(&daemon, &addresses[number % 2], &format!("half{number}"));
                scope.spawn(move || {
                    let mut frame = vec![1, 0, 0, 0, 0x12];
                    frame.extend(8_000_000u32.to_le_bytes());
                    frame.resize(4_000_000, b'x');
                    sender.try_write(&frame);
                    while Instant::now() < end && sender.try_write(&[]) {
                        std::thread::sleep(Duration::from_millis(50));
                    }
                });
            }
            while Instant::now() < end {
                let health = witness.control("health", &[]).unwrap();
                let queued = field(&health, "queued_bytes").as_u64().unwrap();
                assert!(queued <= MAX_QUEUED + BEYOND, "{plugins}: {queued} bytes");
                let grown = daemon.memory().saturating_sub(before) * 1024;
                assert!(grown <= 2 * (MAX_QUEUED + BEYOND), "{plugins}: {grown} bytes");
                load.wait_for_more();
            }
        });
        load.stop();
    }
}
