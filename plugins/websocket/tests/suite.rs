//! The suite of the stream transports, over WebSocket. A set of access rules is in force, so that no token is
//! needed.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use elbus_plugin_api::{access::AccessRules, testing::FakeHost};
use elbus_testing::{
    stream::{Bus, suite},
    websocket::WebSocketPeer,
};
use elbus_websocket::WebSocket;

fn bus(settings: &str) -> Bus<WebSocketPeer> {
    let fake = FakeHost::new();
    fake.host("access").set_access_rules(&AccessRules::default()).unwrap();
    let config = format!("bind = '127.0.0.1:0'\n{settings}");
    let instance = fake.create::<WebSocket>("web", &config).unwrap();
    Bus::over(fake, instance, WebSocketPeer::connect)
}

#[test]
fn handshake_byte_by_byte() {
    suite::handshake_byte_by_byte(bus);
}

#[test]
fn everything_sent_ahead() {
    suite::everything_sent_ahead(bus);
}

#[test]
fn every_refusal_has_its_code() {
    suite::every_refusal_has_its_code(bus);
}

#[test]
fn malformed_frames_close_only_their_client() {
    suite::malformed_frames_close_only_their_client(bus);
}

#[test]
fn runs_are_dispatched_and_acknowledged_in_order() {
    suite::runs_are_dispatched_and_acknowledged_in_order(bus);
}

#[test]
fn calls_of_the_broker_are_dispatched_in_short_runs() {
    suite::calls_of_the_broker_are_dispatched_in_short_runs(bus);
}

#[test]
fn large_payloads_arrive_whole() {
    suite::large_payloads_arrive_whole(bus);
}

#[test]
fn a_slow_reader_gets_everything_in_order() {
    suite::a_slow_reader_gets_everything_in_order(bus);
}

#[test]
fn a_client_that_takes_nothing_is_disconnected() {
    suite::a_client_that_takes_nothing_is_disconnected(bus);
}

#[test]
fn a_client_that_reads_slowly_is_not_disconnected() {
    suite::a_client_that_reads_slowly_is_not_disconnected(bus);
}

#[test]
fn a_silent_client_is_disconnected() {
    suite::a_silent_client_is_disconnected(bus);
}

#[test]
fn pings_keep_a_client_and_nops_come() {
    suite::pings_keep_a_client_and_nops_come(bus);
}

#[test]
fn either_side_can_close() {
    suite::either_side_can_close(bus);
}

#[test]
fn overflow_policies() {
    suite::overflow_policies(bus);
}

#[test]
fn a_client_that_reads_no_acknowledgements_is_held() {
    suite::a_client_that_reads_no_acknowledgements_is_held(bus);
}

#[test]
fn stop_drains_and_closes() {
    suite::stop_drains_and_closes(bus);
}

#[test]
fn stop_does_not_wait_indefinitely() {
    suite::stop_does_not_wait_indefinitely(bus);
}
