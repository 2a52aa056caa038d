//! Formats bytes as hexadecimal digits.

use std::fmt::Write;

/// Bytes per line of a dump.
const LINE: usize = 16;

/// Returns two digits per byte, without separators.
pub(crate) fn digits(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len() * 2);
    for byte in bytes {
        _ = write!(text, "{byte:02x}");
    }
    text
}

/// Returns a hex dump: lines of offset, digits and printable ASCII characters. The last line has no line end.
pub(crate) fn dump(bytes: &[u8]) -> String {
    let mut text = String::new();
    for (index, line) in bytes.chunks(LINE).enumerate() {
        if index > 0 {
            text.push('\n');
        }
        _ = write!(text, "{:08x} ", index * LINE);
        for at in 0..LINE {
            if at % 8 == 0 {
                text.push(' ');
            }
            match line.get(at) {
                Some(byte) => _ = write!(text, "{byte:02x} "),
                None => text.push_str("   "),
            }
        }
        text.push_str(" |");
        text.extend(line.iter().map(|byte| match byte {
            b' '..=b'~' => char::from(*byte),
            _ => '.',
        }));
        text.push('|');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dump_has_offset_digits_and_characters() {
        let bytes: Vec<u8> = (0x3a..=0x4a).collect();
        assert_eq!(
            dump(&bytes),
            "00000000  3a 3b 3c 3d 3e 3f 40 41  42 43 44 45 46 47 48 49  |:;<=>?@ABCDEFGHI|\n\
             00000010  4a                                                |J|"
        );
        assert_eq!(digits(b"\0\xff"), "00ff");
        assert_eq!(dump(b""), "");
    }
}
