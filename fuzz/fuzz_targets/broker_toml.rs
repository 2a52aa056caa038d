//! Any text as broker.toml is accepted, or refused with a line number and a message of one line.
#![no_main]

use elbus_broker::{BrokerError, ConfigError, ConfigFile};
use elbus_plugin_api::PluginError;
use libfuzzer_sys::fuzz_target;
use std::path::Path;

fn check(error: &ConfigError, text: &str) {
    let line = error.line.unwrap_or_else(|| panic!("no line: {error}"));
    assert!((1..=1 + text.matches('\n').count()).contains(&line), "{error}");
    check_message(error);
}

fn check_message(error: &ConfigError) {
    assert!(!error.message.is_empty() && !error.message.contains(char::is_control), "{error:?}");
}

fuzz_target!(|data: &[u8]| {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let linked = [("fifo", elbus_fifo::plugin())];
    let file = match ConfigFile::parse(Path::new("dir/broker.toml"), text.to_owned(), &linked) {
        Ok(file) => file,
        Err(error) => return check(&error, text),
    };
    assert!(!format!("{:?}", file.builder()).is_empty());
    // errors that a plugin may report for its table, including for keys taken from the text
    let key = text.split_whitespace().next_back().unwrap_or_default();
    for plugin in text.split(['"', '\'']).take(8) {
        let error = PluginError::of_key(key, "wrong");
        let located = file.locate(&BrokerError::Configure { plugin: plugin.to_owned(), error });
        check_message(&located);
        assert!(located.line.is_none_or(|line| (1..=1 + text.matches('\n').count()).contains(&line)));
    }
});
