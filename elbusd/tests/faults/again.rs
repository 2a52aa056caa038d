//! Runs a test of this very program in a process of its own, which can be killed, or put where the network is another.

use std::process::{Command, Stdio};

/// Set in such a process: what the test needs to know.
const TOLD: &str = "ELBUS_TEST_TOLD";

/// This program, running only `test`, an ignored one, by way of programs that become it.
pub(crate) fn command(through: &[&str], test: &str, told: &str) -> Command {
    let own = std::env::current_exe().unwrap();
    let words = [through, &[own.to_str().unwrap(), "--exact", test, "--ignored", "--nocapture"]].concat();
    let mut command = Command::new(words[0]);
    command.args(&words[1..]).env(TOLD, told).stdin(Stdio::null()).stdout(Stdio::null());
    command
}

/// What this process was told; `None` where somebody runs the ignored tests by hand.
pub(crate) fn told() -> Option<String> {
    std::env::var(TOLD).ok()
}
