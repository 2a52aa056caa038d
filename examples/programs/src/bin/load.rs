//! The same broker inside a program, its plugins loaded from compiled libraries instead of linked in:
//! `cargo run -p elbus-examples --bin load [SOCKET]`. The program needs no runtime of its own.

use elbus_broker::{Broker, PluginDeclaration};
use std::time::Duration;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let socket = std::env::args().nth(1).unwrap_or_else(|| "/tmp/elbus-load.sock".into());
    // libelbus_unix.so and libelbus_inproc.so are searched for beside the executable and in every plugin_dir
    let broker = Broker::builder()
        .plugin_dir("/usr/lib/elbus")
        .plugin(PluginDeclaration::library("local", "elbus_unix").set("path", socket))
        .plugin(PluginDeclaration::library("clients", "elbus_inproc"))
        .start()?;
    for plugin in broker.plugins() {
        println!("{}: {} from {} is {}", plugin.name, plugin.plugin, plugin.origin, plugin.state.as_str());
    }

    let display = broker.connect("plant.display")?;
    display.subscribe("temperature/+")?;
    // receives for a tenth of a second, from other programs too
    while let Some(message) = display.receive_timeout(Duration::from_millis(100)) {
        println!(
            "{}: {} = {}",
            message.sender(),
            message.topic(),
            String::from_utf8_lossy(message.payload())
        );
    }

    broker.stop(Duration::from_secs(1)).wait();
    Ok(())
}
