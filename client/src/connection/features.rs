//! What the broker understands beyond the protocol of all brokers. Owns the question, once for each
//! connection; never decides what a client needs.

use elbus_protocol::{BROKER_NAME, MISSED_TOPIC, Qos, rpc};
use std::{
    collections::HashMap,
    sync::{Arc, atomic::Ordering},
};
use tokio::time::timeout;

#[cfg(feature = "in-process")]
use super::endpoint::Endpoint;
use super::{
    feature_cache::{Feature, Features},
    inner::Inner,
};
use crate::{error::Error, subscription_state::FilterUser};

/// Features because of which publications can be dropped for the client.
const LOSING: [&str; 3] = ["latest", "every", "lossy"];
/// The feature of reporting them.
const REPORTS: &str = "missed";

impl Inner {
    /// Checks that the broker has these features, before filters that need them are sent. If it can drop
    /// publications because of them and reports that, the client is subscribed to the reports.
    ///
    /// # Errors
    /// [`Error::NotSupported`], and as a call. Without a connection everything is accepted if the client
    /// reconnects.
    pub(crate) async fn require_features(&self, required: &[&'static str]) -> Result<(), Error> {
        if required.is_empty() {
            return Ok(());
        }
        let features = match self.features().await {
            Err(Error::Disconnected { .. }) if self.reconnects() => return Ok(()),
            features => features?,
        };
        if let Some(feature) = required.iter().find(|feature| !features.has(feature)) {
            return Err(Error::NotSupported { feature, address: self.endpoint.to_string() });
        }
        if required.iter().any(|feature| LOSING.contains(feature)) && features.has(REPORTS) {
            self.subscribe_to_reports().await?;
        }
        Ok(())
    }

    async fn features(&self) -> Result<Features, Error> {
        #[cfg(feature = "in-process")]
        if let Endpoint::InProcess(_) = self.endpoint {
            return Ok(Features::All);
        }
        let connection = self.reconnects.load(Ordering::Acquire);
        let mut known = self.features.0.lock().await;
        if let Some((of, features)) = &*known
            && *of == connection
        {
            return Ok(features.clone());
        }
        let features = self.ask_for_features().await?;
        *known = Some((connection, features.clone()));
        Ok(features)
    }

    async fn ask_for_features(&self) -> Result<Features, Error> {
        let after = self.settings.timeout;
        let call = self.call(BROKER_NAME, "features", Default::default(), Qos::PROCESSED);
        let none = Features::Named(Arc::default());
        match timeout(after, call).await {
            Ok(Ok(result)) => {
                let named = rmp_serde::from_slice::<HashMap<String, Feature>>(&result);
                named.map(|named| Features::Named(Arc::new(named))).or(Ok(none))
            }
            Ok(Err(Error::Rpc(error))) if error.code == rpc::METHOD_NOT_FOUND => Ok(none),
            // it answers no calls at all
            Ok(Err(Error::NotRegistered { .. })) => Ok(none),
            Ok(Err(error)) => Err(error),
            Err(_) => {
                Err(Error::Timeout { operation: "asking the broker for its features".to_owned(), after })
            }
        }
    }

    /// Subscribes the client to reports for its own use, once. If the broker refuses that, nothing is
    /// reported.
    async fn subscribe_to_reports(&self) -> Result<(), Error> {
        if self.subscriptions.lock().has_gaps() {
            return Ok(());
        }
        self.demux.expect_reports();
        match self.subscribe(&[MISSED_TOPIC], FilterUser::Gaps).await {
            Err(error @ (Error::AccessDenied { .. } | Error::Refused { .. } | Error::UnknownCode { .. })) => {
                tracing::debug!(client = self.name, %error, "the broker does not report missed publications");
                Ok(())
            }
            subscribed => subscribed,
        }
    }
}
