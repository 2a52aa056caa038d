//! Formats byte counts and durations with units. Bytes are counted by 1024 everywhere.

/// Formats bytes as `812 B`, `1.5 KiB`, `2.0 GiB`.
pub(crate) fn human_bytes(bytes: u64) -> String {
    const UNITS: [&str; 6] = ["KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
    if bytes < 1024 {
        return format!("{bytes} B");
    }
    let mut size = bytes as f64 / 1024.0;
    let mut unit = 0;
    // a value that rounds to 1024.0 belongs to the next unit
    while size >= 1023.95 && unit + 1 < UNITS.len() {
        size /= 1024.0;
        unit += 1;
    }
    format!("{size:.1} {}", UNITS[unit])
}

/// Formats bytes in at most 6 characters, for tables: `812`, `1.5Ki`, `123Mi`.
pub(crate) fn compact_bytes(bytes: f64) -> String {
    if !bytes.is_finite() || bytes < 0.05 {
        return "0".to_owned();
    }
    if bytes < 9.95 {
        return format!("{bytes:.1}");
    }
    let (mut size, mut unit) = (bytes, "");
    for next in ["Ki", "Mi", "Gi", "Ti", "Pi", "Ei"] {
        // a value that rounds to 1024 belongs to the next unit
        if size < 1023.5 {
            break;
        }
        size /= 1024.0;
        unit = next;
    }
    if unit.is_empty() || size >= 99.95 { format!("{size:.0}{unit}") } else { format!("{size:.1}{unit}") }
}

/// Formats seconds as `12 s`, `3 min 20 s`, `5 h 12 min`, `3 d 4 h`.
pub(crate) fn human_seconds(seconds: u64) -> String {
    let (minutes, hours, days) = (seconds / 60, seconds / 3600, seconds / 86_400);
    match seconds {
        0..60 => format!("{seconds} s"),
        60..3600 => format!("{minutes} min {} s", seconds % 60),
        3600..86_400 => format!("{hours} h {} min", minutes % 60),
        _ => format!("{days} d {} h", hours % 24),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn compact_sizes_take_at_most_six_characters() {
        for (bytes, text) in [
            (0.0, "0"),
            (2.46, "2.5"),
            (1023.0, "1023"),
            (1023.5, "1.0Ki"),
            (1536.0, "1.5Ki"),
            (102_400.0, "100Ki"),
            (1_048_000.0, "1023Ki"),
            (1e7, "9.5Mi"),
            (u64::MAX as f64, "16.0Ei"),
            (f64::NAN, "0"),
            (f64::INFINITY, "0"),
        ] {
            assert_eq!(compact_bytes(bytes), text, "{bytes}");
        }
        for power in 0..64 {
            let value = 2_f64.powi(power);
            for value in [value - 1.0, value, value * 1.7] {
                assert!(compact_bytes(value).len() <= 6, "{value}");
            }
        }
    }

    #[test]
    fn sizes_have_binary_units() {
        for (bytes, text) in [
            (0, "0 B"),
            (1023, "1023 B"),
            (1024, "1.0 KiB"),
            (1536, "1.5 KiB"),
            (1024 * 1024 - 1, "1.0 MiB"),
            (8 << 20, "8.0 MiB"),
            (u64::MAX, "16.0 EiB"),
        ] {
            assert_eq!(human_bytes(bytes), text);
        }
    }

    #[test]
    fn durations_have_two_units() {
        for (seconds, text) in
            [(0, "0 s"), (59, "59 s"), (200, "3 min 20 s"), (18_720, "5 h 12 min"), (273_600, "3 d 4 h")]
        {
            assert_eq!(human_seconds(seconds), text);
        }
    }
}
