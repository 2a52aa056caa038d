//! How the lines of the terminal are divided into header, rows and footer.

/// Lines above the rows: title, totals, status, column titles.
pub(super) const HEADER_LINES: u16 = 4;
/// The height from which the last line is the footer.
const FOOTER_MIN_HEIGHT: u16 = 6;

/// Returns whether a terminal of this height has a footer.
pub(super) fn has_footer(height: u16) -> bool {
    height >= FOOTER_MIN_HEIGHT
}

/// Returns how many rows fit.
pub(super) fn visible_rows(height: u16) -> usize {
    usize::from(height.saturating_sub(HEADER_LINES + u16::from(has_footer(height))))
}
