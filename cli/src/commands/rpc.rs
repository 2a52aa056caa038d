//! `elbus rpc call`, `call0` and `notify`.

use serde_json::{Map, Value};
use std::io::IsTerminal;

use super::send::{connect, finish};
use crate::{
    arguments::{
        messages::{PayloadArguments, QosArgument},
        rpc::{RequestArguments, ResultArguments},
    },
    context::Context,
    error::CliError,
    input,
    output::{DisplayLimit, Expect, Payload, Results},
    parameters,
};

/// Bytes printed of a binary result by default.
const BINARY_BYTES: usize = 4096;

pub(crate) async fn call(
    context: &Context,
    request: RequestArguments,
    options: ResultArguments,
) -> Result<(), CliError> {
    let params = params(context, &request)?;
    let client = connect(context).await?;
    let result = client.call(&request.target, &request.method, params).await?;
    client.close().await;
    print_result(context, &result, &options)
}

pub(crate) async fn call0(
    context: &Context,
    request: RequestArguments,
    qos: QosArgument,
) -> Result<(), CliError> {
    let params = params(context, &request)?;
    let client = connect(context).await?;
    let qos = qos.qos.into();
    client.call0(&request.target, &request.method, params, qos).await?;
    finish(&client, qos).await?;
    context.output.detail(&format!("called {} of {}", request.method, request.target));
    Ok(())
}

pub(crate) async fn notify(
    context: &Context,
    target: &str,
    payload: &PayloadArguments,
    qos: QosArgument,
) -> Result<(), CliError> {
    let payload = input::read_payload(context, payload)?;
    let client = connect(context).await?;
    let qos = qos.qos.into();
    client.notify(target, payload, qos).await?;
    finish(&client, qos).await?;
    context.output.detail(&format!("notified {target}"));
    Ok(())
}

/// Returns the encoded parameters. No parameters are zero bytes (protocol section 7).
fn params(context: &Context, request: &RequestArguments) -> Result<Vec<u8>, CliError> {
    if let Some(raw) = &request.raw_params {
        return input::read_argument(context, raw);
    }
    if let Some(text) = &request.json_params {
        let bytes = input::read_argument(context, text)?;
        return input::to_msgpack(&input::parse_json(&bytes, "--json-params")?);
    }
    if request.params.is_empty() {
        return Ok(Vec::new());
    }
    input::to_msgpack(&parameters::parse(&request.params).map_err(CliError::usage)?)
}

fn print_result(context: &Context, result: &[u8], options: &ResultArguments) -> Result<(), CliError> {
    let mut results = Results::new(&context.output);
    if options.raw {
        results.bytes(result)?;
        return results.flush();
    }
    let payload = Payload::read(result, Expect::Msgpack);
    if context.output.json {
        let mut object = Map::new();
        payload.add_to(&mut object, "result", result, DisplayLimit::all(options.max_bytes.unwrap_or(0)));
        results.json(&Value::Object(object))?;
        return results.flush();
    }
    let limit = options
        .max_bytes
        .map_or(DisplayLimit { readable: usize::MAX, binary: BINARY_BYTES }, DisplayLimit::all);
    let text = payload.block(limit, results.palette, std::io::stdout().is_terminal());
    if !text.is_empty() {
        results.line(&text)?;
    }
    results.flush()
}
