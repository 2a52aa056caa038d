//! Regular expressions of clients, bounded in length, compiled size, and the processor time of compiling and
//! matching together.

use elbus_plugin_api::CallError;
use elbus_protocol::rpc::{INVALID_PARAMS, PARSE_ERROR};
use regex::{Regex, RegexBuilder};
use rustix::time::{ClockId, clock_gettime};
use std::time::Duration;

/// The limit of an expression, and of a mask or filter in the parameters of a method.
pub(super) const MAX_PATTERN_BYTES: usize = 1024;
/// The limit of a compiled expression, and of the automaton that matches it.
const MAX_COMPILED_BYTES: usize = 1024 * 1024;
/// The limit of processor time for one call.
const MAX_TIME: Duration = Duration::from_millis(100);

/// A compiled expression and its time limit.
pub(super) struct BoundedRegex {
    regex: Regex,
    started: Duration,
    limit: Duration,
}

impl BoundedRegex {
    /// Compiles an expression.
    ///
    /// # Errors
    /// It is invalid or too large.
    pub(super) fn new(text: &str) -> Result<Self, CallError> {
        Self::with_limit(text, MAX_TIME)
    }

    fn with_limit(text: &str, limit: Duration) -> Result<Self, CallError> {
        check_pattern("filter", text)?;
        let started = processor_time();
        let regex = RegexBuilder::new(text)
            .size_limit(MAX_COMPILED_BYTES)
            .dfa_size_limit(MAX_COMPILED_BYTES)
            .build()
            .map_err(|error| CallError::new(PARSE_ERROR, describe(&error)))?;
        Ok(BoundedRegex { regex, started, limit })
    }

    /// Returns whether the expression matches.
    ///
    /// # Errors
    /// The time limit is exceeded.
    pub(super) fn is_match(&self, text: &str) -> Result<bool, CallError> {
        let used = processor_time().saturating_sub(self.started);
        if used > self.limit {
            let (used, limit) = (used.as_millis(), self.limit.as_millis());
            let text = format!("filter needs more than {used} ms of processor time, the limit is {limit} ms");
            return Err(CallError::new(INVALID_PARAMS, text));
        }
        Ok(self.regex.is_match(text))
    }
}

/// Checks the length of an expression, mask or filter.
///
/// # Errors
/// It is too long.
pub(super) fn check_pattern(key: &str, text: &str) -> Result<(), CallError> {
    if text.len() <= MAX_PATTERN_BYTES {
        return Ok(());
    }
    let text = format!("{key} has {} bytes, the limit is {MAX_PATTERN_BYTES}", text.len());
    Err(CallError::new(INVALID_PARAMS, text))
}

fn describe(error: &regex::Error) -> String {
    match error {
        regex::Error::CompiledTooBig(limit) => {
            format!("filter needs more than {limit} bytes when compiled, the limit is {limit}")
        }
        error => error.to_string(),
    }
}

/// Returns the processor time of this thread, which does not depend on the load of the machine.
fn processor_time() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    let seconds = u64::try_from(time.tv_sec).unwrap_or(0);
    Duration::new(seconds, u32::try_from(time.tv_nsec).unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error(text: &str) -> (i16, String) {
        let error = BoundedRegex::new(text).err().unwrap();
        (error.code, error.text)
    }

    #[test]
    fn errors_name_the_limits() {
        let long = r"\w".repeat(2_000_000);
        // before it is compiled
        assert_eq!(error(&long), (INVALID_PARAMS, "filter has 4000000 bytes, the limit is 1024".into()));
        let large = "filter needs more than 1048576 bytes when compiled, the limit is 1048576";
        assert_eq!(error(&r"\w".repeat(512)), (PARSE_ERROR, large.to_owned()));
        assert_eq!(error("((a{100}){100}){100}"), (PARSE_ERROR, large.to_owned()));
        assert_eq!(error("(").0, PARSE_ERROR);
        let expression = BoundedRegex::new(r"^\w+\.\w+$").unwrap();
        assert_eq!((expression.is_match("plc.1"), expression.is_match("plc")), (Ok(true), Ok(false)));
    }

    #[test]
    fn matching_ends_at_its_time_limit() {
        let expression = BoundedRegex::with_limit(&"a?".repeat(200), Duration::from_millis(1)).unwrap();
        let name = "a".repeat(1000);
        let stopped = (0..1_000_000).find_map(|_| expression.is_match(&name).err()).unwrap();
        assert_eq!(stopped.code, INVALID_PARAMS);
        assert!(stopped.text.ends_with(" ms of processor time, the limit is 1 ms"), "{}", stopped.text);
    }
}
