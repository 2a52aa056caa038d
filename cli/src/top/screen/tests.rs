//! Tests of the screen at many sizes, drawn into a buffer.

use ratatui::{Terminal, backend::TestBackend};
use std::time::Duration;

use super::*;
use crate::top::{
    keys::Action,
    model::{BrokerSample, Counters, Rates, Snapshot},
};

fn row(name: &str, kind: &str, source: &str, port: &str, rate: f64) -> Row {
    Row {
        name: name.into(),
        kind: kind.into(),
        source: source.into(),
        port: port.into(),
        counters: Counters { r_frames: 123_456, r_bytes: 9_999_999, w_frames: 42, w_bytes: u64::MAX },
        rates: Some(Rates { r_frames: rate, r_bytes: rate * 100.0, w_frames: 0.5, w_bytes: 1e7 }),
        queue: 17,
        instances: 2,
        pid: Some(4_194_304),
        has_rings: true,
    }
}

fn state(width: u16, height: u16) -> State {
    let mut state = State::new("unix:/run/user/1000/elbus.sock".into(), Column::Rx, String::new());
    let broker = BrokerSample {
        author: "ELBUS".into(),
        version: "0.1.0".into(),
        name: Some("plant".into()),
        uptime: Some(93_784),
        counters: None,
        refused_frames: Some(3),
    };
    let rates = Some(Rates { r_frames: 12_345.0, r_bytes: 1e6, w_frames: 999_999.0, w_bytes: 123_456_789.0 });
    let rows = vec![
        row(".broker", "internal", "", "", 0.0),
        row("plant.sensor", "local_ipc", "", "/run/user/1000/elbus.sock", 250.0),
        row(
            "a.very.long.name.that.nobody.can.fit.into.a.column",
            "tcp",
            "192.168.100.100:54321",
            "0.0.0.0:7777",
            7.0,
        ),
        row("日本語の名前がとても長い場合はどうなりますか", "websocket", "[2001:db8::1]:443", "", 3.0),
    ];
    state.show(Snapshot { totals: Totals { broker, rates, clients: 4, queued: 68 }, rows });
    state.size = (width, height);
    state
}

/// Returns the lines of the screen; a wide character is one character.
fn drawn(state: &State) -> Vec<String> {
    let (width, height) = state.size;
    let mut terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
    terminal.draw(|frame| draw(frame, state, Theme { colour: true })).unwrap();
    let buffer = terminal.backend().buffer().clone();
    let mut lines = Vec::new();
    for y in 0..height {
        let (mut line, mut skip) = (String::new(), 0);
        for x in 0..width {
            if skip > 0 {
                skip -= 1;
                continue;
            }
            let symbol = buffer[(x, y)].symbol();
            skip = text::width(symbol).saturating_sub(1);
            line.push_str(symbol);
        }
        assert!(text::width(&line) <= usize::from(width), "{line}");
        lines.push(line.trim_end().to_owned());
    }
    lines
}

#[test]
fn eighty_by_twenty_four() {
    let lines = drawn(&state(80, 24));
    assert_eq!(
        lines[..8],
        [
            "elbus top  unix:/run/user/1000/elbus.sock  plant ELBUS 0.1.0      up 1d 02:03:04",
            "clients 4  queued 68  in 12.3k f/s 977KiB/s  out 1.0M f/s 118MiB/s  refused 3",
            "                                                                     sort RX/S ▼",
            "NAME             KIND      SOURCE          PORT    RX/S  TX/S BYTES/S QUEUE INST",
            "plant.sensor     local_ipc                 ….sock   250   0.5   9.6Mi    17    2",
            "a.very.long.nam… tcp       ….100.100:54321 …:7777   7.0   0.5   9.5Mi    17    2",
            "日本語の名前が…  websocket …01:db8::1]:443          3.0   0.5   9.5Mi    17    2",
            ".broker          internal                             0   0.5   9.5Mi    17    2",
        ]
    );
    assert_eq!(lines[23], "q quit  / filter  s sort  r reverse  p pause  ? help                    1-4 of 4");
}

#[test]
fn a_hundred_and_twenty_by_forty_shows_more_columns() {
    let lines = drawn(&state(120, 40));
    for title in ["PID", "RINGS", "RX B/S", "TX B/S"] {
        assert!(lines[3].contains(title), "{}", lines[3]);
    }
    assert!(lines[1].contains("in 12.3k frames/s 977KiB/s"), "{}", lines[1]);
    assert!(lines[4].contains("4194304 yes") && lines[4].contains("local_ipc"), "{}", lines[4]);
    let widest = drawn(&state(200, 40));
    assert!(widest[5].contains("a.very.long.name.that.nobody.can.fit.into.a.column "), "{}", widest[5]);
}

#[test]
fn forty_by_ten_shows_names_and_rates() {
    let lines = drawn(&state(40, 10));
    assert!(lines[3].starts_with("NAME") && lines[3].ends_with("QUEUE"), "{}", lines[3]);
    assert!(lines[4].starts_with("plant.sensor"), "{}", lines[4]);
    assert_eq!(lines[1], "clients 4  queued 68", "whole items only");
    assert!(lines[9].ends_with("1-4 of 4"), "{}", lines[9]);
}

#[test]
fn no_size_and_no_mode_panics() {
    for width in (0..50).chain([79, 80, 300]) {
        for height in (0..8).chain([14, 24, 100]) {
            for mode in [Mode::Table, Mode::Filter, Mode::Help] {
                let mut state = state(width, height);
                state.mode = mode;
                state.connection = Connection::Failing("no answer within 5 s".into());
                state.apply(Action::Pause);
                state.scroll = usize::MAX;
                drawn(&state);
                state.show(Snapshot::default());
                state.apply(Action::Pause);
                drawn(&state);
            }
        }
    }
}

#[test]
fn a_lost_connection_and_a_pause_are_shown() {
    let mut state = state(80, 24);
    let retry = Some((3, Duration::from_millis(400)));
    state.connection = Connection::Lost { reason: "closed by\x1b[2J the broker".into(), retry };
    state.apply(Action::Pause);
    let status = drawn(&state).swap_remove(2);
    assert!(status.starts_with("reconnecting in 0.4 s, attempt 3: closed by\\x1b[2J the"), "{status}");
    assert!(status.ends_with(" PAUSED  sort RX/S ▼"), "{status}");
}

#[test]
fn the_filter_is_shown_while_typed_and_after() {
    let mut state = state(80, 24);
    for action in [Action::Filter, Action::Type('t'), Action::Type('c'), Action::Type('p')] {
        state.apply(action);
    }
    let lines = drawn(&state);
    assert!(lines[2].starts_with("filter: tcp_  (1 of 4)"), "{}", lines[2]);
    assert!(lines[4].starts_with("a.very") && lines[5].is_empty(), "{lines:?}");
    assert!(lines[23].starts_with("Enter keep"), "{}", lines[23]);
    state.apply(Action::KeepFilter);
    assert!(drawn(&state)[2].starts_with("filter: tcp  (1 of 4)"));
}

#[test]
fn the_help_lists_the_keys() {
    let mut state = state(80, 24);
    state.apply(Action::Help);
    let text = drawn(&state).join("\n");
    for expected in [" help ", "Ctrl-C", "reverse the order", "any key closes the help"] {
        assert!(text.contains(expected), "{text}");
    }
}

#[test]
fn scrolling_skips_the_first_rows() {
    let mut state = state(80, 7);
    assert_eq!(visible_rows(7), 2);
    state.apply(Action::End);
    let lines = drawn(&state);
    assert!(lines[4].starts_with("日本語") && lines[5].starts_with(".broker"), "{lines:?}");
    assert!(lines[6].ends_with("3-4 of 4"), "{}", lines[6]);
}

#[test]
fn control_characters_are_not_drawn() {
    let mut state = state(80, 24);
    state.filter = "\x07".into();
    state.address = "unix:/tmp/x\x1b]0;y\x07".into();
    let text = drawn(&state).concat();
    assert!(!text.contains(char::is_control), "{text:?}");
}
