//! The keys of rings of shared memory. Owns their defaults and limits.

use elbus_plugin_api::{Config, PluginError, config::check_range};
use elbus_stream::RingLimits;
use serde::Deserialize;
use std::ops::RangeInclusive;

/// A client with rings needs a mapping and three file descriptors while it connects, two afterwards.
const MAX_RINGS: RangeInclusive<usize> = 1..=16_384;
/// Sizes between which a size must be a power of two.
const RING_BYTES: RangeInclusive<u32> = 64 * 1024..=16 * 1024 * 1024;

#[derive(Deserialize)]
#[serde(default)]
struct Keys {
    rings: bool,
    ring_bytes: u32,
    max_rings: usize,
}

impl Default for Keys {
    fn default() -> Self {
        Keys { rings: false, ring_bytes: 512 * 1024, max_rings: 256 }
    }
}

/// Returns what clients get that ask for rings; `None` if `rings` is off.
pub(crate) fn read(config: &Config) -> Result<Option<RingLimits>, PluginError> {
    let Keys { rings, ring_bytes, max_rings } = config.read()?;
    check_range("ring_bytes", ring_bytes, RING_BYTES)?;
    if !ring_bytes.is_power_of_two() {
        let (below, above) = (1u32 << ring_bytes.ilog2(), 2u32 << ring_bytes.ilog2());
        let message = format!("{ring_bytes} is not a power of two; the next ones are {below} and {above}");
        return Err(PluginError::of_key("ring_bytes", message));
    }
    check_range("max_rings", max_rings, MAX_RINGS)?;
    Ok(rings.then_some(RingLimits { ring_bytes, max_rings }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read_text(text: &str) -> Result<Option<RingLimits>, String> {
        read(&Config::parse(text).unwrap()).map_err(|error| error.to_string())
    }

    #[test]
    fn rings_are_off_by_default() {
        assert_eq!(read_text("path = 'x'"), Ok(None));
        assert_eq!(read_text("ring_bytes = 65536"), Ok(None));
        let limits = RingLimits { ring_bytes: 524_288, max_rings: 256 };
        assert_eq!(read_text("rings = true"), Ok(Some(limits)));
        let limits = RingLimits { ring_bytes: 1 << 24, max_rings: 1 };
        assert_eq!(read_text("rings = true\nring_bytes = 16777216\nmax_rings = 1"), Ok(Some(limits)));
    }

    #[test]
    fn errors_name_key_value_and_limit() {
        for (text, message) in [
            ("ring_bytes = 32768", "ring_bytes: 32768 is not between 65536 and 16777216"),
            (
                "ring_bytes = 500000",
                "ring_bytes: 500000 is not a power of two; the next ones are 262144 and 524288",
            ),
            ("max_rings = 0", "max_rings: 0 is not between 1 and 16384"),
        ] {
            assert_eq!(read_text(text), Err(message.to_owned()));
        }
    }
}
