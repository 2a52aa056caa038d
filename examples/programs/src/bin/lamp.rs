//! The client of README.md: `cargo run -p elbus-examples --bin lamp`, with a broker at a default address.

use elbus_client::{Address, Client, Qos, Reconnect, Router, RpcError};

async fn brightness(percent: u8) -> Result<u8, RpcError> {
    Ok(percent.min(100))
}

#[tokio::main]
async fn main() -> Result<(), elbus_client::Error> {
    let builder = Client::builder("plant.lamp").reconnect(Reconnect::backoff());
    let (client, _) = builder.connect(Address::default()).await?;
    client.serve(Router::new().method("brightness", brightness))?;
    let mut temperatures = client.subscribe("temperature/+").await?;
    client.publish("display/state", "on", Qos::PROCESSED).await?;
    while let Some(frame) = temperatures.next().await {
        println!("{}: {} = {}", frame.sender(), frame.topic(), String::from_utf8_lossy(frame.payload()));
    }
    Ok(())
}
