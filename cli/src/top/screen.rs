//! Draws the state into a frame of any size. Pure; keeps no state.

use ratatui::{
    Frame,
    layout::Rect,
    style::{Color, Modifier, Style},
    text::{Line, Span},
    widgets::{Block, Clear, Paragraph},
};

use super::{
    column::Column,
    keys::Mode,
    layout::{HEADER_LINES, has_footer, visible_rows},
    model::{Row, Totals},
    state::{Connection, State},
    text,
};
use crate::output::compact_bytes;

/// The maximum width of name, source and port.
const MAX_WIDTH: usize = 64;
/// The width down to which the port is cut before other columns are.
const NARROW_PORT: usize = 6;

const HELP: &[(&str, &str)] = &[
    ("q, Esc, Ctrl-C", "quit"),
    ("arrows, PgUp, PgDn, Home, End", "scroll"),
    ("s or >, <", "sort by the next, previous column"),
    ("r", "reverse the order"),
    ("/", "filter; Enter keeps it, Esc clears it"),
    ("p, space", "pause, resume"),
    ("Ctrl-L, Ctrl-Z", "redraw, suspend"),
    ("", ""),
    ("RX, TX", "from the client, to the client"),
    ("QUEUE", "frames queued for the client"),
    ("INST", "the client and its secondaries"),
];

/// Whether colours are used.
#[derive(Clone, Copy, Debug)]
pub(super) struct Theme {
    pub(super) colour: bool,
}

impl Theme {
    fn fg(self, colour: Color) -> Style {
        if self.colour { Style::new().fg(colour) } else { Style::new() }
    }
}

/// Draws everything.
pub(super) fn draw(frame: &mut Frame<'_>, state: &State, theme: Theme) {
    let area = frame.area();
    let rows = state.rows();
    line(frame, 0, title(state, area.width));
    line(frame, 1, totals(&state.snapshot().totals, area.width));
    line(frame, 2, status(state, rows.len(), area.width, theme));
    table(frame, state, &rows, theme);
    if has_footer(area.height) {
        line(frame, area.height - 1, footer(state, rows.len(), area));
    }
    if state.mode == Mode::Help {
        help(frame);
    }
}

fn line(frame: &mut Frame<'_>, y: u16, line: Line<'_>) {
    let area = frame.area();
    let rect = Rect::new(area.x, area.y.saturating_add(y), area.width, 1).intersection(area);
    frame.render_widget(line, rect);
}

/// Aligns two texts to both ends of a line; the left one is truncated if needed.
fn justified(left: String, right: &str, width: u16) -> (String, String) {
    let width = usize::from(width);
    let right = text::truncate_end(right, width);
    let room = width.saturating_sub(text::width(&right));
    let mut left = text::truncate_end(&left, room.saturating_sub(usize::from(!right.is_empty())));
    left.push_str(&" ".repeat(room.saturating_sub(text::width(&left))));
    (left, right)
}

fn title(state: &State, width: u16) -> Line<'static> {
    let broker = &state.snapshot().totals.broker;
    let described = [broker.name.as_deref().unwrap_or_default(), &broker.author, &broker.version];
    let described: Vec<&str> = described.into_iter().filter(|part| !part.is_empty()).collect();
    let left = format!("elbus top  {}  {}", sanitize(&state.address), described.join(" "));
    let up = broker.uptime.map(|seconds| format!("up {}", text::uptime(seconds))).unwrap_or_default();
    let (left, right) = justified(left, &up, width);
    Line::from(left + &right).style(Modifier::BOLD)
}

fn totals(totals: &Totals, width: u16) -> Line<'static> {
    let frames = if width >= 92 { "frames/s" } else { "f/s" };
    let direction = |name: &str, rates: Option<(f64, f64)>| match rates {
        Some((per_second, bytes)) => {
            format!("{name} {} {frames} {}B/s", text::rate(per_second), compact_bytes(bytes))
        }
        None => format!("{name} - {frames} -B/s"),
    };
    let mut items = vec![
        format!("clients {}", totals.clients),
        format!("queued {}", text::count(totals.queued)),
        direction("in", totals.rates.map(|rates| (rates.r_frames, rates.r_bytes))),
        direction("out", totals.rates.map(|rates| (rates.w_frames, rates.w_bytes))),
    ];
    items.extend(totals.broker.refused_frames.map(|refused| format!("refused {}", text::count(refused))));
    // whole items only: a truncated number is wrong
    let mut shown = String::new();
    for item in items {
        let gap = if shown.is_empty() { "" } else { "  " };
        if text::width(&shown) + gap.len() + text::width(&item) > usize::from(width) {
            break;
        }
        shown = shown + gap + &item;
    }
    Line::from(shown)
}

fn status(state: &State, shown: usize, width: u16, theme: Theme) -> Line<'static> {
    let alarm = theme.fg(Color::Red).add_modifier(Modifier::BOLD);
    let all = state.snapshot().rows.len();
    let (left, style) = match &state.connection {
        _ if state.mode == Mode::Filter => {
            (format!("filter: {}_  ({shown} of {all})", state.filter), Style::new())
        }
        Connection::Lost { reason, retry: None } => (format!("connection lost: {}", sanitize(reason)), alarm),
        Connection::Lost { reason, retry: Some((attempt, after)) } => {
            let after = text::seconds(*after);
            (format!("reconnecting in {after}, attempt {attempt}: {}", sanitize(reason)), alarm)
        }
        Connection::Failing(reason) => (sanitize(reason), alarm),
        Connection::Waiting => ("waiting for the broker's reply".to_owned(), Style::new()),
        Connection::Up if !state.filter.is_empty() => {
            (format!("filter: {}  ({shown} of {all})", sanitize(&state.filter)), Style::new())
        }
        Connection::Up => (String::new(), Style::new()),
    };
    let arrow = if state.is_descending() { '▼' } else { '▲' };
    let sort = format!("sort {} {arrow}", state.sort.title());
    let badge = if state.is_paused() { " PAUSED " } else { "" };
    let gap = if badge.is_empty() { "" } else { " " };
    let (left, right) = justified(left, &format!("{badge}{gap}{sort}"), width);
    let (badge, rest) = match right.strip_prefix(badge) {
        Some(rest) => (badge.to_owned(), rest.to_owned()),
        None => (String::new(), right),
    };
    Line::from(vec![
        Span::styled(left, style),
        Span::styled(badge, theme.fg(Color::Yellow).add_modifier(Modifier::REVERSED | Modifier::BOLD)),
        Span::raw(rest),
    ])
}

/// Escapes text from outside and limits its length.
fn sanitize(reason: &str) -> String {
    text::sanitize(reason, 512)
}

fn footer(state: &State, count: usize, area: Rect) -> Line<'static> {
    let page = visible_rows(area.height);
    let first = state.scroll.min(count.saturating_sub(page));
    let last = (first + page).min(count);
    let range = if count == 0 { "no clients".to_owned() } else { format!("{}-{last} of {count}", first + 1) };
    let keys = match state.mode {
        Mode::Filter => "Enter keep  Esc clear",
        Mode::Help => "any key closes the help",
        Mode::Table => "q quit  / filter  s sort  r reverse  p pause  ? help",
    };
    let (left, right) = justified(keys.to_owned(), &range, area.width);
    Line::from(left + &right).style(Modifier::DIM)
}

/// Returns the widths of the columns. One blank separates two columns.
fn widths(columns: &[Column], rows: &[&Row], terminal: u16) -> Vec<usize> {
    let wanted = |column: &Column| {
        column.fixed_width().unwrap_or_else(|| {
            let widest = rows.iter().map(|row| text::width(&column.cell(row))).max().unwrap_or(0);
            widest.max(column.title().len()).min(MAX_WIDTH)
        })
    };
    let mut widths: Vec<usize> = columns.iter().map(wanted).collect();
    let room = usize::from(terminal).saturating_sub(columns.len() - 1);
    let flexible = |index: &usize| columns[*index].fixed_width().is_none();
    while widths.iter().sum::<usize>() > room {
        // cut the port first, then the widest column; of equal ones the source
        let port = columns.iter().position(|c| *c == Column::Port).filter(|i| widths[*i] > NARROW_PORT);
        let widest = (0..widths.len()).filter(flexible).max_by_key(|index| widths[*index]);
        match port.or(widest) {
            Some(index) if widths[index] > 0 => widths[index] -= 1,
            _ => break,
        }
    }
    widths[0] += room.saturating_sub(widths.iter().sum());
    widths
}

fn table(frame: &mut Frame<'_>, state: &State, rows: &[&Row], theme: Theme) {
    let area = frame.area();
    let columns: Vec<Column> = Column::visible(area.width).collect();
    let widths = widths(&columns, rows, area.width);
    let mut heads = Vec::new();
    for (column, width) in columns.iter().zip(&widths) {
        let style = Style::new().add_modifier(Modifier::REVERSED);
        let chosen = style.add_modifier(Modifier::BOLD | Modifier::UNDERLINED);
        heads.push(Span::styled(
            aligned(*column, column.title(), *width),
            if *column == state.sort { chosen } else { style },
        ));
        heads.push(Span::styled(" ", style));
    }
    heads.pop();
    line(frame, HEADER_LINES - 1, Line::from(heads));

    let page = visible_rows(area.height);
    let first = state.scroll.min(rows.len().saturating_sub(page));
    let old = matches!(state.connection, Connection::Lost { .. });
    for (y, row) in (HEADER_LINES..).zip(rows.iter().skip(first).take(page)) {
        let mut cells = Vec::new();
        for (column, width) in columns.iter().zip(&widths) {
            let style = match column {
                _ if old => Style::new().add_modifier(Modifier::DIM),
                Column::Queue if row.queue > 0 => theme.fg(Color::Yellow).add_modifier(Modifier::BOLD),
                Column::Name => theme.fg(Color::Cyan),
                _ => Style::new(),
            };
            cells.push(Span::styled(aligned(*column, &column.cell(row), *width), style));
            cells.push(Span::raw(" "));
        }
        line(frame, y, Line::from(cells));
    }
}

/// Returns the text aligned in exactly `width` columns of the terminal.
fn aligned(column: Column, content: &str, width: usize) -> String {
    let keeps_end = matches!(column, Column::Port | Column::Source);
    let kept =
        if keeps_end { text::truncate_start(content, width) } else { text::truncate_end(content, width) };
    let gap = " ".repeat(width.saturating_sub(text::width(&kept)));
    if column.is_number() { gap + &kept } else { kept + &gap }
}

fn help(frame: &mut Frame<'_>) {
    let area = frame.area();
    let keys = HELP.iter().map(|(key, _)| key.len()).max().unwrap_or(0);
    let lines: Vec<Line<'_>> =
        HELP.iter().map(|(key, what)| Line::from(format!(" {key:keys$}  {what} "))).collect();
    let width = lines.iter().map(Line::width).max().unwrap_or(0) as u16 + 2;
    let (width, height) = (width.min(area.width), (HELP.len() as u16 + 2).min(area.height));
    let rect = Rect::new((area.width - width) / 2, (area.height - height) / 2, width, height);
    frame.render_widget(Clear, rect);
    frame.render_widget(Paragraph::new(lines).block(Block::bordered().title(" help ")), rect);
}

#[cfg(test)]
mod tests;
