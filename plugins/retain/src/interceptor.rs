//! The interceptor: keeps publications as they pass, and marks them.

use elbus_plugin_api::{
    Op,
    hooks::{InterceptedFrame, InterceptedRun, Interceptor, Verdict},
};
use std::sync::Arc;

use crate::topics::Topics;

/// Keeps the last publication of each topic. Limited publications (PUBLISH_FOR) are for one client and are
/// not kept.
pub(crate) struct Retaining(pub(crate) Arc<Topics>);

impl Interceptor for Retaining {
    fn intercept(&self, _: &InterceptedFrame<'_>) -> Verdict {
        Verdict::Continue
    }

    fn intercept_run(&self, run: &mut InterceptedRun<'_>) {
        if run.frame(0).is_some_and(|first| first.op() == Op::Publish) {
            self.0.keep_run(run);
        }
    }
}
