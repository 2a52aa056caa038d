//! The control methods of the plugin. Owns their parameters and results, and what of them each caller gets.

use elbus_plugin_api::{Call, CallError, Host, Method, PluginError};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use std::sync::Arc;

use crate::{
    calls::ListedCall,
    collector::Collector,
    events::{Kind as EventKind, LoggedEvent},
    figures::encode,
    flows::{Flow, Kind},
    rights::Viewer,
};

/// The most flows in a result.
const MAX_FLOWS: usize = 500;

/// Parameters with the number of the last value or event that the caller has.
#[derive(Deserialize, Default)]
#[serde(default)]
struct After {
    after: u64,
}

/// The result of `web.map`.
#[derive(Serialize)]
struct Map {
    since_ms: u64,
    sampled: bool,
    /// Messages that were not looked at.
    missed: u64,
    edges: Vec<Flow>,
}

/// The result of `web.calls`.
#[derive(Serialize)]
struct RecentCalls {
    slow: Vec<ListedCall>,
    errors: Vec<ListedCall>,
}

/// Adds the methods. None of them changes anything.
///
/// # Errors
/// Another instance has them.
pub(crate) fn add(host: &Host, collector: &Arc<Collector>) -> Result<(), PluginError> {
    type Answer = fn(&Collector, &Call<'_>) -> Result<Vec<u8>, CallError>;
    let all: [(&str, &str, &str, Answer); 5] = [
        ("web.history", "{after: integer}, optional", "sums of each of the last 900 seconds", history),
        ("web.top", "none", "the five clients that matter most, and why", top),
        ("web.map", "none", "who sends to whom, sampled while it is asked for", map),
        ("web.calls", "none", "recent slow and failed calls, observed while they are asked for", calls),
        ("web.events", "{after: integer}, optional", "the last events and warnings of the log", events),
    ];
    for (name, params, about, answer) in all {
        let (host_of_method, collector) = (host.clone(), collector.clone());
        // slow: they ask the broker what the caller may see
        let method = Method::new(name).params(params).about(about).query().slow();
        host.add_method(&method, move |call: &Call<'_>| {
            let result = answer(&collector, call)?;
            // rights were asked for by name: the name may have got another owner meanwhile
            host_of_method.authorize(call)?;
            Ok(result)
        })?;
    }
    Ok(())
}

/// Reads parameters, all of them optional.
fn read<T: DeserializeOwned + Default>(call: &Call<'_>, expected: &str) -> Result<T, CallError> {
    if call.params.is_empty() || call.params == [0xc0] {
        return Ok(T::default());
    }
    rmp_serde::from_slice(call.params)
        .map_err(|error| CallError::unreadable_params(expected, call.params, error))
}

fn history(collector: &Collector, call: &Call<'_>) -> Result<Vec<u8>, CallError> {
    let After { after } = read(call, "{after: integer}")?;
    encode(&collector.history(after))
}

fn top(collector: &Collector, call: &Call<'_>) -> Result<Vec<u8>, CallError> {
    let viewer = Viewer::of(collector.host(), call)?;
    encode(&collector.busiest(|name| viewer.sees_client(name))?)
}

fn map(collector: &Collector, call: &Call<'_>) -> Result<Vec<u8>, CallError> {
    let viewer = Viewer::of(collector.host(), call)?;
    let (all, since_ms, missed) = collector.flows();
    let is_visible = |flow: &Flow| match flow.kind {
        Kind::Message | Kind::Rpc => viewer.sees_messages(&flow.from, &flow.to),
        Kind::Topic => viewer.sees_publications(&flow.from, &flow.to),
    };
    let edges = all.into_iter().filter(is_visible).take(MAX_FLOWS).collect();
    encode(&Map { since_ms, sampled: true, missed, edges })
}

fn calls(collector: &Collector, call: &Call<'_>) -> Result<Vec<u8>, CallError> {
    let viewer = Viewer::of(collector.host(), call)?;
    let (slow, errors) = collector.calls();
    let visible = |all: Vec<ListedCall>| -> Vec<ListedCall> {
        let visible = all.into_iter().filter(|call| viewer.sees_messages(&call.caller, &call.target));
        let sees_text = |call: &ListedCall| {
            viewer.sees_contents() || viewer.is_own(&call.caller) || viewer.is_own(&call.target)
        };
        visible.map(|call| if sees_text(&call) { call } else { call.without_text() }).collect()
    };
    encode(&RecentCalls { slow: visible(slow), errors: visible(errors) })
}

fn events(collector: &Collector, call: &Call<'_>) -> Result<Vec<u8>, CallError> {
    let After { after } = read(call, "{after: integer}")?;
    let viewer = Viewer::of(collector.host(), call)?;
    let is_visible = |event: &LoggedEvent| match event.kind {
        EventKind::Connect | EventKind::Disconnect | EventKind::Stall | EventKind::Missed => {
            viewer.sees_client(&event.subject)
        }
        EventKind::Plugin | EventKind::Reload => viewer.sees_plugins(),
        EventKind::Refused | EventKind::Log => viewer.sees_contents(),
        EventKind::Shutdown => true,
    };
    encode(&collector.events(after, is_visible))
}
