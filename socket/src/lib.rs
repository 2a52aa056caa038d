//! A stream socket that is registered for reading only, and the bytes that wait to be written to it.
//!
//! Both ends of a connection use it: the broker's transports and the client. [`Socket`] owns the descriptor and
//! every system call on it, [`Queue`] what waits to be sent, [`buffer_pool`] the memory of queues between two bursts. It
//! never knows what the bytes mean, never opens or binds a socket, and has no lock around a queue: that is the
//! owner's.
//!
//! Whoever appends to a queue sends it at once: [`Socket::send`] takes what the socket takes, [`Queue::advance`]
//! forgets that much. Only while something is left does a [`WritableTwin`] exist, which tells when to go on.
#![forbid(unsafe_code)]

pub mod buffer_pool;
mod queue;
mod socket;

pub use queue::{Queue, QueueDepth};
pub use socket::{READ_BYTES, Received, Socket, WritableTwin};
