//! The Rust client in the test of all clients together: `elbus-mixed-peer ADDRESS NAME`. Has the methods that
//! `../README.md` lists.

use elbus_client::{Address, Client, Error, Options, Qos, Router, RpcError};
use std::sync::{Arc, Mutex};

/// What this peer was chosen for.
type Taken = Arc<Mutex<Vec<String>>>;

fn failed(error: Error) -> RpcError {
    RpcError::internal(error.to_string())
}

#[derive(serde::Deserialize)]
struct RelayParams {
    target: String,
    value: u32,
}

#[derive(serde::Deserialize)]
struct PublishParams {
    count: u32,
}

#[derive(serde::Deserialize)]
struct WorkParams {
    group: String,
}

async fn relay(client: Client, params: RelayParams) -> Result<u32, RpcError> {
    client.call_as(&params.target, "double", &params.value).await.map_err(failed)
}

async fn publish(client: Client, PublishParams { count }: PublishParams) -> Result<u32, RpcError> {
    for job in 0..count {
        client
            .publish(&format!("jobs/{}", job % 7), job.to_string(), Qos::PROCESSED)
            .await
            .map_err(failed)?;
    }
    Ok(count)
}

async fn work(client: Client, WorkParams { group }: WorkParams, taken: Taken) -> Result<(), RpcError> {
    let mut jobs = client.subscribe(Options::share(group).of("jobs/#")).await.map_err(failed)?;
    tokio::spawn(async move {
        while let Some(job) = jobs.next().await {
            let number = String::from_utf8_lossy(job.payload()).into_owned();
            taken.lock().unwrap_or_else(std::sync::PoisonError::into_inner).push(number);
        }
    });
    Ok(())
}

#[tokio::main]
async fn main() -> Result<(), Error> {
    let mut arguments = std::env::args().skip(1);
    let address: Address = arguments.next().unwrap_or_default().parse()?;
    let (client, _frames) = Client::connect(address, &arguments.next().unwrap_or_default()).await?;
    let taken = Taken::default();
    let (relaying, publishing, working, counted) =
        (client.clone(), client.clone(), client.clone(), taken.clone());
    let router = Router::new()
        .method("double", async |value: u32| Ok::<_, RpcError>(2 * value))
        .method("relay", move |params| relay(relaying.clone(), params))
        .method("publish", move |params| publish(publishing.clone(), params))
        .method("work", move |params| work(working.clone(), params, taken.clone()))
        .method("taken", move |()| {
            let taken = counted.lock().unwrap_or_else(std::sync::PoisonError::into_inner).clone();
            async move { Ok::<_, RpcError>(taken) }
        });
    client.serve(router)?;
    println!("ready");
    let mut events = client.events();
    while events.next().await.is_some() {}
    Ok(())
}
