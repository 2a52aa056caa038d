//! Threads that watch callbacks that do not return, and receivers that hold senders.

mod call_ages;
pub(crate) mod callback_watch;
pub(crate) mod hold_watch;
pub(crate) mod name_wait_timer;
pub(crate) mod subscription_pacer;
