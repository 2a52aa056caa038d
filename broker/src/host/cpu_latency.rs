//! The request to the kernel that no processor sleeps so deeply that it needs longer than so much to wake up. Owns the
//! device by which Linux is asked; the request lasts for as long as it is open.

use parking_lot::Mutex;
use std::{
    fs::{File, OpenOptions},
    io::{self, Write},
    path::PathBuf,
};

/// Of the kernel's power management, `Documentation/power/pm_qos_interface.rst`. It takes a native 32-bit number of
/// microseconds.
const DEVICE: &str = "/dev/cpu_dma_latency";

pub(super) struct CpuLatency {
    device: PathBuf,
    /// A leaf.
    request: Mutex<Option<Request>>,
}

struct Request {
    microseconds: u32,
    /// Kept open.
    _device: File,
}

impl Default for CpuLatency {
    fn default() -> Self {
        CpuLatency { device: DEVICE.into(), request: Mutex::default() }
    }
}

impl CpuLatency {
    /// Asks for so many microseconds at most, or no longer for anything. Where it cannot, the log says so: the broker
    /// serves without.
    pub(super) fn set(&self, microseconds: Option<u32>) {
        if let Err(error) = self.ask(microseconds) {
            let device = self.device.display();
            tracing::warn!(%error, "processors sleep as before (cpu_latency_us): {device} cannot be written");
        }
    }

    fn ask(&self, microseconds: Option<u32>) -> io::Result<()> {
        let mut request = self.request.lock();
        if request.as_ref().map(|request| request.microseconds) == microseconds {
            return Ok(());
        }
        // the old one ends in any case, and none is left where the new one fails
        *request = None;
        let Some(microseconds) = microseconds else { return Ok(()) };
        let number = i32::try_from(microseconds).unwrap_or(i32::MAX);
        let mut device = OpenOptions::new().write(true).open(&self.device)?;
        device.write_all(&number.to_ne_bytes())?;
        *request = Some(Request { microseconds, _device: device });
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_number_is_written_as_the_kernel_takes_it() {
        let (written, device) = rustix::pipe::pipe().unwrap();
        let path = format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&device));
        let latency = CpuLatency { device: path.into(), request: Mutex::default() };
        for microseconds in [Some(20), Some(20), None, Some(0), None] {
            latency.ask(microseconds).unwrap();
        }
        drop(device);
        let mut bytes = Vec::new();
        io::Read::read_to_end(&mut File::from(written), &mut bytes).unwrap();
        assert_eq!(bytes, [20i32.to_ne_bytes(), 0i32.to_ne_bytes()].concat(), "closed, and not asked twice");
    }

    #[test]
    fn what_cannot_be_asked_is_asked_for_again() {
        let latency = CpuLatency { device: "/nowhere/device".into(), request: Mutex::default() };
        assert!(latency.ask(Some(0)).is_err());
        assert!(latency.ask(Some(0)).is_err());
        assert!(latency.ask(None).is_ok());
    }
}
