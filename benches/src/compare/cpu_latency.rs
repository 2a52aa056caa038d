//! Processors that do not sleep, so that what is measured is no virtual machine's way of waking them. Owns the device
//! that the kernel is asked by.

use std::{
    fs::{File, OpenOptions},
    io::{self, Write},
};

/// Holds the processors awake until it is dropped.
pub(super) struct Awake {
    /// Open for as long as they are to be awake.
    _device: File,
}

impl Awake {
    /// Asks for 0 microseconds to wake up in, as `cpu_latency_us = 0` of the broker does.
    pub(super) fn keep() -> io::Result<Self> {
        let mut device = OpenOptions::new().write(true).open("/dev/cpu_dma_latency")?;
        device.write_all(&0i32.to_ne_bytes())?;
        Ok(Awake { _device: device })
    }
}
