//! Passes log messages of loaded plugins to the broker's subscriber and filter.
//!
//! A `tracing` event needs static metadata, but a plugin's target is known only at run time. Records of the
//! `log` crate do not have this restriction.

use tracing::level_filters::LevelFilter;
use tracing_log::AsTrace;

fn level(number: u8) -> log::Level {
    match number {
        0 | 1 => log::Level::Error,
        2 => log::Level::Warn,
        3 => log::Level::Info,
        4 => log::Level::Debug,
        _ => log::Level::Trace,
    }
}

/// Returns the most verbose level in use, from 0 (off) to 5 (trace).
pub(super) fn max_level() -> u8 {
    match LevelFilter::current() {
        LevelFilter::OFF => 0,
        LevelFilter::ERROR => 1,
        LevelFilter::WARN => 2,
        LevelFilter::INFO => 3,
        LevelFilter::DEBUG => 4,
        _ => 5,
    }
}

/// Returns whether a message of this level and target is logged.
pub(super) fn enabled(number: u8, target: &str) -> bool {
    let metadata = log::Metadata::builder().level(level(number)).target(target).build();
    let is_enabled = || tracing::dispatcher::get_default(|dispatch| dispatch.enabled(&metadata.as_trace()));
    std::panic::catch_unwind(is_enabled).unwrap_or(false)
}

/// Logs a message.
pub(super) fn write(number: u8, target: &str, message: &str, fields: &str) {
    // the subscriber belongs to the program and may use thread-locals that an ending thread has lost; a panic
    // must not reach the plugin, whose own panic hook may be the caller
    _ = std::panic::catch_unwind(|| {
        if !enabled(number, target) {
            return;
        }
        let space = if fields.is_empty() { "" } else { " " };
        let text = format_args!("{message}{space}{fields}");
        // fails only without a subscriber
        _ = tracing_log::format_trace(
            &log::Record::builder().level(level(number)).target(target).args(text).build(),
        );
    });
}
