//! A TCP proxy between a node and its server: links can be cut, also within a frame, slow in one direction,
//! stalled as if packets were lost and sent again, and frozen.

use std::{
    io::{Read, Write},
    net::{Shutdown, TcpListener, TcpStream},
    sync::{
        Arc, Condvar, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use crate::support::PATIENCE;

/// A direction of a link.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Direction {
    ToServer,
    ToNode,
}

/// Both directions.
pub(crate) const DIRECTIONS: [Direction; 2] = [Direction::ToServer, Direction::ToNode];

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
    pace: [Pace; DIRECTIONS.len()],
    /// Where the link is cut: after this many more bytes in a direction.
    cut_after: Option<(Direction, usize)>,
    streams: Vec<TcpStream>,
    /// The state of a generator of numbers, the same in each run.
    random: u32,
}

/// How fast a direction is.
#[derive(Debug, Clone, Copy, Default)]
struct Pace {
    delay: Duration,
    /// 0 without a limit.
    bytes_per_second: usize,
    /// Number of pieces of which one stalls; 0 if none does.
    one_in: u32,
}

impl Pace {
    /// Bytes that are passed on together, at most.
    fn piece(self) -> usize {
        if self.bytes_per_second == 0 { 64 << 10 } else { (self.bytes_per_second / 100).max(1) }
    }

    /// Time that these bytes need.
    fn time(self, bytes: usize) -> Duration {
        let seconds =
            if self.bytes_per_second == 0 { 0.0 } else { bytes as f64 / self.bytes_per_second as f64 };
        self.delay + Duration::from_secs_f64(seconds)
    }
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
                let ways = [(Direction::ToServer, &client, &server), (Direction::ToNode, &server, &client)];
                for (direction, from, to) in ways {
                    let (from, to) = (from.try_clone().unwrap(), to.try_clone().unwrap());
                    let state = accepting.clone();
                    std::thread::spawn(move || copy(direction, from, to, &state));
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
        self.state.link.lock().unwrap().cut();
    }

    /// As [`cut`](Self::cut), after this many more bytes in a direction: the last frame is not complete.
    /// Returns when it has happened.
    pub(crate) fn cut_after(&self, direction: Direction, bytes: usize) {
        let mut link = self.state.link.lock().unwrap();
        link.cut_after = Some((direction, bytes));
        let (_link, result) =
            self.state.changed.wait_timeout_while(link, PATIENCE, |link| link.cut_after.is_some()).unwrap();
        assert!(!result.timed_out(), "no {bytes} bytes have come: {direction:?}");
    }

    /// Accepts connections again, passes on what was frozen, and is fast in both directions.
    pub(crate) fn restore(&self) {
        let mut link = self.state.link.lock().unwrap();
        *link = Link { streams: std::mem::take(&mut link.streams), ..Link::default() };
        self.state.changed.notify_all();
    }

    /// Passes on nothing, in both directions, and ends no connection.
    pub(crate) fn freeze(&self) {
        self.state.link.lock().unwrap().is_frozen = true;
    }

    /// Passes on in a direction only this many bytes per second.
    pub(crate) fn throttle(&self, direction: Direction, bytes_per_second: usize) {
        self.state.link.lock().unwrap().pace[direction as usize].bytes_per_second = bytes_per_second;
    }

    /// Has one of `one_in` pieces in a direction stall, for a random time, with everything behind it: what a
    /// connection shows of lost packets.
    pub(crate) fn lose(&self, direction: Direction, one_in: u32) {
        self.state.link.lock().unwrap().pace[direction as usize].one_in = one_in;
    }

    /// Passes on everything in a direction this much later.
    pub(crate) fn delay(&self, direction: Direction, delay: Duration) {
        self.state.link.lock().unwrap().pace[direction as usize].delay = delay;
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

impl Link {
    fn random(&mut self) -> u32 {
        self.random = self.random.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        self.random >> 16
    }

    fn cut(&mut self) {
        self.is_refusing = true;
        for stream in self.streams.drain(..) {
            _ = stream.shutdown(Shutdown::Both);
        }
    }
}

fn copy(direction: Direction, mut from: TcpStream, mut to: TcpStream, state: &State) {
    let mut buffer = vec![0; 64 << 10];
    loop {
        let piece = state.link.lock().unwrap().pace[direction as usize].piece();
        let Ok(mut count) = from.read(&mut buffer[..piece]) else { break };
        let link = state.link.lock().unwrap();
        let mut link = state.changed.wait_while(link, |link| link.is_frozen).unwrap();
        let mut is_cut = false;
        if let Some((way, left)) = &mut link.cut_after
            && *way == direction
        {
            is_cut = *left < count;
            count = count.min(*left);
            *left -= count;
        }
        let pace = link.pace[direction as usize];
        let stall = if pace.one_in > 0 && link.random().is_multiple_of(pace.one_in) {
            // the shortest time until Linux sends a packet again, and some doublings of it
            Duration::from_millis(200 + u64::from(link.random() % 700))
        } else {
            Duration::ZERO
        };
        let time = pace.time(count) + stall;
        drop(link);
        std::thread::sleep(time);
        let is_over = count == 0 || to.write_all(&buffer[..count]).is_err();
        if is_cut {
            let mut link = state.link.lock().unwrap();
            link.cut();
            link.cut_after = None;
            state.changed.notify_all();
        }
        if is_over || is_cut {
            break;
        }
    }
    _ = from.shutdown(Shutdown::Both);
    _ = to.shutdown(Shutdown::Both);
}
