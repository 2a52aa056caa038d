//! `elbus send` and `elbus publish`.

use elbus_client::{Client, Qos};

use crate::{
    arguments::{PublishArguments, SendArguments},
    failure::Failure,
    input,
    link::Link,
};

pub(crate) async fn send(link: &Link, arguments: SendArguments) -> Result<(), Failure> {
    let payload = input::payload(link, &arguments.payload)?;
    let (target, qos, len) = (arguments.target, Qos::from(arguments.qos.qos), payload.len());
    let client = connect(link).await?;
    if is_mask(&target) {
        client.broadcast(&target, payload, qos).await?;
    } else {
        client.send(&target, payload, qos).await?;
    }
    finish(&client, qos).await?;
    link.detail(&format!("sent {len} bytes to {target}"));
    Ok(())
}

pub(crate) async fn publish(link: &Link, arguments: PublishArguments) -> Result<(), Failure> {
    let payload = input::payload(link, &arguments.payload)?;
    let (topic, qos, len) = (arguments.topic, Qos::from(arguments.qos.qos), payload.len());
    let client = connect(link).await?;
    match &arguments.receiver {
        Some(receiver) => client.publish_for(&topic, receiver, payload, qos).await?,
        None => client.publish(&topic, payload, qos).await?,
    }
    finish(&client, qos).await?;
    link.detail(&format!("published {len} bytes to {topic}"));
    Ok(())
}

/// Of one that only sends.
pub(crate) async fn connect(link: &Link) -> Result<Client, Failure> {
    let (client, frames) = link.connect().await?;
    drop(frames);
    Ok(client)
}

/// What was sent without acknowledgement has been taken by the broker when this ends, or the command fails.
pub(crate) async fn finish(client: &Client, qos: Qos) -> Result<(), Failure> {
    if !qos.wants_ack() {
        client.round_trip().await?;
    }
    client.close().await;
    Ok(())
}

/// Whether a segment of the target is a wildcard (protocol section 6); within a segment they mean nothing.
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
