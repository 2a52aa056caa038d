//! Formats tables of aligned columns.

use unicode_width::{UnicodeWidthChar, UnicodeWidthStr};

use super::{Palette, Style, escape};

/// The maximum width of a cell. A name can have 65,535 bytes.
const MAX_WIDTH: usize = 120;
/// Blanks between columns.
const GAP: usize = 2;

/// The alignment of a column.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Align {
    Left,
    Right,
}

/// The title and alignment of a column.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Column {
    pub(crate) title: &'static str,
    pub(crate) align: Align,
}

/// Rows under a heading.
pub(crate) struct Table {
    columns: Vec<Column>,
    rows: Vec<Vec<String>>,
}

impl Table {
    pub(crate) fn new(columns: Vec<Column>) -> Self {
        Table { columns, rows: Vec::new() }
    }

    /// Adds a row. Cells are escaped, and truncated if they are too wide.
    pub(crate) fn row<'a>(&mut self, cells: impl IntoIterator<Item = &'a str>) {
        self.rows.push(cells.into_iter().map(|cell| truncate(&escape(cell))).collect());
    }

    /// Returns the lines, heading first, without trailing blanks.
    pub(crate) fn lines(&self, palette: Palette) -> Vec<String> {
        let widths: Vec<usize> = self
            .columns
            .iter()
            .enumerate()
            .map(|(at, column)| {
                let cells = self.rows.iter().filter_map(|row| row.get(at)).map(|cell| cell.width());
                cells.max().unwrap_or(0).max(column.title.width())
            })
            .collect();
        let line = |cells: &mut dyn Iterator<Item = &str>| {
            let mut text = String::new();
            for ((cell, column), width) in cells.zip(&self.columns).zip(&widths) {
                let blanks = " ".repeat(width.saturating_sub(cell.width()));
                match column.align {
                    Align::Left => text.extend([cell, &blanks]),
                    Align::Right => text.extend([&blanks, cell]),
                }
                text.push_str(&" ".repeat(GAP));
            }
            text.truncate(text.trim_end().len());
            text
        };
        let heading = line(&mut self.columns.iter().map(|column| column.title));
        let mut lines = vec![palette.paint(Style::Strong, &heading)];
        lines.extend(self.rows.iter().map(|row| line(&mut row.iter().map(String::as_str))));
        lines
    }
}

fn truncate(text: &str) -> String {
    if text.width() <= MAX_WIDTH {
        return text.to_owned();
    }
    let mut width = 0;
    let fits = |c: &char| {
        width += c.width().unwrap_or(0);
        width < MAX_WIDTH
    };
    let mut cut: String = text.chars().take_while(fits).collect();
    cut.push('…');
    cut
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table() -> Table {
        Table::new(vec![
            Column { title: "NAME", align: Align::Left },
            Column { title: "N", align: Align::Right },
        ])
    }

    #[test]
    fn columns_are_aligned() {
        let mut table = table();
        table.row(["a", "1"]);
        table.row(["漢字.x", "1000"]);
        table.row(["\x1b[2J", ""]);
        assert_eq!(
            table.lines(Palette::PLAIN),
            ["NAME        N", "a           1", "漢字.x   1000", "\\x1b[2J"]
        );
    }

    #[test]
    fn wide_cells_are_truncated() {
        let mut table = table();
        table.row([&*"x".repeat(65_000), "1"]);
        let lines = table.lines(Palette::PLAIN);
        assert_eq!(lines[1].width(), MAX_WIDTH + GAP + 1);
        assert!(lines[1].ends_with("x…  1"));
    }
}
