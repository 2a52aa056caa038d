//! A stream socket that is registered for reading only, and the queue of bytes to write to it.
//!
//! Both ends of a connection use it: the broker's transports and the client. [`Socket`] owns the file
//! descriptor and every system call on it, [`Queue`] the queued bytes, [`buffer_pool`] the memory of queues
//! between two bursts. It never interprets the bytes, never opens or binds a socket, and has no lock around a
//! queue: that is the owner's.
//!
//! After appending to a queue the owner sends immediately: [`Socket::send`] passes on what the socket takes,
//! [`Queue::advance`] removes it. A [`WritableTwin`], which reports when to continue, exists only while
//! something is left.
#![forbid(unsafe_code)]

pub mod buffer_pool;
mod queue;
mod socket;

pub use queue::{Queue, QueueDepth};
pub use socket::{READ_BYTES, Received, Socket, WritableTwin};
