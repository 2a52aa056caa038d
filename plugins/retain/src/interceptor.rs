//! The interceptor: keeps publications as they pass, and marks them.

use elbus_plugin_api::{
    Op,
    hooks::{InterceptedFrame, InterceptedRun, Interceptor, Verdict},
};
use std::sync::Arc;

use crate::topics::Topics;

/// Keeps the last publication of each run. Limited publications (PUBLISH_FOR) are for one client and are not
/// kept.
pub(crate) struct Retaining(pub(crate) Arc<Topics>);

impl Interceptor for Retaining {
    fn intercept(&self, _: &InterceptedFrame<'_>) -> Verdict {
        Verdict::Continue
    }

    fn intercept_run(&self, run: &mut InterceptedRun<'_>) {
        let last = run.len().checked_sub(1).and_then(|last| run.frame(last));
        if let Some(last) = last.filter(|last| last.op() == Op::Publish) {
            run.set_mark(self.0.keep(&last));
        }
    }
}
