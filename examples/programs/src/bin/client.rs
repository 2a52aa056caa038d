//! Clients of a broker that is running: `cargo run -p elbus-examples --bin client [ADDRESS]`.
//!
//! An oven publishes its temperature and can be heated; a display subscribes and heats it. They could as well
//! be two programs, on two machines.

use elbus_client::{Address, Client, Error, Qos, Router, RpcError};
use serde::{Deserialize, Serialize};

const MAX_CELSIUS: f64 = 300.0;

#[derive(Debug, Serialize, Deserialize)]
struct Heat {
    celsius: f64,
}

/// Heats the oven; returns how many minutes that takes.
async fn heat(request: Heat) -> Result<u32, RpcError> {
    if request.celsius > MAX_CELSIUS {
        return Err(RpcError::invalid_params(format!("{MAX_CELSIUS} degrees are the most")));
    }
    Ok((request.celsius / 20.0) as u32)
}

#[tokio::main]
async fn main() -> Result<(), Error> {
    let address = std::env::args().nth(1).map_or_else(|| Ok(Address::default()), |text| text.parse())?;

    // it only answers and publishes, and does not want its frames
    let (oven, _) = Client::connect(address.clone(), "plant.oven").await?;
    oven.serve(Router::new().method("heat", heat))?;

    let (display, _) = Client::connect(address, "plant.panel").await?;
    let mut temperatures = display.subscribe("temperature/+").await?;

    oven.publish("temperature/oven", "21.5", Qos::PROCESSED).await?;
    if let Some(frame) = temperatures.next().await {
        println!("{}: {} = {}", frame.sender(), frame.topic(), String::from_utf8_lossy(frame.payload()));
    }

    for celsius in [180.0, 1000.0] {
        match display.call_as::<u32>("plant.oven", "heat", &Heat { celsius }).await {
            Ok(minutes) => println!("{celsius} degrees in {minutes} minutes"),
            Err(error) => println!("{celsius} degrees: {error}"),
        }
    }

    // sends the queued frames first
    display.close().await;
    oven.close().await;
    Ok(())
}
