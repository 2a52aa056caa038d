//! The byte stream: all bytes arrive in both directions, and control frames stand between frames of data.

use elbus_testing::websocket::frame;
use proptest::prelude::*;
use std::time::Duration;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex},
    runtime::Builder,
};

use tungstenite::protocol::frame::coding::CloseCode;

use super::*;

fn open(room: usize, ahead: &[u8]) -> (DuplexStream, ByteStream<DuplexStream>) {
    let (client, server) = duplex(room);
    (client, ByteStream::new(server, ahead.to_vec(), Arc::new(Closing::default())))
}

/// Runs a test with a limit of time.
fn run<T>(test: impl Future<Output = T>) -> T {
    let runtime = Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async { tokio::time::timeout(Duration::from_secs(20), test).await.unwrap() })
}

/// Splits what a server has sent into frames: first byte and payload.
fn frames(mut wire: &[u8]) -> Vec<(u8, Vec<u8>)> {
    let mut found = vec![];
    while let [first, len, rest @ ..] = wire {
        let (len, rest) = match len {
            126 => (u16::from_be_bytes(rest[..2].try_into().unwrap()).into(), &rest[2..]),
            127 => (u64::from_be_bytes(rest[..8].try_into().unwrap()), &rest[8..]),
            len => (u64::from(*len), rest),
        };
        let (payload, rest) = rest.split_at(len as usize);
        found.push((*first, payload.to_vec()));
        wire = rest;
    }
    found
}

#[test]
fn a_ping_is_answered_although_nothing_else_is_sent() {
    run(async {
        let (mut client, mut server) = open(1000, &frame(0x89, b"one"));
        client.write_all(&frame(0x89, b"two")).await.unwrap();
        client.write_all(&frame(0x82, b"data")).await.unwrap();
        let mut data = [0; 10];
        assert_eq!(server.read(&mut data).await.unwrap(), 4);
        let mut pongs = [0; 10];
        client.read_exact(&mut pongs).await.unwrap();
        assert_eq!(frames(&pongs), [(0x8A, b"one".to_vec()), (0x8A, b"two".to_vec())]);
    });
}

#[test]
fn pings_of_a_client_that_reads_nothing_take_no_memory_and_do_not_cut_data() {
    run(async {
        let (mut client, mut server) = open(64, b"");
        let mut read = [0; 10];
        // the client does not read: data is sent in part only
        let data = [5; 300];
        assert!(tokio::time::timeout(Duration::from_millis(1), server.write_all(&data)).await.is_err());
        assert!(server.output.frame_left > 0);
        let sent = data.len() - server.output.frame_left;
        for number in 0..200u8 {
            client.write_all(&frame(0x89, &[number])).await.unwrap();
            client.write_all(&frame(0x82, &[number])).await.unwrap();
            assert_eq!(server.read(&mut read).await.unwrap(), 1);
        }
        assert!(server.output.pong.as_ref().is_some_and(|pong| pong == &[199]), "the last one");
        let (mut wire, rest) = (vec![], &data[sent..]);
        let writing = async {
            server.write_all(rest).await.unwrap();
            server.write_all(b"more").await.unwrap();
            server.shutdown().await.unwrap();
        };
        tokio::join!(writing, async { client.read_to_end(&mut wire).await.unwrap() });
        let expected =
            [(0x82, data.to_vec()), (0x8A, vec![199]), (0x82, b"more".to_vec()), (0x88, vec![0x03, 0xE8])];
        assert_eq!(frames(&wire), expected);
    });
}

#[test]
fn a_close_frame_repeats_the_code_and_nothing_follows() {
    run(async {
        let close = frame(0x88, &[0x03, 0xE9, b'x']);
        let (mut client, mut server) = open(1000, &[&close[..], &frame(0x82, b"late")].concat());
        assert_eq!(server.read(&mut [0; 10]).await.unwrap(), 0);
        assert_eq!(server.read(&mut [0; 10]).await.unwrap(), 0, "and it stays the end");
        server.write_all(b"last words").await.unwrap();
        server.shutdown().await.unwrap();
        assert!(server.write_all(b"x").await.is_err());
        let mut wire = vec![];
        client.read_to_end(&mut wire).await.unwrap();
        assert_eq!(frames(&wire), [(0x82, b"last words".to_vec()), (0x88, vec![0x03, 0xE9])]);
    });
}

#[test]
fn what_follows_a_violation_is_discarded_until_the_client_closes() {
    run(async {
        let (mut client, mut server) = open(100, &frame(0x81, b"text"));
        let flooding = async {
            for _ in 0..1000 {
                client.write_all(&frame(0x82, &[1; 50])).await.unwrap();
            }
            client.shutdown().await.unwrap();
        };
        let (read, ()) = tokio::join!(server.read_u8(), flooding);
        assert!(read.is_err(), "the end, and no data");
        server.shutdown().await.unwrap();
        let mut wire = vec![];
        client.read_to_end(&mut wire).await.unwrap();
        let expected = [&[0x03, 0xEB][..], b"text message; the protocol is binary"].concat();
        assert_eq!(frames(&wire), [(0x88, expected)]);
    });
}

#[test]
fn a_long_reason_is_cut_between_characters() {
    let closing = Closing::default();
    let mut output = Output { close: CloseState::Due, ..Output::default() };
    closing.decide(CloseCode::Policy, "\u{e4}".repeat(200));
    output.begin_control(&closing);
    assert_eq!(output.pending.len(), 2 + 2 + 122);
    assert_eq!(std::str::from_utf8(&output.pending[4..]).unwrap(), "\u{e4}".repeat(61));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    #[test]
    fn both_directions_carry_all_bytes_whatever_the_socket_takes(
        up in prop::collection::vec(prop::collection::vec(any::<u8>(), 1..3000), 0..20),
        down in prop::collection::vec(prop::collection::vec(any::<u8>(), 1..3000), 0..20),
        room in 20usize..5000,
    ) {
        run(async {
            let (client, mut server) = open(room, b"");
            let (mut from_server, mut to_server) = tokio::io::split(client);
            let (all_up, all_down) = (up.concat(), down.concat());
            let sending = async {
                for bytes in &up {
                    to_server.write_all(&frame(0x82, bytes)).await.unwrap();
                    to_server.write_all(&frame(0x89, b"p")).await.unwrap();
                }
                to_server.write_all(&frame(0x88, b"")).await.unwrap();
            };
            let mut wire = vec![];
            let receiving = async { from_server.read_to_end(&mut wire).await.unwrap() };
            let mut received = vec![];
            let serving = async {
                let (mut reader, mut writer) = tokio::io::split(&mut server);
                let reading = async { reader.read_to_end(&mut received).await.unwrap() };
                let writing = async {
                    for bytes in &down {
                        writer.write_all(bytes).await.unwrap();
                    }
                };
                tokio::join!(reading, writing);
                writer.shutdown().await.unwrap();
                drop((reader, writer));
                drop(server);
            };
            tokio::join!(sending, receiving, serving);
            assert!(received == all_up);
            let data = frames(&wire).into_iter().filter(|(first, _)| *first == 0x82);
            assert!(data.flat_map(|(_, payload)| payload).collect::<Vec<_>>() == all_down);
        });
    }
}
