//! One inbox and its consumer, without a connection.

use super::*;
use bytes::Bytes;
use elbus_protocol::FrameKind;

/// A read whose frames share nothing.
const OWN: SharedRead = SharedRead { id: 1, bytes: 0 };

fn frame(number: u8) -> Frame {
    Frame::from_wire(FrameKind::Message, false, vec![b'a', 0, number].into(), 1, 2)
}

fn inbox(frames: usize, overflow: Overflow) -> (Arc<Inbox>, Receiver) {
    let inbox = Inbox::new(frames * frame(0).cost(), overflow, Arc::default());
    (inbox.clone(), Receiver::new(inbox))
}

/// Takes all frames. Returns the number and the reported losses of each.
fn numbers(receiver: &mut Receiver) -> Vec<(u8, u64)> {
    std::iter::from_fn(|| receiver.try_next()).map(|f| (f.payload()[0], f.missed())).collect()
}

#[test]
fn blocking_drops_nothing_and_reports_the_limit() {
    let (inbox, mut receiver) = inbox(2, Overflow::Block);
    inbox.push(&mut vec![frame(1), frame(2)], OWN);
    assert!(!inbox.is_over_limit(1));
    inbox.push(&mut vec![frame(3)], OWN);
    assert!(inbox.is_over_limit(1) && !inbox.is_over_limit(4));
    assert_eq!(numbers(&mut receiver), [(1, 0), (2, 0), (3, 0)]);
    assert!(!inbox.is_over_limit(1));
}

#[test]
fn a_slow_consumer_takes_few_frames_at_once_and_a_fast_one_many() {
    let millis = Duration::from_millis;
    for (frames, elapsed, expected) in [
        (1, millis(1000), 1),
        (1, millis(1), 10),
        (1024, millis(1000), 10),
        (1024, Duration::from_micros(100), TAKE_FRAMES),
        (16, Duration::ZERO, TAKE_FRAMES),
        (1024, Duration::MAX, 1),
    ] {
        assert_eq!(frames_in_take_time(frames, elapsed), expected, "{frames} in {elapsed:?}");
    }
    let (inbox, mut receiver) = inbox(10_000, Overflow::Block);
    inbox.push(&mut (0..5000).map(|number| frame(number as u8)).collect(), OWN);
    receiver.measured = Some((1024, Instant::now() - millis(10_240)));
    assert!(receiver.try_next().is_some());
    assert_eq!((receiver.taken.len(), inbox.taken()), (0, 1), "it takes 1 in 10 ms");
    assert!(receiver.try_next().is_some());
    let before = inbox.taken();
    receiver.taken.clear();
    receiver.measured = Some((16, Instant::now()));
    assert!(receiver.try_next().is_some());
    assert_eq!(inbox.taken() - before, TAKE_FRAMES as u64);
}

#[test]
fn the_newest_frames_are_dropped_and_counted() {
    let (inbox, mut receiver) = inbox(2, Overflow::DropNewest);
    inbox.push(&mut (1..=5).map(frame).collect(), OWN);
    assert_eq!(receiver.missed(), 3);
    assert_eq!(numbers(&mut receiver), [(1, 0), (2, 0)]);
    inbox.push(&mut vec![frame(6), frame(7)], OWN);
    assert_eq!(numbers(&mut receiver), [(6, 3), (7, 0)]);
    assert_eq!(receiver.missed(), 3);
}

#[test]
fn a_consumer_that_continues_at_the_last_moment_loses_nothing() {
    let (inbox, mut receiver) = inbox(1, Overflow::Block);
    inbox.push(&mut vec![frame(1), frame(2)], OWN);
    let taken = inbox.taken();
    assert_eq!(numbers(&mut receiver), [(1, 0), (2, 0)]);
    assert!(!inbox.drop_excess(taken, 1));
    inbox.push(&mut vec![frame(3), frame(4)], OWN);
    assert!(!inbox.drop_excess(inbox.taken(), 4), "not over this limit");
    inbox.push(&mut vec![frame(5)], OWN);
    assert_eq!(numbers(&mut receiver), [(3, 0), (4, 0), (5, 0)]);
}

#[test]
fn a_consumer_that_takes_nothing_loses_frames_until_it_continues() {
    let (inbox, mut receiver) = inbox(1, Overflow::Block);
    inbox.push(&mut vec![frame(1), frame(2)], OWN);
    assert!(inbox.drop_excess(inbox.taken(), 1) && !inbox.is_over_limit(1));
    inbox.push(&mut vec![frame(3), frame(4)], OWN);
    inbox.push(&mut vec![frame(5)], OWN);
    assert_eq!(numbers(&mut receiver), [(1, 0), (2, 0)]);
    inbox.push(&mut vec![frame(6), frame(7)], OWN);
    assert!(inbox.is_over_limit(1));
    assert_eq!(numbers(&mut receiver), [(6, 3), (7, 0)]);
    assert_eq!(receiver.missed(), 3);
}

#[test]
fn a_consumer_that_takes_too_little_loses_the_frames_of_one_read() {
    let (inbox, mut receiver) = inbox(1, Overflow::Block);
    inbox.push(&mut vec![frame(1), frame(2), frame(3)], OWN);
    let taken = inbox.taken();
    assert!(receiver.try_next().is_some());
    assert!(inbox.is_over_limit(1) && inbox.drop_excess(taken, 1) && !inbox.is_over_limit(1));
    receiver.measured = None; // it takes one at a time
    assert!(receiver.try_next().is_some(), "taking more does not make the next read unbounded");
    inbox.push(&mut vec![frame(4), frame(5)], OWN);
    assert_eq!((inbox.is_over_limit(1), receiver.missed()), (false, 2));
    inbox.push(&mut vec![frame(6)], OWN);
    assert!(inbox.is_over_limit(1), "once only");
    assert_eq!(numbers(&mut receiver), [(3, 0), (6, 2)]);
}

#[test]
fn the_oldest_frames_are_dropped_and_counted() {
    let (inbox, mut receiver) = inbox(2, Overflow::DropOldest);
    inbox.push(&mut (1..=5).map(frame).collect(), OWN);
    assert_eq!(receiver.missed(), 3);
    assert_eq!(numbers(&mut receiver), [(4, 3), (5, 0)]);
}

#[test]
fn what_was_dropped_earlier_is_reported_by_the_next_frame() {
    for overflow in [Overflow::Block, Overflow::DropNewest, Overflow::DropOldest] {
        let (inbox, mut receiver) = inbox(9, overflow);
        inbox.push(&mut vec![frame(1)], OWN);
        inbox.add_missed(5);
        inbox.add_missed(2);
        assert_eq!(receiver.missed(), 7);
        inbox.push(&mut vec![frame(2), frame(3)], OWN);
        assert_eq!(numbers(&mut receiver), [(1, 0), (2, 7), (3, 0)]);
        inbox.add_missed(u64::MAX);
        inbox.add_missed(1);
        inbox.push(&mut vec![frame(4)], OWN);
        assert_eq!((numbers(&mut receiver), receiver.missed()), (vec![(4, u64::MAX)], u64::MAX));
    }
}

#[test]
fn a_frame_larger_than_the_limit_is_queued_alone() {
    for overflow in [Overflow::Block, Overflow::DropNewest, Overflow::DropOldest] {
        let (inbox, mut receiver) = inbox(1, overflow);
        let body = Bytes::from([&b"a\0"[..], &[9; 1000]].concat());
        inbox.push(&mut vec![Frame::from_wire(FrameKind::Message, false, body, 1, 2)], OWN);
        assert_eq!(numbers(&mut receiver), [(9, 0)]);
    }
}

#[test]
fn queued_frames_are_received_after_the_end() {
    let (inbox, mut receiver) = inbox(9, Overflow::Block);
    inbox.push(&mut vec![frame(1)], OWN);
    inbox.end();
    assert_eq!(inbox.push(&mut vec![frame(2)], OWN), 1);
    let context = Context::from_waker(Waker::noop());
    assert!(matches!(receiver.poll_next(&context), Poll::Ready(Some(_))));
    assert!(matches!(receiver.poll_next(&context), Poll::Ready(None)));
}

#[test]
fn nothing_is_queued_without_a_receiver() {
    let (inbox, receiver) = inbox(1, Overflow::Block);
    inbox.push(&mut (1..=5).map(frame).collect(), OWN);
    drop(receiver);
    assert!(!inbox.is_over_limit(1));
    assert_eq!(inbox.push(&mut vec![frame(6)], OWN), 1);
}

#[test]
fn a_frame_of_each_of_many_reads_does_not_keep_all_of_them() {
    const READ: usize = 128 * 1024;
    for overflow in [Overflow::Block, Overflow::DropNewest, Overflow::DropOldest] {
        let limit = 1 << 20;
        let inbox = Inbox::new(limit, overflow, Arc::default());
        let mut receiver = Receiver::new(inbox.clone());
        let reads: Vec<_> = (0..3000u64)
            .map(|number| {
                let mut read = vec![0; READ];
                read[..12].copy_from_slice(&[&b"a\0__"[..], &number.to_le_bytes()].concat());
                Bytes::from(read)
            })
            .collect();
        for (read, id) in reads.iter().zip(1..) {
            // two runs of one read
            for at in [0, 100] {
                let frame = Frame::from_wire(FrameKind::Message, false, read.slice(at..at + 12), 1, 4);
                inbox.push(&mut vec![frame], SharedRead { id, bytes: READ });
            }
        }
        let kept = reads.iter().filter(|read| !read.is_unique()).count();
        assert!(kept <= (limit + SHARED_SLACK) / READ + 1, "{overflow:?}: {kept} reads are kept");
        for number in 0..3000u64 {
            assert_eq!(receiver.try_next().unwrap().payload(), number.to_le_bytes());
            receiver.try_next().unwrap();
        }
        assert_eq!(inbox.state.lock().shared_bytes, 0);
    }
}

#[test]
fn whole_reads_are_not_copied() {
    let inbox = Inbox::new(1 << 20, Overflow::Block, Arc::default());
    let mut receiver = Receiver::new(inbox.clone());
    for id in 1..100 {
        let read = Bytes::from(vec![b'a'; 100_000]);
        let frames = (0..1000).map(|at| read.slice(at * 100..at * 100 + 100));
        let mut frames = frames.map(|body| Frame::from_wire(FrameKind::Message, false, body, 1, 2)).collect();
        inbox.push(&mut frames, SharedRead { id, bytes: read.len() });
        let is_shared = |frame: &Frame| read.as_ptr_range().contains(&frame.payload().as_ptr());
        assert!(inbox.state.lock().frames.back().is_some_and(is_shared), "read {id}");
        // a consumer that is always behind
        for _ in 0..if id < 15 { 0 } else { 1000 } {
            receiver.try_next().unwrap();
        }
    }
}
