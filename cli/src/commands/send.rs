//! `elbus send` and `elbus publish`, and how commands that only send connect and finish.

use elbus_client::{Client, Qos};
use elbus_protocol::subscription::has_options;

use crate::{
    arguments::messages::{PublishArguments, SendArguments},
    context::Context,
    error::CliError,
    input,
};

pub(crate) async fn send(context: &Context, arguments: SendArguments) -> Result<(), CliError> {
    let payload = input::read_payload(context, &arguments.payload)?;
    let (target, qos, len) = (arguments.target, Qos::from(arguments.qos.qos), payload.len());
    let client = connect(context).await?;
    if is_mask(&target) {
        client.broadcast(&target, payload, qos).await?;
    } else {
        client.send(&target, payload, qos).await?;
    }
    finish(&client, qos).await?;
    context.output.detail(&format!("sent {len} bytes to {target}"));
    Ok(())
}

pub(crate) async fn publish(context: &Context, arguments: PublishArguments) -> Result<(), CliError> {
    if has_options(&arguments.topic) {
        let topic = &arguments.topic;
        let text = "is an option of filters; nothing can be published to such a topic";
        return Err(CliError::usage(format!("{topic:?} begins with what {text}")));
    }
    let payload = input::read_payload(context, &arguments.payload)?;
    let (topic, qos, len) = (arguments.topic, Qos::from(arguments.qos.qos), payload.len());
    let client = connect(context).await?;
    match &arguments.receiver {
        Some(receiver) => client.publish_for(&topic, receiver, payload, qos).await?,
        None => client.publish(&topic, payload, qos).await?,
    }
    finish(&client, qos).await?;
    context.output.detail(&format!("published {len} bytes to {topic}"));
    Ok(())
}

/// Connects a client that only sends.
pub(crate) async fn connect(context: &Context) -> Result<Client, CliError> {
    let (client, frames) = context.connect().await?;
    drop(frames);
    Ok(client)
}

/// Closes the connection. Frames without acknowledgement have been read by the broker when this returns `Ok`.
pub(crate) async fn finish(client: &Client, qos: Qos) -> Result<(), CliError> {
    if !qos.wants_ack() {
        client.round_trip().await?;
    }
    client.close().await;
    Ok(())
}

/// Returns whether a segment of the target is a wildcard (protocol section 6). Part of a segment is never
/// one.
fn is_mask(target: &str) -> bool {
    target.split('.').any(|segment| matches!(segment, "?" | "*"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_whole_segments_are_wildcards() {
        for mask in ["*", "?", "a.*", "?.b", "a.?.c"] {
            assert!(is_mask(mask), "{mask}");
        }
        for name in ["", "a", "a*", "a?.b", "a.b**", ".broker"] {
            assert!(!is_mask(name), "{name}");
        }
    }
}
