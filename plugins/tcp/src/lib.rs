//! The TCP transport of ELBUS.
