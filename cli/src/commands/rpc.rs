//! `elbus rpc call`, `call0` and `notify`.

use serde_json::{Map, Value};
use std::io::IsTerminal;

use super::send::{connect, finish};
use crate::{
    arguments::{PayloadArguments, QosArgument, RequestArguments, ResultArguments},
    failure::Failure,
    input,
    link::Link,
    output::{Bound, Expect, Payload, Results},
    parameters,
};

/// Binary data shown of a result, in bytes.
const BINARY: usize = 4096;

pub(crate) async fn call(
    link: &Link,
    request: RequestArguments,
    shown: ResultArguments,
) -> Result<(), Failure> {
    let params = params(link, &request)?;
    let client = connect(link).await?;
    let result = client.call(&request.target, &request.method, params).await?;
    client.close().await;
    show(link, &result, &shown)
}

pub(crate) async fn call0(link: &Link, request: RequestArguments, qos: QosArgument) -> Result<(), Failure> {
    let params = params(link, &request)?;
    let client = connect(link).await?;
    let qos = qos.qos.into();
    client.call0(&request.target, &request.method, params, qos).await?;
    finish(&client, qos).await?;
    link.detail(&format!("called {} of {}", request.method, request.target));
    Ok(())
}

pub(crate) async fn notify(
    link: &Link,
    target: &str,
    payload: &PayloadArguments,
    qos: QosArgument,
) -> Result<(), Failure> {
    let payload = input::payload(link, payload)?;
    let client = connect(link).await?;
    let qos = qos.qos.into();
    client.notify(target, payload, qos).await?;
    finish(&client, qos).await?;
    link.detail(&format!("notified {target}"));
    Ok(())
}

/// No parameters are zero bytes (protocol section 7).
fn params(link: &Link, request: &RequestArguments) -> Result<Vec<u8>, Failure> {
    if let Some(raw) = &request.raw_params {
        return input::argument(link, raw);
    }
    if let Some(text) = &request.json_params {
        let bytes = input::argument(link, text)?;
        return input::pack(&input::json(&bytes, "--json-params")?);
    }
    if request.params.is_empty() {
        return Ok(Vec::new());
    }
    input::pack(&parameters::parse(&request.params).map_err(Failure::usage)?)
}

fn show(link: &Link, result: &[u8], shown: &ResultArguments) -> Result<(), Failure> {
    let mut results = Results::new(link);
    if shown.raw {
        results.bytes(result)?;
        return results.flush();
    }
    let payload = Payload::read(result, Expect::Msgpack);
    if link.json() {
        let mut object = Map::new();
        payload.add_to(&mut object, "result", result, Bound::all(shown.max_bytes.unwrap_or(0)));
        results.json(&Value::Object(object))?;
        return results.flush();
    }
    let bound = shown.max_bytes.map_or(Bound { readable: usize::MAX, binary: BINARY }, Bound::all);
    let text = payload.block(bound, results.palette, std::io::stdout().is_terminal());
    if !text.is_empty() {
        results.line(&text)?;
    }
    results.flush()
}
