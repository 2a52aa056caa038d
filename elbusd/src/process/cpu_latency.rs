//! The limit of the processors' wake-up latency that is requested from the kernel. Owns the device through
//! which Linux accepts the request, which is in force for as long as the device is open.

use parking_lot::Mutex;
use std::{
    fs::{File, OpenOptions},
    io::{self, Write},
    path::PathBuf,
};

/// `Documentation/power/pm_qos_interface.rst` of the kernel. The device takes a native 32-bit number of
/// microseconds.
const DEVICE: &str = "/dev/cpu_dma_latency";

/// The request of this process.
pub(crate) struct CpuLatency {
    device: PathBuf,
    /// A leaf lock.
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
    /// Requests a latency of at most `microseconds`, or withdraws the request. A failure is logged: the
    /// broker serves without it.
    pub(crate) fn set(&self, microseconds: Option<u32>) {
        if let Err(error) = self.request(microseconds) {
            let device = self.device.display();
            tracing::warn!(%device, %error, "cpu_latency_us has no effect: device cannot be written");
        }
    }

    fn request(&self, microseconds: Option<u32>) -> io::Result<()> {
        let mut request = self.request.lock();
        if request.as_ref().map(|request| request.microseconds) == microseconds {
            return Ok(());
        }
        // the previous request ends in any case, also if the new one fails
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
    fn the_number_is_written_in_the_format_of_the_kernel() {
        let (written, device) = rustix::pipe::pipe().unwrap();
        let path = format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&device));
        let latency = CpuLatency { device: path.into(), request: Mutex::default() };
        for microseconds in [Some(20), Some(20), None, Some(0), None] {
            latency.request(microseconds).unwrap();
        }
        drop(device);
        let mut bytes = Vec::new();
        io::Read::read_to_end(&mut File::from(written), &mut bytes).unwrap();
        assert_eq!(
            bytes,
            [20i32.to_ne_bytes(), 0i32.to_ne_bytes()].concat(),
            "closed, and not requested twice"
        );
    }

    #[test]
    fn a_request_that_failed_is_made_again() {
        let latency = CpuLatency { device: "/nowhere/device".into(), request: Mutex::default() };
        assert!(latency.request(Some(0)).is_err());
        assert!(latency.request(Some(0)).is_err());
        assert!(latency.request(None).is_ok());
    }
}
