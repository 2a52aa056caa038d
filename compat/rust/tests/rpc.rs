//! RPC between two clients of the crate.

use std::sync::Arc;

use busrt::rpc::{
    Options, RPC_ERROR_CODE_METHOD_NOT_FOUND, Rpc, RpcClient, RpcError, RpcEvent, RpcHandlers, RpcResult,
};
use busrt::{Frame, QoS, async_trait, empty_payload};
use elbus_compat::{Bus, acknowledged, pattern, within};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

/// Serves `echo`, `nothing` and `fail`, and logs each event as a line of text.
struct Server(UnboundedSender<String>);

#[async_trait]
impl RpcHandlers for Server {
    async fn handle_call(&self, event: RpcEvent) -> RpcResult {
        let method = event.parse_method()?.to_owned();
        self.0.send(format!("call of {method} by {}", event.sender())).unwrap();
        match method.as_str() {
            "echo" => Ok(Some(event.payload().to_vec())),
            "nothing" => Ok(None),
            "fail" => Err(RpcError::new(-777, Some(b"does not work".to_vec()))),
            _ => Err(RpcError::method(None)),
        }
    }

    async fn handle_notification(&self, event: RpcEvent) {
        self.0.send(format!("notification {:?} by {}", event.payload(), event.sender())).unwrap();
    }

    async fn handle_frame(&self, frame: Frame) {
        self.0.send(format!("{:?} {:?} by {}", frame.kind(), frame.payload(), frame.sender())).unwrap();
    }
}

struct Pair {
    caller: RpcClient,
    caller_name: String,
    server: RpcClient,
    server_name: String,
    log: UnboundedReceiver<String>,
}

impl Pair {
    /// Two connected clients. The server handles one event at a time.
    async fn new(bus: &Bus) -> Self {
        let (caller_name, server_name) = (bus.name("caller"), bus.name("server"));
        let (sender, log) = unbounded_channel();
        let options = Options::new().blocking_notifications().blocking_frames();
        let server = RpcClient::create(bus.connect(&server_name).await.unwrap(), Server(sender), options);
        let caller = RpcClient::new0(bus.connect(&caller_name).await.unwrap());
        Self { caller, caller_name, server, server_name, log }
    }

    async fn call(&self, method: &str, params: &[u8], qos: QoS) -> Result<RpcEvent, RpcError> {
        within("a reply", self.caller.call(&self.server_name, method, params.into(), qos)).await
    }

    async fn logged(&mut self) -> String {
        within("an event of the server", self.log.recv()).await.unwrap()
    }
}

#[tokio::test]
async fn calls_and_replies() {
    for bus in Bus::each() {
        let mut pair = Pair::new(&bus).await;
        for qos in [QoS::No, QoS::Processed, QoS::Realtime, QoS::RealtimeProcessed] {
            let reply = pair.call("echo", b"\0params\0", qos).await.unwrap();
            assert_eq!(
                (reply.payload(), reply.sender()),
                (b"\0params\0".as_slice(), pair.server_name.as_str())
            );
            assert_eq!(pair.logged().await, format!("call of echo by {}", pair.caller_name));
        }
        assert_eq!(pair.call("echo", b"", QoS::Processed).await.unwrap().payload(), b"");
        assert_eq!(pair.call("nothing", b"x", QoS::Processed).await.unwrap().payload(), b"");
    }
}

#[tokio::test]
async fn error_replies() {
    for bus in Bus::each() {
        let pair = Pair::new(&bus).await;
        let error = pair.call("fail", b"", QoS::Processed).await.unwrap_err();
        assert_eq!((error.code(), error.data()), (-777, Some(b"does not work".as_slice())));
        let error = pair.call("none", b"", QoS::Processed).await.unwrap_err();
        assert_eq!(error.code(), RPC_ERROR_CODE_METHOD_NOT_FOUND);
        let back =
            within("a reply", pair.server.call(&pair.caller_name, "echo", empty_payload!(), QoS::Processed))
                .await;
        assert_eq!(back.unwrap_err().code(), RPC_ERROR_CODE_METHOD_NOT_FOUND);
    }
}

#[tokio::test]
async fn calls_to_unknown_targets_fail() {
    for bus in Bus::each() {
        let pair = Pair::new(&bus).await;
        let nobody = bus.name("nobody");
        for qos in [QoS::Processed, QoS::RealtimeProcessed] {
            let call = pair.caller.call(&nobody, "echo", empty_payload!(), qos);
            assert_eq!(within("an error", call).await.unwrap_err().code(), -32_113);
        }
    }
}

#[tokio::test]
async fn calls_without_reply_notifications_and_plain_frames() {
    for bus in Bus::each() {
        let mut pair = Pair::new(&bus).await;
        let (caller, server) = (pair.caller_name.clone(), pair.server_name.clone());
        let topic = bus.topic("t");
        acknowledged(pair.server.client().lock().await.subscribe(&topic, QoS::Processed).await)
            .await
            .unwrap();

        acknowledged(pair.caller.call0(&server, "echo", b"x".as_slice().into(), QoS::Processed).await)
            .await
            .unwrap();
        assert_eq!(pair.logged().await, format!("call of echo by {caller}"));
        acknowledged(pair.caller.notify(&server, b"\0\x01".as_slice().into(), QoS::Processed).await)
            .await
            .unwrap();
        assert_eq!(pair.logged().await, format!("notification [0, 1] by {caller}"));
        let client = pair.caller.client();
        acknowledged(client.lock().await.send_broadcast(&server, vec![1, 2].into(), QoS::Processed).await)
            .await
            .unwrap();
        assert_eq!(pair.logged().await, format!("Broadcast [1, 2] by {caller}"));
        acknowledged(client.lock().await.publish(&topic, vec![1, 3].into(), QoS::Processed).await)
            .await
            .unwrap();
        assert_eq!(pair.logged().await, format!("Publish [1, 3] by {caller}"));
    }
}

#[tokio::test]
async fn large_params_and_results() {
    for bus in Bus::each() {
        let pair = Pair::new(&bus).await;
        for size in [8_192, 65_536, 1 << 20, 8 << 20].into_iter().filter(|size| *size <= bus.max_sent_bytes()) {
            let params = pattern(size);
            assert!(
                pair.call("echo", &params, QoS::Processed).await.unwrap().payload() == params,
                "{size} bytes"
            );
        }
    }
}

#[tokio::test]
async fn a_thousand_concurrent_calls() {
    for bus in Bus::each() {
        let pair = Arc::new(Pair::new(&bus).await);
        let mut calls = Vec::new();
        for number in 0..1000_u32 {
            let pair = pair.clone();
            calls.push(tokio::spawn(async move {
                let params = number.to_le_bytes();
                assert_eq!(pair.call("echo", &params, QoS::Processed).await.unwrap().payload(), params);
            }));
        }
        for call in calls {
            call.await.unwrap();
        }
    }
}

#[tokio::test]
async fn secondaries_can_call_and_a_client_can_call_itself() {
    for bus in Bus::each() {
        let mut pair = Pair::new(&bus).await;
        let primary = bus.peer("p").await;
        let secondary = RpcClient::new0(primary.client.register_secondary().await.unwrap());
        let call = secondary.call(&pair.server_name, "echo", b"second".as_slice().into(), QoS::Processed);
        assert_eq!(within("a reply", call).await.unwrap().payload(), b"second");
        assert_eq!(pair.logged().await, format!("call of echo by {}%%0", primary.name));
        let call = pair.server.call(&pair.server_name, "echo", b"self".as_slice().into(), QoS::Processed);
        assert_eq!(within("a reply", call).await.unwrap().payload(), b"self");
    }
}
