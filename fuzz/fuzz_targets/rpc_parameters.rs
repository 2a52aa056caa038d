//! Any parameters for any control method give a msgpack result or an error within a short time, and the
//! broker continues.
#![no_main]

use elbus_broker::Broker;
use elbus_plugin_api::{Call, Client, ClientInfo, NullSink};
use libfuzzer_sys::fuzz_target;
use rmpv::Value;
use std::{cell::RefCell, sync::OnceLock};

/// Returns a broker and the names of its methods, in order.
fn broker() -> &'static (Broker, Vec<String>) {
    static BROKER: OnceLock<(Broker, Vec<String>)> = OnceLock::new();
    BROKER.get_or_init(|| {
        let broker = Broker::builder().start().unwrap();
        let call = Call::by_broker("method.list", b"");
        let answer = broker.host().call(&call).unwrap();
        let Value::Map(answer) = rmpv::decode::read_value(&mut &answer[..]).unwrap() else {
            panic!("no map")
        };
        let methods = answer[0].1.as_array().unwrap().iter();
        let name = |method: &Value| {
            let entries = method.as_map().unwrap().iter();
            entries
                .filter(|(key, _)| key.as_str() == Some("name"))
                .map(|(_, name)| name.to_string())
                .collect()
        };
        let names: Vec<String> = methods.map(name).collect();
        assert!(names.len() > 10, "{names:?}");
        (broker, names.iter().map(|name| name.trim_matches('"').to_owned()).collect())
    })
}

thread_local! {
    /// Clients for the methods to find and to disconnect.
    static CLIENTS: RefCell<Vec<Client>> = const { RefCell::new(Vec::new()) };
}

fuzz_target!(|data: &[u8]| {
    let Some((method, params)) = data.split_first() else { return };
    let (broker, methods) = broker();
    CLIENTS.with_borrow_mut(|clients| {
        if broker.client_count() < 3 {
            clients.clear();
            let register = |name: &&str| broker.host().register(name, &ClientInfo::default(), NullSink).ok();
            clients.extend(["a", "a%%1", "b.c"].iter().filter_map(register));
        }
    });
    let method = &methods[usize::from(*method) % methods.len()];
    match broker.host().call(&Call::by_broker(method, params)) {
        // this method echoes any parameters
        Ok(answer) if method == "benchmark.test" => assert_eq!(answer, params),
        Ok(answer) => {
            let mut rest = &answer[..];
            assert!(rmpv::decode::read_value(&mut rest).is_ok() && rest.is_empty(), "{method}: {answer:x?}");
        }
        Err(error) => assert!(error.code != 0, "{method}"),
    }
});
