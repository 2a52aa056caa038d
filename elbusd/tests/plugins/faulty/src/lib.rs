//! A plugin for tests: fails, panics or hangs in the callback that its configuration names.

use elbus_plugin_api::{
    Call, Client, ClientInfo, Code, Completion, Config, DeliveryStatus, Event, Host, Method, Plugin,
    PluginError, Run, Sink, Status,
    hooks::{Hook, HookScope, InterceptedFrame, OnFailure, Resolution, UnresolvedMessage, Verdict},
    inproc::InprocClient,
};
use serde::Deserialize;
use std::{
    cell::RefCell,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

#[derive(Deserialize, Clone, Default)]
#[serde(default)]
struct Settings {
    /// The client it registers.
    client: Option<String>,
    /// How many more clients it registers, with a number appended to the first one's name.
    clients: u32,
    /// The in-process client it connects.
    local: Option<String>,
    /// The callback that returns an error: create, start or refresh.
    fail_in: String,
    /// Whether it intercepts everything. The callback `intercept` is reached by the payload `now`.
    intercepts: bool,
    /// For how many seconds messages to `late.*` wait, except to `late.unknown`. The callback `resolve`
    /// panics for `late.panic` and hangs for `late.hang`.
    resolves: Option<f64>,
    /// Whether its clients defer the results of messages: `keep` is kept until another message is `complete`
    /// or `drop`; `panic` panics.
    defers: bool,
    /// Where the plugin panics: create, start, deliver, intercept, flush, event, method, stop or drop; or
    /// task, a thread that its method starts.
    panic_in: String,
    /// The callback that exits the process: create or method.
    abort_in: String,
    /// Where the plugin never returns: create, start, deliver, intercept, flush, event, method or stop; or
    /// status, from the first call of its method on.
    hang_in: String,
    /// The callback that is slow: deliver.
    linger_in: String,
    /// The callback that endlessly sends short messages to its first client: deliver, of the other clients.
    loop_in: String,
    /// Whether each call of its method starts a thread with a thread-local whose `Drop` logs and sends.
    late: bool,
}

/// How long the slow callback takes.
const MOMENT: Duration = Duration::from_millis(20);

thread_local! {
    static LATE: RefCell<Option<Late>> = const { RefCell::new(None) };
}

/// Dropped after all thread-locals of the broker and of tracing.
struct Late(Client);

impl Drop for Late {
    fn drop(&mut self) {
        tracing::warn!(reason = "as configured", "thread-local dropped");
        let sent = self.0.publish("late", b"late");
        tracing::warn!(code = ?sent.code(), "thread-local has sent");
        // caught here, after the hook has logged it
        let caught = std::panic::catch_unwind(|| panic!("thread-local panics as configured"));
        tracing::warn!(caught = caught.is_err(), "thread-local is gone");
    }
}

fn start_late_thread(client: Client) {
    std::thread::spawn(move || {
        LATE.with_borrow_mut(|late| *late = Some(Late(client)));
        // initialises the thread-locals that a line and a message need, which are destroyed first
        tracing::warn!("thread-local made");
        LATE.with_borrow_mut(|late| {
            let Some(Late(client)) = late else { return };
            client.publish("late", b"early");
        });
    });
}

struct Faulty {
    local: Mutex<Option<InprocClient>>,
    host: Host,
    settings: Settings,
    clients: Mutex<Vec<Client>>,
    hooks: Mutex<Vec<Hook>>,
    called: Arc<AtomicBool>,
}

impl Settings {
    fn reach(&self, place: &str) {
        if self.panic_in == place {
            panic!("{place} panics as configured");
        }
        if self.linger_in == place {
            std::thread::sleep(MOMENT);
        }
        if self.hang_in == place {
            loop {
                std::thread::sleep(Duration::from_secs(1));
            }
        }
    }
}

impl Plugin for Faulty {
    const ABOUT: &'static str = "fails where its configuration says";

    fn create(host: Host, config: &Config) -> Result<Self, PluginError> {
        let settings: Settings = config.read()?;
        settings.reach("create");
        if settings.abort_in == "create" {
            std::process::abort();
        }
        if settings.fail_in == "create" {
            return Err(PluginError::of_key("fail_in", "create fails as configured"));
        }
        Ok(Faulty {
            local: Mutex::default(),
            host,
            settings,
            clients: Mutex::default(),
            hooks: Mutex::default(),
            called: Arc::default(),
        })
    }

    fn start(&self) -> Result<(), PluginError> {
        self.settings.reach("start");
        if self.settings.fail_in == "start" {
            return Err(PluginError::new("start fails as configured"));
        }
        if let Some(name) = &self.settings.client {
            let info = ClientInfo::in_process();
            for number in 0..=self.settings.clients {
                let name = if number == 0 { name.clone() } else { format!("{name}{number}") };
                let loops_to = (number > 0 && self.settings.loop_in == "deliver").then(|| self.host.clone());
                let (settings, kept) = (self.settings.clone(), Mutex::default());
                let sink = FaultySink { settings, loops_to, kept };
                let client = self.host.register(&name, &info, sink);
                let client = client.map_err(|code| PluginError::of_key("client", code.text()))?;
                self.clients.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).push(client);
            }
        }
        if let Some(name) = &self.settings.local {
            let client = self.host.connect(name).map_err(|code| PluginError::of_key("local", code.text()))?;
            *self.local.lock().unwrap_or_else(|poisoned| poisoned.into_inner()) = Some(client);
        }
        if self.settings.intercepts {
            let settings = self.settings.clone();
            let interceptor = move |frame: &InterceptedFrame<'_>| {
                if frame.payload() == b"now" {
                    settings.reach("intercept");
                }
                if frame.payload() == b"reject" {
                    return Verdict::Reject(Code::BadData);
                }
                Verdict::Continue
            };
            let hook = self.host.add_interceptor(&HookScope::everything(), OnFailure::Closed, interceptor)?;
            self.hooks.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).push(hook);
        }
        if let Some(seconds) = self.settings.resolves {
            let hook = self.host.add_resolver(["late.*"], move |message: &UnresolvedMessage<'_>| {
                match message.target() {
                    "late.unknown" => return Resolution::Unknown,
                    "late.panic" => panic!("resolve panics as configured"),
                    "late.hang" => loop {
                        std::thread::sleep(Duration::from_secs(1));
                    },
                    _ => {}
                }
                Resolution::WaitUpTo(Duration::from_secs_f64(seconds))
            })?;
            self.hooks.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).push(hook);
        }
        let settings = self.settings.clone();
        self.host.add_listener(move |_: &Event<'_>| settings.reach("event"));
        let (settings, called, host) = (self.settings.clone(), self.called.clone(), self.host.clone());
        let name = format!("{}.try", self.host.instance());
        let method = Method::new(&name).about("reaches the method callback");
        self.host.add_method(&method, move |_: &Call<'_>| {
            settings.reach("method");
            if settings.panic_in == "task" {
                _ = std::thread::Builder::new()
                    .name("of its own".to_owned())
                    .spawn(|| panic!("task panics as configured"));
            }
            if settings.abort_in == "method" {
                std::process::abort();
            }
            if settings.late {
                start_late_thread(host.system_client());
            }
            called.store(true, Ordering::Release);
            Ok(vec![0xC0])
        })?;
        tracing::info!(instance = self.host.instance(), "faulty started");
        Ok(())
    }

    fn refresh(&self) -> Result<(), PluginError> {
        self.settings.reach("refresh");
        if self.settings.fail_in == "refresh" {
            return Err(PluginError::of_key("fail_in", "refresh fails as configured"));
        }
        tracing::info!(instance = self.host.instance(), "faulty refreshed");
        Ok(())
    }

    fn status(&self) -> Status {
        if self.called.load(Ordering::Acquire) {
            self.settings.reach("status");
        }
        Status::default()
    }

    fn stop(&self, _: Duration) {
        tracing::info!(instance = self.host.instance(), "faulty stops");
        self.settings.reach("stop");
        self.clients.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).clear();
    }
}

impl Drop for Faulty {
    fn drop(&mut self) {
        self.settings.reach("drop");
    }
}

struct FaultySink {
    settings: Settings,
    /// The host through which it sends endlessly.
    loops_to: Option<Host>,
    /// The results that it has deferred.
    kept: Mutex<Vec<Completion>>,
}

impl FaultySink {
    fn defer(&self, run: &mut Run<'_>) {
        let mut kept = self.kept.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        let ended = match run.payloads().first().map(|payload| payload.bytes()) {
            Some(b"keep") => {
                kept.extend(run.defer());
                return;
            }
            Some(b"panic") => {
                let _deferred = run.defer();
                panic!("deferring panics as configured");
            }
            Some(b"complete" | b"drop") => std::mem::take(&mut *kept),
            _ => return,
        };
        drop(kept);
        if run.payloads().first().is_some_and(|payload| payload.bytes() == b"complete") {
            ended.into_iter().for_each(|completion| completion.complete(Code::Busy));
        }
    }
}

impl Sink for FaultySink {
    fn deliver(&self, run: &mut Run<'_>) -> DeliveryStatus {
        self.settings.reach("deliver");
        if self.settings.defers {
            self.defer(run);
        }
        if let (Some(host), Some(name)) = (&self.loops_to, &self.settings.client) {
            let mut sender = host.system_client();
            loop {
                sender.send(name, b"again");
            }
        }
        DeliveryStatus::DIRTY
    }
    fn flush(&self) {
        self.settings.reach("flush");
    }
    fn close(&self, reason: &str) {
        tracing::info!(reason, "faulty sink closed");
    }
}

elbus_plugin_api::export_plugin!(Faulty);
