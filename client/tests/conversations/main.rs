//! Runs the conversations of `protocol/conformance/conversations` with this client: what the broker writes in
//! one piece, and one byte at a time.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod client_side;
mod operation;
mod peer;
mod script;

use client_side::ClientSide;
use script::conversations;

/// Runs all conversations of a file.
fn run(file: &str, text: &str) {
    let conversations = conversations(file, text);
    assert!(conversations.len() >= 5);
    for conversation in &conversations {
        let cuts = conversation.cut_bytes().map_or(vec![None], |bytes| (0..bytes).map(Some).collect());
        for (byte_by_byte, cut) in
            [false, true].into_iter().flat_map(|mode| cuts.iter().map(move |cut| (mode, *cut)))
        {
            println!("{file}: {} (byte by byte: {byte_by_byte}, cut: {cut:?})", conversation.title);
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                // a paused clock would advance by itself whenever the runtime waits for a socket
                let (hold, held) = std::sync::mpsc::channel::<()>();
                tokio::time::pause();
                let held = tokio::task::spawn_blocking(move || held.recv());
                ClientSide::new(byte_by_byte, cut).play(conversation).await;
                drop(hold);
                let _ = held.await;
            });
        }
    }
}

#[test]
fn connecting() {
    run("connecting.txt", include_str!("../../../protocol/conformance/conversations/connecting.txt"));
}

#[test]
fn operations() {
    run("operations.txt", include_str!("../../../protocol/conformance/conversations/operations.txt"));
}

#[test]
fn topics() {
    run("topics.txt", include_str!("../../../protocol/conformance/conversations/topics.txt"));
}

#[test]
fn rpc() {
    run("rpc.txt", include_str!("../../../protocol/conformance/conversations/rpc.txt"));
}

#[test]
fn options() {
    run("options.txt", include_str!("../../../protocol/conformance/conversations/options.txt"));
}

#[test]
fn gaps() {
    run("gaps.txt", include_str!("../../../protocol/conformance/conversations/gaps.txt"));
}

#[test]
fn reconnection() {
    run("reconnection.txt", include_str!("../../../protocol/conformance/conversations/reconnection.txt"));
}

#[test]
fn lost() {
    run("lost.txt", include_str!("../../../protocol/conformance/conversations/lost.txt"));
}

#[test]
fn every_file_is_run() {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../protocol/conformance/conversations");
    let mut files: Vec<_> = std::fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    files.sort();
    let run = [
        "connecting.txt",
        "gaps.txt",
        "lost.txt",
        "operations.txt",
        "options.txt",
        "reconnection.txt",
        "rpc.txt",
        "topics.txt",
    ];
    assert_eq!(files, run);
}
