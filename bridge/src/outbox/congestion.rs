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
    /// The shortest time from which a batch was published until its acknowledgement arrived.
    shortest: Duration,
    /// What was published before says nothing of the present window.
    reduced_at: Duration,
}

impl CongestionWindow {
    /// Creates a window that grows to `most` bytes.
    pub(super) fn new(most: usize) -> Self {
        CongestionWindow { bytes: FIRST.min(most), most, shortest: Duration::MAX, reduced_at: Duration::ZERO }
    }

    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// A batch of `bytes` bytes that was published at `sent` is acknowledged at `now`; until then `in_flight`
    /// bytes were in flight.
    pub(super) fn arrived(&mut self, bytes: usize, in_flight: usize, sent: Duration, now: Duration) {
        let time = now.saturating_sub(sent);
        self.shortest = self.shortest.min(time);
        let delay = time - self.shortest;
        if delay < SHORT {
            // one that is not used may be too large
            if in_flight >= self.bytes / 2 {
                self.bytes = (self.bytes + bytes).min(self.most);
            }
        } else if delay > LONG && sent >= self.reduced_at {
            let share = SHORT.as_secs_f64() / delay.as_secs_f64();
            self.bytes = ((self.bytes as f64 * share) as usize).max(LEAST.min(self.most));
            self.reduced_at = now;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Sends over a link of this rate and latency for a while, as much as the window permits. Returns the
    /// bytes that have arrived, and the longest time that one took after the first second.
    fn over(rate: f64, latency: Duration, window: &mut CongestionWindow) -> (usize, Duration) {
        const BATCH: usize = 16 << 10;
        let (mut now, mut free_at) = (Duration::from_secs(100), Duration::ZERO);
        let mut sent: std::collections::VecDeque<(Duration, Duration)> = std::collections::VecDeque::new();
        let (mut arrived, mut longest, end) = (0, Duration::ZERO, now + Duration::from_secs(20));
        let begin = now;
        while now < end {
            while let Some((at, _)) = sent.front().copied().filter(|(_, due)| *due <= now) {
                window.arrived(BATCH, sent.len() * BATCH, at, now);
                sent.pop_front();
                arrived += BATCH;
                if at > begin + Duration::from_secs(1) {
                    longest = longest.max(now - at);
                }
            }
            while sent.len() * BATCH < window.bytes() {
                free_at = free_at.max(now) + Duration::from_secs_f64(BATCH as f64 / rate);
                sent.push_back((now, free_at + latency));
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
    fn a_window_that_is_not_used_does_not_grow() {
        let mut window = CongestionWindow::new(8 << 20);
        for number in 0..100_000 {
            let sent = Duration::from_millis(number);
            window.arrived(1000, 1000, sent, sent + Duration::from_millis(5));
        }
        assert_eq!(window.bytes(), FIRST);
    }

    #[test]
    fn the_window_is_within_its_limits() {
        let mut window = CongestionWindow::new(10_000);
        assert_eq!(window.bytes(), 10_000);
        window.arrived(1000, 10_000, Duration::ZERO, Duration::from_millis(5));
        assert_eq!(window.bytes(), 10_000);
        window.arrived(1000, 10_000, Duration::ZERO, Duration::from_secs(60));
        assert_eq!(window.bytes(), 10_000);
        let mut window = CongestionWindow::new(1 << 20);
        window.arrived(1000, 1000, Duration::ZERO, Duration::ZERO);
        for number in 1..100 {
            window.arrived(1000, 1 << 20, Duration::from_secs(number), Duration::from_secs(number + 2));
        }
        assert_eq!(window.bytes(), LEAST);
    }
}
