//! Safe access to files in folders that other users may write to: sockets, FIFOs, pid files.
//!
//! A path is resolved once, to a [`Folder`] that is held by descriptor. Every later operation names a file
//! relative to that descriptor and never follows a symbolic link, so that renamed folders and swapped files
//! cannot redirect it. [`Node`] is one file of any type: its owner and permissions are read and changed
//! without resolving its name again. This crate never opens a file for its contents without
//! [`NOFOLLOW`](rustix::fs::OFlags::NOFOLLOW) and [`NONBLOCK`](rustix::fs::OFlags::NONBLOCK), and does not
//! know what the files are for.
#![forbid(unsafe_code)]

mod error;
mod folder;
mod node;
mod resolve;

pub use error::FolderError;
pub use folder::{Folder, FolderLock};
pub use node::{Identity, Node};
