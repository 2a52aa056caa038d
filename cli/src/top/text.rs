//! Text that is safe and fits: names made harmless, cut to a width, numbers in a few characters. Knows nothing of
//! screens.

use std::time::Duration;
use unicode_width::{UnicodeWidthChar, UnicodeWidthStr};

use crate::output::escape;

/// Stands for what was cut away.
const CUT: char = '…';

/// The beginning of the text, at most `limit` characters of it, as it may be shown.
pub(super) fn clean(text: &str, limit: usize) -> String {
    let end = text.char_indices().nth(limit).map_or(text.len(), |(index, _)| index);
    escape(&text[..end]).into_owned()
}

/// How many columns of a terminal it takes.
pub(super) fn width(text: &str) -> usize {
    text.width()
}

/// The beginning of the text, at most `columns` wide, with an ellipsis if something is missing.
pub(super) fn keep_start(text: &str, columns: usize) -> String {
    if width(text) <= columns {
        return text.to_owned();
    }
    let Some(room) = columns.checked_sub(1) else { return String::new() };
    let mut kept: String = text.chars().scan(0, |taken, c| fits(taken, c, room)).collect();
    kept.push(CUT);
    kept
}

/// The end of the text, likewise: of a path or an address it says more.
pub(super) fn keep_end(text: &str, columns: usize) -> String {
    if width(text) <= columns {
        return text.to_owned();
    }
    let Some(room) = columns.checked_sub(1) else { return String::new() };
    let kept: Vec<char> = text.chars().rev().scan(0, |taken, c| fits(taken, c, room)).collect();
    std::iter::once(CUT).chain(kept.into_iter().rev()).collect()
}

fn fits(taken: &mut usize, c: char, room: usize) -> Option<char> {
    *taken += c.width().unwrap_or(0);
    (*taken <= room).then_some(c)
}

/// A rate in at most 5 characters: `0`, `2.5`, `9999`, `12.3k`, `1.0M`.
pub(super) fn rate(value: f64) -> String {
    match value {
        v if !v.is_finite() || v < 0.05 => "0".to_owned(),
        v if v < 9.95 => format!("{v:.1}"),
        v if v < 9999.5 => format!("{v:.0}"),
        v => scaled(v),
    }
}

/// A count in at most 5 characters.
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

/// `3d 04:05:06`, without the days below one.
pub(super) fn uptime(seconds: u64) -> String {
    let (days, hours, minutes) = (seconds / 86_400, seconds / 3600 % 24, seconds / 60 % 60);
    let clock = format!("{hours:02}:{minutes:02}:{:02}", seconds % 60);
    if days == 0 { clock } else { format!("{days}d {clock}") }
}

/// `0.3 s`, `12 s`.
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
    fn nothing_harmful_reaches_the_terminal() {
        assert_eq!(clean("a\x1b[31mb\r\n\u{9b}c", 99), "a\\x1b[31mb\\r\\n\\u{9b}c");
        assert_eq!(clean("safe\u{202e}gpj.exe", 99), "safe\\u{202e}gpj.exe");
        assert_eq!(clean("日本語 – é", 99), "日本語 – é");
        assert_eq!(clean("日本語", 2), "日本");
    }

    #[test]
    fn long_text_is_cut_at_either_end() {
        assert_eq!(keep_start("plant.display", 13), "plant.display");
        assert_eq!(keep_start("plant.display", 12), "plant.displ…");
        assert_eq!(keep_end("/run/user/elbus.sock", 12), "…/elbus.sock");
        for (columns, start, end) in [(0, "", ""), (1, "…", "…"), (2, "p…", "…y")] {
            assert_eq!(keep_start("plant.display", columns), start);
            assert_eq!(keep_end("plant.display", columns), end);
        }
    }

    #[test]
    fn wide_characters_count_twice() {
        assert_eq!(keep_start("日本語", 6), "日本語");
        assert_eq!(keep_start("日本語", 5), "日本…");
        assert_eq!(keep_start("日本語", 4), "日…", "half a character is none");
        assert_eq!(keep_end("日本語", 4), "…語");
        for columns in 0..8 {
            assert!(width(&keep_start("a日b本c語", columns)) <= columns);
            assert!(width(&keep_end("a日b本c語", columns)) <= columns);
        }
    }

    #[test]
    fn numbers_take_five_characters() {
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
    fn times_are_read_at_a_glance() {
        assert_eq!(uptime(59), "00:00:59");
        assert_eq!(uptime(3 * 86_400 + 4 * 3600 + 5 * 60 + 6), "3d 04:05:06");
        assert_eq!(seconds(Duration::from_millis(300)), "0.3 s");
        assert_eq!(seconds(Duration::from_secs(12)), "12 s");
    }
}
