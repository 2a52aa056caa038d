//! A program with a broker inside, its plugins linked in: `cargo run -p elbus-examples --bin embed [SOCKET]`.
//!
//! Parts of the program talk to each other without a socket; other programs join them through one.

use elbus_broker::{Broker, PluginDeclaration};
use elbus_client::{Client, Qos};
use std::time::Duration;

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let socket = std::env::args().nth(1).unwrap_or_else(|| "/tmp/elbus-embed.sock".into());
    let broker = Broker::builder()
        .plugin(PluginDeclaration::linked("local", elbus_unix::plugin()).set("path", socket))
        .plugin(PluginDeclaration::linked("clients", elbus_inproc::plugin()))
        .start()?;

    let (sensor, _) = Client::builder("plant.sensor").connect_in_process(broker.host()).await?;
    let (display, _) = Client::builder("plant.display").connect_in_process(broker.host()).await?;
    let mut temperatures = display.subscribe("temperature/+").await?;
    sensor.publish("temperature/boiler", "71.5", Qos::NO).await?;
    if let Some(frame) = temperatures.next().await {
        println!("{}: {} = {}", frame.sender(), frame.topic(), String::from_utf8_lossy(frame.payload()));
    }

    broker.stop(Duration::from_secs(1)).await;
    Ok(())
}
