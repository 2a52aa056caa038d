//! Clients whose process is killed while it writes a frame.

use elbus_protocol::{Op, Qos, handshake::encode_client_greeting, request::encode_request};
use std::{
    collections::HashMap,
    io::{BufRead, BufReader, Write},
    path::Path,
    process::Stdio,
};

use crate::{
    child_process,
    support::{
        daemon::Daemon,
        level::Level,
        load::Load,
        wait_until,
        wire::{Frame, Wire},
    },
};

/// Processes that are killed, one after another.
const PROCESSES: u32 = 250;
/// Clients per process.
const CLIENTS: u32 = 4;
/// Acknowledged messages of each client before the one it never completes.
const MESSAGES: u32 = 20;
const BYTES: usize = 2000;

/// Returns message `number` of a client of a process.
fn message(process: u32, client: u32, number: u32) -> Vec<u8> {
    let mut payload = vec![0x5a; BYTES];
    for (at, value) in [process, client, number].into_iter().enumerate() {
        payload[at * 4..][..4].copy_from_slice(&value.to_le_bytes());
    }
    let mut frame = Vec::new();
    encode_request(&mut frame, number, Op::Message, Qos::PROCESSED, "receiver", "", &payload).unwrap();
    frame
}

#[test]
#[ignore = "is run by a_thousand_clients_killed_in_the_middle_of_a_frame_affect_no_other_client"]
fn child_process_that_waits_to_be_killed() {
    let Some(parameter) = child_process::parameter() else { return };
    let words: Vec<_> = parameter.split(' ').collect();
    let (process, folder): (u32, _) = (words[0].parse().unwrap(), Path::new(words[1]));
    let addresses = &words[2..];
    let mut clients = Vec::new();
    for client in 0..CLIENTS {
        let address = addresses[client as usize % addresses.len()];
        let mut wire = Wire::connect_from(folder, address, &format!("killed.{client}"));
        for number in 0..MESSAGES {
            wire.write(&message(process, client, number));
        }
        for number in 0..MESSAGES {
            assert_eq!(wire.expect_ack(number), 0x01);
        }
        let last = message(process, client, MESSAGES);
        // in the header, in the target, in the payload, one byte before the end
        let cut = [1, 8, 9, 12, 40, BYTES / 2, last.len() - 1][(process + client) as usize % 7];
        wire.write(&last[..cut]);
        clients.push(wire);
    }
    writeln!(std::io::stderr(), "in the middle").unwrap();
    // every other process is killed while it writes, at a random position in a frame
    let writes_on = process.is_multiple_of(2);
    let mut writer = clients[0].writer();
    let last = message(process, 0, MESSAGES);
    let cut = [1, 8, 9, 12, 40, BYTES / 2, last.len() - 1][process as usize % 7];
    if writes_on {
        writer.write(&last[cut..]);
    }
    for number in MESSAGES + 1.. {
        if writes_on {
            message(process, 0, number).chunks(700).for_each(|piece| writer.write(piece));
        } else {
            std::thread::park();
        }
    }
}

/// Returns how many messages arrived from each client of each process, complete, in order and once.
fn receive(mut receiver: Wire) -> HashMap<(u32, u32), u32> {
    let mut arrived = HashMap::new();
    loop {
        receiver.ping();
        let Frame::Data(_, sender, _, payload, _) = receiver.frame() else { panic!("an acknowledgement") };
        match &*sender {
            ".broker" => continue,
            "end" => return arrived,
            _ => assert_eq!(payload.len(), BYTES, "whole"),
        }
        let word = |at: usize| u32::from_le_bytes(payload[at * 4..][..4].try_into().unwrap());
        let (process, client, number) = (word(0), word(1), word(2));
        assert_eq!(sender, format!("killed.{client}"));
        let expected = arrived.entry((process, client)).or_insert(0);
        assert_eq!(number, *expected, "client {client} of process {process}");
        *expected += 1;
    }
}

#[test]
fn a_thousand_clients_killed_in_the_middle_of_a_frame_affect_no_other_client() {
    let daemon = Daemon::start("library", &[]);
    let load = Load::start(&daemon);
    let receiving = daemon.client("receiver");
    let level = Level::of(&daemon);
    let receiving = std::thread::spawn(move || receive(receiving));
    let folder = daemon.folder.path().to_str().unwrap().to_owned();
    for process in 0..PROCESSES {
        let parameter = format!("{process} {folder} {}", daemon.addresses().join(" "));
        let mut command =
            child_process::command(&[], "killed_clients::child_process_that_waits_to_be_killed", &parameter);
        let mut child = command.stderr(Stdio::piped()).spawn().unwrap();
        let mut lines = BufReader::new(child.stderr.take().unwrap()).lines().map_while(Result::ok);
        let mut text = String::new();
        while !text.contains("in the middle") {
            text += &lines.next().unwrap_or_else(|| panic!("process {process} has ended: {text}"));
        }
        child.kill().unwrap();
        child.wait().unwrap();
    }
    // as many clients as before: every name is free
    let mut end = daemon.client("end");
    for client in 0..CLIENTS {
        wait_until("its name is free", || end.send(&format!("killed.{client}"), b"") == 0x71);
    }
    assert_eq!(end.send("receiver", b""), 0x01);
    drop(end);
    let arrived = receiving.join().unwrap();
    for process in 0..PROCESSES {
        for client in 0..CLIENTS {
            let count = arrived.get(&(process, client)).copied().unwrap_or_default();
            let goes_on = process.is_multiple_of(2) && client == 0;
            assert!(
                count == MESSAGES || (goes_on && count > MESSAGES),
                "{count} messages of client {client} of process {process}"
            );
        }
    }
    load.wait_for_more();
    level.wait_for(&daemon);
    load.stop();
}

#[test]
fn clients_that_reset_their_connection_in_the_middle_of_a_frame_affect_no_other_client() {
    let daemon = Daemon::start("builtin", &["--bind", "127.0.0.1:0"]);
    let load = Load::start(&daemon);
    let receiving = daemon.client("receiver");
    let level = Level::of(&daemon);
    let receiving = std::thread::spawn(move || receive(receiving));
    let addresses = daemon.addresses();
    for process in 0..300 {
        let address = &addresses[1 + process as usize % 2];
        let mut client = Wire::connect(&daemon, address, "killed.0");
        for number in 0..MESSAGES {
            client.write(&message(process, 0, number));
        }
        for number in 0..MESSAGES {
            assert_eq!(client.expect_ack(number), 0x01);
        }
        client.write(&message(process, 0, MESSAGES)[..1 + process as usize * 6]);
        client.reset();
        // a client that sent less
        let mut raw = Wire::raw(&daemon, address);
        raw.write(&encode_client_greeting()[..process as usize % 3]);
        raw.reset();
    }
    let mut end = daemon.client("end");
    wait_until("its name is free", || end.send("killed.0", b"") == 0x71);
    assert_eq!(end.send("receiver", b""), 0x01);
    drop(end);
    let arrived = receiving.join().unwrap();
    assert!((0..300).all(|process| arrived.get(&(process, 0)) == Some(&MESSAGES)), "{arrived:?}");
    load.wait_for_more();
    level.wait_for(&daemon);
    load.stop();
}
