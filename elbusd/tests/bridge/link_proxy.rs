//! A TCP proxy between a node and its server: links can be cut, delayed, and frozen as if packets were lost.

use std::{
    io::{Read, Write},
    net::{Shutdown, TcpListener, TcpStream},
    sync::{
        Arc, Condvar, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

/// The state of all connections.
#[derive(Default)]
struct State {
    link: Mutex<Link>,
    changed: Condvar,
    is_over: AtomicBool,
}

#[derive(Default)]
struct Link {
    is_frozen: bool,
    is_refusing: bool,
    delay: Duration,
    streams: Vec<TcpStream>,
}

/// The proxy. Its connections end when it is dropped.
pub(crate) struct LinkProxy {
    port: u16,
    state: Arc<State>,
}

impl LinkProxy {
    pub(crate) fn start(server: u16) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let state = Arc::<State>::default();
        let accepting = state.clone();
        std::thread::spawn(move || {
            for client in listener.incoming().map_while(Result::ok) {
                if accepting.is_over.load(Ordering::SeqCst) {
                    return;
                }
                let Ok(server) = TcpStream::connect(("127.0.0.1", server)) else { continue };
                let mut link = accepting.link.lock().unwrap();
                if link.is_refusing {
                    continue;
                }
                for stream in [&client, &server] {
                    stream.set_nodelay(true).unwrap();
                    link.streams.push(stream.try_clone().unwrap());
                }
                for (from, to) in [(&client, &server), (&server, &client)] {
                    let (from, to) = (from.try_clone().unwrap(), to.try_clone().unwrap());
                    let state = accepting.clone();
                    std::thread::spawn(move || copy(from, to, &state));
                }
            }
        });
        LinkProxy { port, state }
    }

    pub(crate) fn url(&self) -> String {
        format!("nats://127.0.0.1:{}", self.port)
    }

    /// Ends all connections; new ones are refused until the link is restored.
    pub(crate) fn cut(&self) {
        let mut link = self.state.link.lock().unwrap();
        link.is_refusing = true;
        for stream in link.streams.drain(..) {
            _ = stream.shutdown(Shutdown::Both);
        }
    }

    /// Accepts connections again, and passes on what was frozen.
    pub(crate) fn restore(&self) {
        let mut link = self.state.link.lock().unwrap();
        (link.is_refusing, link.is_frozen) = (false, false);
        self.state.changed.notify_all();
    }

    /// Passes on nothing, in both directions, and ends no connection.
    pub(crate) fn freeze(&self) {
        self.state.link.lock().unwrap().is_frozen = true;
    }

    /// Passes everything on this much later.
    pub(crate) fn delay(&self, delay: Duration) {
        self.state.link.lock().unwrap().delay = delay;
    }
}

impl Drop for LinkProxy {
    fn drop(&mut self) {
        self.state.is_over.store(true, Ordering::SeqCst);
        self.restore();
        self.cut();
        // the accepting thread looks once more
        _ = TcpStream::connect(("127.0.0.1", self.port));
    }
}

fn copy(mut from: TcpStream, mut to: TcpStream, state: &State) {
    let mut buffer = vec![0; 64 << 10];
    while let Ok(count) = from.read(&mut buffer) {
        let link = state.link.lock().unwrap();
        let link = state.changed.wait_while(link, |link| link.is_frozen).unwrap();
        let delay = link.delay;
        drop(link);
        std::thread::sleep(delay);
        if count == 0 || to.write_all(&buffer[..count]).is_err() {
            break;
        }
    }
    _ = from.shutdown(Shutdown::Both);
    _ = to.shutdown(Shutdown::Both);
}
