//! A stream socket that is registered for reading only, and the queue of bytes to write to it.
//!
//! Both ends of a connection use it: the broker's transports and the client. [`Socket`] owns the file
//! descriptor and every system call on it, [`Queue`] the queued bytes, [`buffer_pool`] the memory of queues
//! between two bursts. This crate never interprets the bytes, never opens or binds a socket, and never locks
//! a queue: the owner does.
//!
//! After appending to a queue, the owner sends immediately: [`Socket::send`] writes what the socket accepts,
//! and [`Queue::advance`] removes it. A [`WritableTwin`], which reports when to continue, exists only while
//! the queue is not empty.
//!
//! If both ends have agreed so, the bytes are in two rings of shared memory (`elbus-ring`) instead of the
//! socket, with the same methods.
#![forbid(unsafe_code)]

pub mod buffer_pool;
mod queue;
mod received;
mod rings;
mod socket;

pub use elbus_ring::{MAX_RING_BYTES, MIN_RING_BYTES, ring_bytes_of_class};
pub use queue::{Queue, QueueDepth};
pub use received::Received;
pub use socket::{READ_BYTES, ReceivedAnswer, RingDescriptors, Socket, WritableTwin};
