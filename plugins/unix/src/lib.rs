//! The UNIX socket transport of ELBUS.
