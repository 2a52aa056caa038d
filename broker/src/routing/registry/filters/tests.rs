//! The memory that filters count for when they are added and when they are removed.

use super::*;
use crate::{client_origin::ClientOrigin, routing::closed_sink::closed_sink};

fn client(registry: &mut Registry, name: &str) -> Arc<RegisteredClient> {
    let client = RegisteredClient::new(name.into(), ClientOrigin::default(), 0, closed_sink(), None);
    let client = Arc::new(client);
    registry.add(client.clone()).unwrap();
    client
}

/// Adds or removes subscriptions; returns how many were changed.
fn change<'f>(
    registry: &mut Registry,
    client: &Arc<RegisteredClient>,
    add: bool,
    filters: impl IntoIterator<Item = &'f str>,
) -> usize {
    let mut changed = 0;
    let filters = filters.into_iter().map(|filter| (0, filter));
    registry.change(client, FilterSet::Subscriptions, add, filters, |_| changed += 1).unwrap();
    changed
}

fn own_bytes(registry: &Registry, client: &RegisteredClient) -> usize {
    registry.entry_of(&client.name).unwrap().subscriptions.bytes
}

#[test]
fn a_filter_weighs_as_much_when_it_is_removed_as_when_it_was_added() {
    let long = "x/".repeat(1000);
    let behind_the_rest = format!("a/#/{long}");
    let filters = ["a", "", "+", "b/#", "c/+/d", &long, &behind_the_rest, "#/x", "a/b/c/d/e/f/g/h/i/j/+/#"];
    let mut registry = Registry::new(Arc::default());
    let clients = ["one", "other"].map(|name| client(&mut registry, name));
    for client in &clients {
        assert_eq!(change(&mut registry, client, true, filters), filters.len());
        assert_eq!(change(&mut registry, client, true, ["a/#", "#"]), 0, "text behind a `#` has no meaning");
    }
    let weights = filters.map(|filter| weight(filter.into()));
    let own = weights.iter().sum();
    assert_eq!(weight((&*behind_the_rest).into()), weight("a/#".into()));
    assert_eq!((own_bytes(&registry, &clients[0]), registry.filter_bytes), (own, 2 * own));

    // as a reload of access rules removes them: by the texts in the tree
    let nodes = registry.subscription_nodes(&clients[0]);
    let texts = registry.subscriptions_at(&clients[0], &nodes);
    assert_eq!(change(&mut registry, &clients[0], false, texts.iter().map(String::as_str)), filters.len());
    assert_eq!((own_bytes(&registry, &clients[0]), registry.filter_bytes), (0, own));
    // as a client does that writes something else behind the `#`
    let others = filters.map(|filter| filter.replace("#", "#/other"));
    assert_eq!(change(&mut registry, &clients[1], false, others.iter().map(String::as_str)), filters.len());
    assert_eq!((own_bytes(&registry, &clients[1]), registry.filter_bytes), (0, 0));
}

#[test]
fn subscriptions_with_options_weigh_nothing_once_they_are_removed() {
    let mut registry = Registry::new(Arc::default());
    let clients = ["one", "other"].map(|name| client(&mut registry, name));
    let complex = format!("$key/g/2/{}#", "+/".repeat(20));
    let filters =
        ["$share/g/a", "$share/g/$latest/a", "$share/h/a/#", "$every/5/#", &complex, "$lossy/#", "a"];
    for client in &clients {
        assert_eq!(change(&mut registry, client, true, filters), filters.len());
        assert_eq!(change(&mut registry, client, true, ["$share/h/a/#/behind", "$lossy/#"]), 0);
    }
    assert_eq!(registry.optioned.group_count(), 3);
    assert_eq!(
        registry.subscribed("a").optioned().map(|optioned| optioned.count()),
        None,
        "plain ones decide"
    );
    assert_eq!(registry.subscribed("a/b").optioned().map(|optioned| optioned.count()), Some(2));
    let texts = registry.optioned_texts(&clients[0]);
    assert_eq!(texts.len(), 6);
    assert_eq!(change(&mut registry, &clients[0], false, texts.iter().map(|text| &**text)), 6);
    assert_eq!(change(&mut registry, &clients[0], false, ["a"]), 1);
    assert_eq!(own_bytes(&registry, &clients[0]), 0);
    registry.remove(&clients[1]);
    assert_eq!(registry.optioned.group_count(), 3, "until the others have what it has not got");
    registry.unpark(&clients[1]);
    while registry.clear_departed() {}
    assert_eq!((registry.filter_bytes, registry.optioned.group_count()), (0, 0));
    assert!(!registry.has_optioned());
}
