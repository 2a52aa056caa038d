//! Tests of the panic barrier, by a plugin that fails in a callback of choice.

use super::*;
use crate::{client_info::ClientInfo, config::Config, sink::Sink};

struct Faulty(Host, String);

impl Plugin for Faulty {
    const ABOUT: &'static str = "fails in the callback that its configuration names";

    fn create(host: Host, config: &Config) -> Result<Self, PluginError> {
        #[derive(serde::Deserialize)]
        struct Settings {
            fail: String,
        }
        let settings: Settings = config.read()?;
        assert_ne!(settings.fail, "create", "as configured");
        Ok(Faulty(host, settings.fail))
    }

    fn start(&self) -> Result<(), PluginError> {
        assert_ne!(self.1, "start", "as configured");
        let info = ClientInfo::in_process();
        let client = self.0.register("faulty", &info, FaultySink(self.1.clone()));
        std::mem::forget(client.map_err(|code| PluginError::new(code.text()))?);
        Ok(())
    }
}

struct FaultySink(String);

impl Sink for FaultySink {
    fn deliver(&self, run: &mut Run<'_>) -> DeliveryStatus {
        assert_ne!(self.0, "deliver", "as configured, from {}", run.sender());
        DeliveryStatus::DIRTY
    }
}

#[test]
fn a_panic_in_create_is_an_error() {
    let error = FakeHost::new().create::<Faulty>("x", "fail = 'create'").err().unwrap();
    assert!(error.message.starts_with("panic in create: "), "{error}");
    assert!(error.message.contains("as configured") && error.message.contains("tests.rs:"), "{error}");
}

#[test]
fn wrong_configuration_names_its_key() {
    let error = FakeHost::new().create::<Faulty>("x", "fail = 1").err().unwrap();
    assert_eq!(error.key, "fail");
    let error = FakeHost::new().create::<Faulty>("x", "fail = ''\nother = 1").err().unwrap();
    assert_eq!(error.key, "other");
}

#[test]
fn a_panic_in_a_callback_fails_the_instance_once() {
    let fake = FakeHost::new();
    let instance = fake.create::<Faulty>("x", "fail = 'deliver'").unwrap();
    instance.start().unwrap();
    let first = fake.deliver("faulty", FrameKind::Message, "a", "", &[b"x"]);
    let again = fake.deliver("faulty", FrameKind::Message, "a", "", &[b"x"]);
    assert_eq!((first, again), (Some(DeliveryStatus::CLOSED), Some(DeliveryStatus::CLOSED)));
    let failures = fake.failures();
    assert_eq!(failures.len(), 1, "refused after the first: {failures:?}");
    assert!(failures[0].starts_with("panic in deliver: ") && failures[0].contains("as configured, from a"));
    assert!(instance.start().unwrap_err().message.contains("has failed before"));
}

#[test]
fn an_instance_without_a_failure_works() {
    let fake = FakeHost::new();
    let instance = fake.create::<Faulty>("x", "fail = ''").unwrap();
    instance.start().unwrap();
    assert_eq!(fake.clients(), ["faulty"]);
    assert_eq!(fake.deliver("faulty", FrameKind::Message, "a", "", &[b"x"]), Some(DeliveryStatus::DIRTY));
    assert!(fake.failures().is_empty());
}
