//! A request to the kernel that no processor sleeps, so that a measurement does not include the time in which
//! a virtual machine wakes one.

use std::{
    fs::{File, OpenOptions},
    io::{self, Write},
};

/// Keeps all processors awake until it is dropped.
pub(super) struct CpuLatencyRequest {
    /// The request holds while the device is open.
    _device: File,
}

impl CpuLatencyRequest {
    /// Requests a wake-up latency of 0 microseconds, as `cpu_latency_us = 0` of the broker does.
    pub(super) fn zero() -> io::Result<Self> {
        let mut device = OpenOptions::new().write(true).open("/dev/cpu_dma_latency")?;
        device.write_all(&0i32.to_ne_bytes())?;
        Ok(CpuLatencyRequest { _device: device })
    }
}
