//! Facts about this machine that transports and access control share: users, groups, and the process behind a
//! socket.

mod peer_process;
mod user_or_group;

pub use peer_process::peer_process;
pub use user_or_group::{GroupMembers, UserOrGroup, user_names};
