//! What local clients are subscribed to: learns it from the broker, and tells the bridge each filter without
//! its options, as often as clients have it.

use elbus_bridge::Bridge;
use elbus_plugin_api::{
    Completion, Host, PluginError,
    hooks::{Hook, Replay, SubscriptionChange, SubscriptionEvent},
};
use elbus_protocol::subscription::Subscription;
use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
};

use crate::{
    filter_changes::FilterChange,
    inputs::{Input, Inputs},
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
            sink.push(Input::Filters(FilterChange { event, client: change.client_id(), filters }));
        }
    })?;
    inputs.push(Input::Watching);
    Ok(Some(hook))
}

/// The filters of local clients.
#[derive(Debug)]
pub(crate) struct Interest {
    clients: HashMap<u64, HashSet<String>>,
    /// While the first subscriptions are learnt: those that have changed meanwhile, for which the change
    /// counts.
    changed: Option<HashSet<(u64, String)>>,
}

impl Interest {
    pub(crate) fn new() -> Self {
        Interest { clients: HashMap::new(), changed: Some(HashSet::new()) }
    }

    /// Returns the number of subscriptions.
    pub(crate) fn len(&self) -> usize {
        self.clients.values().map(HashSet::len).sum()
    }

    /// The first subscriptions are learnt.
    pub(crate) fn begin(&mut self) {
        self.changed = None;
    }

    /// Applies a change.
    pub(crate) fn change(
        &mut self,
        bridge: &mut Bridge<Completion>,
        FilterChange { event, client, filters }: FilterChange,
    ) {
        for filter in filters {
            match event {
                SubscriptionEvent::Existing => {
                    let key = (client, filter);
                    if !self.changed.as_ref().is_some_and(|changed| changed.contains(&key)) {
                        self.add(bridge, client, key.1);
                    }
                }
                SubscriptionEvent::Subscribed => {
                    self.note(client, &filter);
                    self.add(bridge, client, filter);
                }
                SubscriptionEvent::Unsubscribed => {
                    self.note(client, &filter);
                    let own = self.clients.get_mut(&client);
                    if own.is_some_and(|own| own.remove(&filter)) {
                        bridge.interest_removed(plain(&filter));
                    }
                }
                _ => {}
            }
        }
        if event == SubscriptionEvent::Left {
            for filter in self.clients.remove(&client).into_iter().flatten() {
                bridge.interest_removed(plain(&filter));
            }
        }
    }

    fn note(&mut self, client: u64, filter: &str) {
        if let Some(changed) = &mut self.changed {
            changed.insert((client, filter.to_owned()));
        }
    }

    fn add(&mut self, bridge: &mut Bridge<Completion>, client: u64, filter: String) {
        let own = self.clients.entry(client).or_default();
        if !own.contains(&filter) {
            bridge.interest_added(plain(&filter));
            own.insert(filter);
        }
    }
}

/// Returns the filter behind its options.
fn plain(filter: &str) -> &str {
    Subscription::parse(filter).map_or(filter, |parsed| parsed.filter)
}
