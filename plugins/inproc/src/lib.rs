//! In-process clients of ELBUS.
