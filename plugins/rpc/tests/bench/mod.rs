//! An instance of the plugin with a recording host, and a client `a.b` that calls it.
#![allow(dead_code, reason = "each test file uses some of it")]
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use elbus_plugin_api::{
    Call, CallError, DeliveryStatus, FrameKind, Host, Method, Op,
    testing::{FakeHost, FakeInstance},
};
use elbus_protocol::rpc;
use elbus_rpc::Rpc;
use std::{sync::Arc, time::Duration};

pub(crate) const LONG: Duration = Duration::from_secs(30);
pub(crate) const BUSY: i16 = -32118;

pub(crate) struct Bench {
    pub(crate) fake: FakeHost,
    pub(crate) rpc: Arc<FakeInstance>,
    pub(crate) host: Host,
}

impl Bench {
    pub(crate) fn new() -> Self {
        Self::over(FakeHost::new())
    }

    pub(crate) fn over(fake: FakeHost) -> Self {
        let rpc = fake.create::<Rpc>("rpc", "").unwrap();
        rpc.start().unwrap();
        rpc.serve();
        let host = fake.host("test");
        let bench = Bench { fake, rpc: Arc::new(rpc), host };
        bench.method("test", false, |_| Ok(vec![0x81, 0xA2, 0x6F, 0x6B, 0xC3]));
        bench.method("benchmark.test", false, |call| Ok(call.params.to_vec()));
        bench.method("client.list", false, |_| Err(CallError::new(rpc::PARSE_ERROR, "bad filter")));
        bench
    }

    pub(crate) fn method(
        &self,
        name: &str,
        slow: bool,
        f: impl Fn(&Call<'_>) -> Result<Vec<u8>, CallError> + Send + Sync + 'static,
    ) {
        let method = Method::new(name);
        self.host.add_method(&if slow { method.slow() } else { method }, f).unwrap();
    }

    pub(crate) fn deliver(&self, sender: &str, payloads: &[&[u8]]) -> DeliveryStatus {
        self.fake.deliver(".broker", FrameKind::Message, sender, "", payloads).unwrap()
    }

    pub(crate) fn call(&self, call_id: u32, method: &str, params: &[u8]) -> DeliveryStatus {
        self.deliver("a.b", &[&rpc::encode_request(call_id, method, params).unwrap()])
    }

    /// Returns the replies to `a.b` so far, as payloads.
    pub(crate) fn replies(&self) -> Vec<Vec<u8>> {
        let requests = self.fake.requests();
        for request in &requests {
            assert_eq!((request.sender.as_str(), request.op), (".broker", Op::Message));
            assert_eq!(request.target, "a.b");
        }
        requests.into_iter().flat_map(|request| request.payloads).collect()
    }

    pub(crate) fn wait_for_replies(&self, count: usize) -> Vec<Vec<u8>> {
        assert!(self.fake.wait_until(LONG, |_| self.replies().len() >= count));
        self.replies()
    }
}
