//! What the broker of a connection understands, as far as it was asked. Never asks.

use serde::{Deserialize, de::IgnoredAny};
use std::{collections::HashMap, sync::Arc};
use tokio::sync::Mutex;

/// The features of the broker, with the number of the connection that they belong to. Locked while the broker
/// is asked, so that it is asked once.
#[derive(Default)]
pub(super) struct FeatureCache(pub(super) Mutex<Option<(u64, Features)>>);

/// What a broker understands.
#[derive(Clone)]
pub(super) enum Features {
    /// It is the core in this process, which has all of them.
    #[cfg_attr(not(feature = "in-process"), expect(dead_code, reason = "made for in-process connections"))]
    All,
    /// Its answer, which is empty if it does not know the question.
    Named(Arc<HashMap<String, Feature>>),
}

#[derive(Deserialize)]
#[serde(untagged)]
pub(super) enum Feature {
    Known(bool),
    Other(IgnoredAny),
}

impl Features {
    /// Returns whether the broker has a feature.
    pub(super) fn has(&self, name: &str) -> bool {
        match self {
            Features::All => true,
            Features::Named(names) => matches!(names.get(name), Some(Feature::Known(true))),
        }
    }
}
