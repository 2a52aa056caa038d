//! An interceptor to start from: refuses publications whose payload is not a number within a range.
//!
//! ```toml
//! [[plugin]]
//! name = "range"
//! library = "range_check"
//! on_failure = "closed"        # refuse values while they cannot be checked (default of this plugin)
//! [plugin.config]
//! filters = ["sensors/+/temperature"]
//! min = -40.0
//! max = 150.0
//! ```
//!
//! The sender of a refused value gets the code 0x72, invalid data:
//!
//! ```text
//! $ elbus publish sensors/boiler/temperature 20.5
//! $ elbus publish sensors/boiler/temperature warm
//! ```

use elbus_plugin_api::{
    Code, Config, Host, Plugin, PluginError, Status,
    hooks::{Hook, HookScope, InterceptedFrame, OnFailure, Verdict},
};
use serde::Deserialize;
use std::{
    ops::RangeInclusive,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

#[derive(Deserialize)]
struct Settings {
    filters: Vec<String>,
    min: f64,
    max: f64,
}

/// The plugin.
pub struct RangeCheck {
    host: Host,
    scope: HookScope,
    range: RangeInclusive<f64>,
    refused: Arc<AtomicU64>,
    hook: Mutex<Option<Hook>>,
}

/// Decides about one message. Called by the threads of senders, so it must not block.
fn verdict_of(frame: &InterceptedFrame<'_>, range: &RangeInclusive<f64>) -> Verdict {
    let number = std::str::from_utf8(frame.payload()).ok().and_then(|text| text.trim().parse().ok());
    if number.is_some_and(|number| range.contains(&number)) {
        Verdict::Continue
    } else {
        Verdict::Reject(Code::BadData)
    }
}

impl Plugin for RangeCheck {
    const ABOUT: &'static str = "refuses values that are out of range";

    fn create(host: Host, config: &Config) -> Result<Self, PluginError> {
        let Settings { filters, min, max } = config.read()?;
        if filters.is_empty() {
            return Err(PluginError::of_key("filters", "expected at least one topic filter"));
        }
        if min.is_nan() || max.is_nan() || min > max {
            return Err(PluginError::of_key("max", format!("no number is from min = {min} to max = {max}")));
        }
        let scope = HookScope::new().publications(filters);
        scope.check()?;
        Ok(RangeCheck { host, scope, range: min..=max, refused: Arc::default(), hook: Mutex::default() })
    }

    /// Adds the interceptor: clients are served only after all plugins have started.
    fn start(&self) -> Result<(), PluginError> {
        let (range, refused) = (self.range.clone(), self.refused.clone());
        let interceptor = move |frame: &InterceptedFrame<'_>| {
            let verdict = verdict_of(frame, &range);
            if verdict != Verdict::Continue {
                refused.fetch_add(1, Ordering::Relaxed);
            }
            verdict
        };
        let hook = self.host.add_interceptor(&self.scope, OnFailure::Closed, interceptor)?;
        *self.hook.lock().unwrap_or_else(PoisonError::into_inner) = Some(hook);
        Ok(())
    }

    fn stop(&self, _: Duration) {
        *self.hook.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    fn status(&self) -> Status {
        Status::with_detail(format!("{} values refused", self.refused.load(Ordering::Relaxed)))
    }
}

elbus_plugin_api::export_plugin!(RangeCheck);

#[cfg(test)]
mod tests {
    use super::*;
    use elbus_plugin_api::{Op, testing::FakeHost};

    #[test]
    fn a_range_without_numbers_is_an_error() {
        let create = |range: &str| {
            let config = format!("filters = ['t/#']\n{range}");
            FakeHost::new()
                .create::<RangeCheck>("range", &config)
                .map(drop)
                .map_err(|error| error.to_string())
        };
        assert_eq!(create("min = 1.0\nmax = 1.0"), Ok(()));
        for range in ["min = 2.0\nmax = 1.0", "min = nan\nmax = 1.0", "min = 1.0\nmax = nan"] {
            assert!(create(range).unwrap_err().contains("max: no number is from min"), "{range}");
        }
    }

    #[test]
    fn numbers_within_the_range_pass() {
        let fake = FakeHost::new();
        let config = "filters = ['t/#']\nmin = 0.0\nmax = 10.0";
        let instance = fake.create::<RangeCheck>("range", config).unwrap();
        instance.start().unwrap();
        let payloads: [&[u8]; 5] = [b"10", b"0.5\n", b"11", b"warm", b"\xFF"];
        let refused = Verdict::Reject(Code::BadData);
        assert_eq!(
            fake.intercept("sensor", Op::Publish, "t/x", &payloads),
            [Verdict::Continue, Verdict::Continue, refused.clone(), refused.clone(), refused]
        );
        assert_eq!(fake.intercept("sensor", Op::Publish, "u", &[b"warm"]), [Verdict::Continue]);
        assert_eq!(instance.status().detail, "3 values refused");
        instance.stop(Duration::ZERO);
        assert_eq!(fake.intercept("sensor", Op::Publish, "t/x", &[b"warm"]), [Verdict::Continue]);
    }
}
