//! Runs a test of this program in a child process, which can be killed or placed in another network
//! namespace.

use std::process::{Command, Stdio};

/// The environment variable with the test's parameter, set in such a child process.
const PARAMETER: &str = "ELBUS_TEST_PARAMETER";

/// Returns a command that runs only `test`, an ignored one, through programs that execute it.
pub(crate) fn command(through: &[&str], test: &str, parameter: &str) -> Command {
    let own = std::env::current_exe().unwrap();
    let words = [through, &[own.to_str().unwrap(), "--exact", test, "--ignored", "--nocapture"]].concat();
    let mut command = Command::new(words[0]);
    command.args(&words[1..]).env(PARAMETER, parameter).stdin(Stdio::null()).stdout(Stdio::null());
    command
}

/// Returns the parameter of this process, or `None` if the ignored tests are run by hand.
pub(crate) fn parameter() -> Option<String> {
    std::env::var(PARAMETER).ok()
}
