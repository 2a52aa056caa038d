//! What local clients are subscribed to: learns it from the broker, and tells the bridge each filter without
//! its options, as often as clients have it.

use elbus_bridge::Bridge;
use elbus_plugin_api::{
    Completion, Host, PluginError,
    hooks::{Hook, Replay, SubscriptionChange, SubscriptionEvent},
};
use elbus_protocol::subscription::Subscription;
use std::sync::Arc;

use crate::{
    filter_changes::{Difference, FilterChange},
    inputs::Inputs,
    settings::Settings,
};

/// Learns changes from now on, if publications of other nodes are imported.
///
/// # Errors
/// The broker has too many watchers.
pub(crate) fn watch(
    host: &Host,
    settings: &Settings,
    inputs: &Arc<Inputs>,
) -> Result<Option<Hook>, PluginError> {
    if settings.bridge.imports.topics().is_empty() {
        return Ok(None);
    }
    let sink = inputs.clone();
    let hook = host.add_subscription_watcher(move |change: &SubscriptionChange<'_>, _: Option<Replay>| {
        // parts of the broker: among them the subscriptions of other nodes
        let Some(event) = change.event().filter(|_| !change.client().starts_with('.')) else { return };
        let filters = change.filters().filter(|filter| !filter.starts_with(".broker/"));
        let filters = filters.map(str::to_owned).collect::<Vec<_>>();
        if !filters.is_empty() || event == SubscriptionEvent::Left {
            sink.filters_changed(FilterChange { event, client: change.client_id(), filters });
        }
    })?;
    inputs.filters_learnt();
    Ok(Some(hook))
}

/// Applies what has changed since the last time.
pub(crate) fn apply(bridge: &mut Bridge<Completion>, inputs: &Inputs) {
    let Difference { removed, added } = inputs.take_filters();
    if removed.is_empty() && added.is_empty() {
        return;
    }
    bridge.interest_changed(
        removed.iter().map(|filter| plain(filter)),
        added.iter().map(|filter| plain(filter)),
    );
    if bridge.may_announce_all_filters() {
        let all = inputs.all_filters();
        bridge.interest_replaced(all.iter().map(|filter| plain(filter)));
    }
}

/// Returns the filter behind its options.
fn plain(filter: &str) -> &str {
    Subscription::parse(filter).map_or(filter, |parsed| parsed.filter)
}
