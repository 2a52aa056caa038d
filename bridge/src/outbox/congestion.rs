//! The congestion window of a node: how many bytes may be in flight to it. It follows the link, so that what
//! is on its way does not delay signs of life and acknowledgements until the node counts as lost.

use std::time::Duration;

/// The first window: half a second of a link of 1 Mbit/s.
const FIRST: usize = 64 << 10;
/// The least that the window is reduced to.
const LEAST: usize = 32 << 10;
/// Delay by queues on the way, below which the window grows, ...
const SHORT: Duration = Duration::from_millis(250);
/// ... and above which it is reduced.
const LONG: Duration = Duration::from_millis(500);

#[derive(Debug)]
pub(super) struct CongestionWindow {
    bytes: usize,
    most: usize,
    /// The shortest time from when a batch was published until its acknowledgement arrived.
    shortest: Duration,
}

/// A batch that is acknowledged.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Acknowledged {
    /// Its length.
    pub(crate) bytes: usize,
    /// The bytes in flight when it was published, it included.
    pub(crate) in_flight: usize,
    /// From when it was published until now.
    pub(crate) time: Duration,
}

impl CongestionWindow {
    /// Creates a window that grows to `most` bytes.
    pub(super) fn new(most: usize) -> Self {
        CongestionWindow { bytes: FIRST.min(most), most, shortest: Duration::MAX }
    }

    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// A batch is acknowledged. What was in flight with it has taken its time; of this, as much fits as takes
    /// [`SHORT`] longer than the shortest time.
    pub(super) fn arrived(&mut self, batch: Acknowledged) {
        let Acknowledged { bytes, in_flight, time } = batch;
        self.shortest = self.shortest.min(time);
        let delay = time - self.shortest;
        if delay < SHORT {
            // one that is not used may be too large
            if in_flight >= self.bytes / 2 {
                self.bytes = (self.bytes + bytes).min(self.most);
            }
        } else if delay > LONG {
            let share = (self.shortest + SHORT).as_secs_f64() / time.as_secs_f64();
            let fits = (in_flight as f64 * share) as usize;
            self.bytes = self.bytes.min(fits.max(LEAST));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::VecDeque;

    /// Sends over a link of this rate and latency for a while, as much as the window permits. Returns the
    /// bytes that have arrived, and the longest time that one took after the first second.
    fn over(rate: f64, latency: Duration, window: &mut CongestionWindow) -> (usize, Duration) {
        const BATCH: usize = 16 << 10;
        let (mut now, mut free_at) = (Duration::from_secs(100), Duration::ZERO);
        // when each was published and arrives, and what was in flight then
        let mut sent: VecDeque<(Duration, Duration, usize)> = VecDeque::new();
        let (mut arrived, mut longest, end) = (0, Duration::ZERO, now + Duration::from_secs(20));
        let begin = now;
        while now < end {
            while let Some((at, _, in_flight)) = sent.front().copied().filter(|(_, due, _)| *due <= now) {
                window.arrived(Acknowledged { bytes: BATCH, in_flight, time: now - at });
                sent.pop_front();
                arrived += BATCH;
                if at > begin + Duration::from_secs(1) {
                    longest = longest.max(now - at);
                }
            }
            while sent.len() * BATCH < window.bytes() {
                free_at = free_at.max(now) + Duration::from_secs_f64(BATCH as f64 / rate);
                sent.push_back((now, free_at + latency, (sent.len() + 1) * BATCH));
            }
            now += Duration::from_millis(1);
        }
        (arrived, longest)
    }

    #[test]
    fn the_window_follows_the_link() {
        for (rate, milliseconds) in [(125e3, 20), (1e6, 20), (12.5e6, 200), (1e9, 20), (125e3, 600)] {
            let mut window = CongestionWindow::new(8 << 20);
            let latency = Duration::from_millis(milliseconds);
            let (arrived, longest) = over(rate, latency, &mut window);
            let possible = rate.min((8 << 20) as f64 / latency.as_secs_f64()) * 20.0;
            assert!(arrived as f64 > 0.7 * possible, "{rate} {latency:?}: {arrived} of {possible}");
            assert!(longest < latency + Duration::from_millis(1500), "{rate} {latency:?}: {longest:?}");
        }
    }

    #[test]
    fn a_link_that_becomes_slow_is_followed_at_once() {
        let mut window = CongestionWindow::new(1 << 20);
        let latency = Duration::from_millis(20);
        over(12.5e6, latency, &mut window);
        assert_eq!(window.bytes(), 1 << 20);
        // what is in flight takes eight seconds, and nothing is added
        let in_flight = window.bytes();
        for batch in 1..=64 {
            let time = Duration::from_millis(20 + batch * 131);
            window.arrived(Acknowledged { bytes: 16 << 10, in_flight, time });
        }
        assert!(window.bytes() < 40 << 10, "{}", window.bytes());
        let (arrived, longest) = over(125e3, latency, &mut window);
        assert!(arrived > 1_700_000 && longest < Duration::from_secs(1), "{arrived} {longest:?}");
    }

    #[test]
    fn a_window_that_is_not_used_does_not_grow() {
        let mut window = CongestionWindow::new(8 << 20);
        let batch = Acknowledged { bytes: 1000, in_flight: 1000, time: Duration::from_millis(5) };
        (0..100_000).for_each(|_| window.arrived(batch));
        assert_eq!(window.bytes(), FIRST);
    }

    #[test]
    fn the_window_is_within_its_limits() {
        let mut window = CongestionWindow::new(10_000);
        assert_eq!(window.bytes(), 10_000);
        let batch = |in_flight, milliseconds| Acknowledged {
            bytes: 1000,
            in_flight,
            time: Duration::from_millis(milliseconds),
        };
        window.arrived(batch(10_000, 5));
        assert_eq!(window.bytes(), 10_000);
        window.arrived(batch(10_000, 60_000));
        assert_eq!(window.bytes(), 10_000);
        let mut window = CongestionWindow::new(1 << 20);
        window.arrived(batch(1000, 0));
        (0..100).for_each(|_| window.arrived(batch(1 << 20, 60_000)));
        assert_eq!(window.bytes(), LEAST);
    }
}
