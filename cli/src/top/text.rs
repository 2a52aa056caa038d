//! Formats text for the screen: escapes names, truncates to a width, prints numbers in a few characters.

use std::time::Duration;
use unicode_width::{UnicodeWidthChar, UnicodeWidthStr};

use crate::output::escape;

/// Replaces the part that was cut off.
const ELLIPSIS: char = '…';

/// Returns the first `limit` characters of the text, escaped for a terminal.
pub(super) fn sanitize(text: &str, limit: usize) -> String {
    let end = text.char_indices().nth(limit).map_or(text.len(), |(index, _)| index);
    escape(&text[..end]).into_owned()
}

/// Returns the number of terminal columns that the text takes.
pub(super) fn width(text: &str) -> usize {
    text.width()
}

/// Returns the text in at most `columns` columns; if it is longer, its start and an ellipsis.
pub(super) fn truncate_end(text: &str, columns: usize) -> String {
    if width(text) <= columns {
        return text.to_owned();
    }
    let Some(room) = columns.checked_sub(1) else { return String::new() };
    let mut kept: String = text.chars().scan(0, |taken, c| fits(taken, c, room)).collect();
    kept.push(ELLIPSIS);
    kept
}

/// Returns the text in at most `columns` columns; if it is longer, an ellipsis and its end, which says more
/// of a path or an address.
pub(super) fn truncate_start(text: &str, columns: usize) -> String {
    if width(text) <= columns {
        return text.to_owned();
    }
    let Some(room) = columns.checked_sub(1) else { return String::new() };
    let kept: Vec<char> = text.chars().rev().scan(0, |taken, c| fits(taken, c, room)).collect();
    std::iter::once(ELLIPSIS).chain(kept.into_iter().rev()).collect()
}

fn fits(taken: &mut usize, c: char, room: usize) -> Option<char> {
    *taken += c.width().unwrap_or(0);
    (*taken <= room).then_some(c)
}

/// Formats a rate in at most 5 characters: `0`, `2.5`, `9999`, `12.3k`, `1.0M`.
pub(super) fn rate(value: f64) -> String {
    match value {
        v if !v.is_finite() || v < 0.05 => "0".to_owned(),
        v if v < 9.95 => format!("{v:.1}"),
        v if v < 9999.5 => format!("{v:.0}"),
        v => scaled(v),
    }
}

/// Formats a count in at most 5 characters.
pub(super) fn count(value: u64) -> String {
    if value < 10_000 { value.to_string() } else { scaled(value as f64) }
}

fn scaled(mut value: f64) -> String {
    let mut unit = "";
    for next in ["k", "M", "G", "T", "P", "E"] {
        if value < 999.5 {
            break;
        }
        value /= 1000.0;
        unit = next;
    }
    if value < 99.95 { format!("{value:.1}{unit}") } else { format!("{value:.0}{unit}") }
}

/// Formats an uptime as `04:05:06` or `3d 04:05:06`.
pub(super) fn uptime(seconds: u64) -> String {
    let (days, hours, minutes) = (seconds / 86_400, seconds / 3600 % 24, seconds / 60 % 60);
    let clock = format!("{hours:02}:{minutes:02}:{:02}", seconds % 60);
    if days == 0 { clock } else { format!("{days}d {clock}") }
}

/// Formats a duration as `0.3 s` or `12 s`.
pub(super) fn seconds(duration: Duration) -> String {
    match duration.as_secs_f64() {
        s if s < 9.95 => format!("{s:.1} s"),
        s => format!("{s:.0} s"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn harmful_characters_are_escaped() {
        assert_eq!(sanitize("a\x1b[31mb\r\n\u{9b}c", 99), "a\\x1b[31mb\\r\\n\\u{9b}c");
        assert_eq!(sanitize("safe\u{202e}gpj.exe", 99), "safe\\u{202e}gpj.exe");
        assert_eq!(sanitize("日本語 – é", 99), "日本語 – é");
        assert_eq!(sanitize("日本語", 2), "日本");
    }

    #[test]
    fn long_text_is_truncated_at_either_end() {
        assert_eq!(truncate_end("plant.display", 13), "plant.display");
        assert_eq!(truncate_end("plant.display", 12), "plant.displ…");
        assert_eq!(truncate_start("/run/user/elbus.sock", 12), "…/elbus.sock");
        for (columns, start, end) in [(0, "", ""), (1, "…", "…"), (2, "p…", "…y")] {
            assert_eq!(truncate_end("plant.display", columns), start);
            assert_eq!(truncate_start("plant.display", columns), end);
        }
    }

    #[test]
    fn wide_characters_take_two_columns() {
        assert_eq!(truncate_end("日本語", 6), "日本語");
        assert_eq!(truncate_end("日本語", 5), "日本…");
        assert_eq!(truncate_end("日本語", 4), "日…", "a wide character is not split");
        assert_eq!(truncate_start("日本語", 4), "…語");
        for columns in 0..8 {
            assert!(width(&truncate_end("a日b本c語", columns)) <= columns);
            assert!(width(&truncate_start("a日b本c語", columns)) <= columns);
        }
    }

    #[test]
    fn numbers_take_at_most_five_characters() {
        for (value, expected) in [
            (0.0, "0"),
            (0.04, "0"),
            (2.46, "2.5"),
            (9.95, "10"),
            (9999.4, "9999"),
            (9999.5, "10.0k"),
            (99_949.0, "99.9k"),
            (99_950.0, "100k"),
            (999_499.0, "999k"),
            (999_500.0, "1.0M"),
            (3.4e9, "3.4G"),
            (f64::NAN, "0"),
            (f64::INFINITY, "0"),
        ] {
            assert_eq!(rate(value), expected, "{value}");
        }
        assert_eq!(count(9999), "9999");
        assert_eq!(count(12_345), "12.3k");
        assert_eq!(count(u64::MAX), "18.4E");
        for power in 0..20 {
            let value = 10_u64.pow(power);
            for value in [value - 1, value, value.saturating_mul(9)] {
                assert!(count(value).len() <= 5 && rate(value as f64).len() <= 5, "{value}");
            }
        }
    }

    #[test]
    fn uptimes_and_durations_have_units() {
        assert_eq!(uptime(59), "00:00:59");
        assert_eq!(uptime(3 * 86_400 + 4 * 3600 + 5 * 60 + 6), "3d 04:05:06");
        assert_eq!(seconds(Duration::from_millis(300)), "0.3 s");
        assert_eq!(seconds(Duration::from_secs(12)), "12 s");
    }
}
