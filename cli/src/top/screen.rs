//! Draws the state into a frame of any size. Pure: asks nobody, keeps nothing.

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
    model::{Row, Totals},
    state::{Connection, State},
    text,
};

/// Lines above the rows: title, totals, status, heads of the columns.
const HEAD: u16 = 4;
/// From this height on the last line tells the keys.
const FOOT_FROM: u16 = 6;
/// What name, source and port may ask for, and what they are never cut below while others have more.
const WIDEST: usize = 64;
const NARROW_PORT: usize = 6;

const HELP: &[(&str, &str)] = &[
    ("q, Esc, Ctrl-C", "quit"),
    ("arrows, PgUp, PgDn, Home, End", "scroll"),
    ("s or >, <", "sort by the next, previous column"),
    ("r", "reverse the order"),
    ("/", "filter; Enter keeps it, Esc clears it"),
    ("p, space", "pause, go on"),
    ("Ctrl-L, Ctrl-Z", "draw anew, suspend"),
    ("", ""),
    ("RX, TX", "from the client, to the client"),
    ("QUEUE", "frames that wait for the client"),
    ("INST", "the client and its secondaries"),
];

/// How many rows fit.
pub(super) fn page(height: u16) -> usize {
    usize::from(height.saturating_sub(HEAD + u16::from(height >= FOOT_FROM)))
}

/// Styles, of which colours may be left out.
#[derive(Clone, Copy, Debug)]
pub(super) struct Look {
    pub(super) colour: bool,
}

impl Look {
    fn fg(self, colour: Color) -> Style {
        if self.colour { Style::new().fg(colour) } else { Style::new() }
    }
}

/// Draws everything.
pub(super) fn draw(frame: &mut Frame<'_>, state: &State, look: Look) {
    let area = frame.area();
    let rows = state.rows();
    line(frame, 0, title(state, area.width));
    line(frame, 1, totals(&state.snapshot().totals, area.width));
    line(frame, 2, status(state, rows.len(), area.width, look));
    table(frame, state, &rows, look);
    if area.height >= FOOT_FROM {
        line(frame, area.height - 1, foot(state, rows.len(), area));
    }
    if state.mode == Mode::Help {
        help(frame);
    }
}

fn line(frame: &mut Frame<'_>, y: u16, line: Line<'_>) {
    let area = frame.area();
    let place = Rect::new(area.x, area.y.saturating_add(y), area.width, 1).intersection(area);
    frame.render_widget(line, place);
}

/// Two texts at both ends of a line; the left one is cut.
fn ends(left: String, right: &str, width: u16) -> (String, String) {
    let width = usize::from(width);
    let right = text::keep_start(right, width);
    let room = width.saturating_sub(text::width(&right));
    let mut left = text::keep_start(&left, room.saturating_sub(usize::from(!right.is_empty())));
    left.push_str(&" ".repeat(room.saturating_sub(text::width(&left))));
    (left, right)
}

fn title(state: &State, width: u16) -> Line<'static> {
    let broker = &state.snapshot().totals.broker;
    let described = [broker.name.as_deref().unwrap_or_default(), &broker.author, &broker.version];
    let described: Vec<&str> = described.into_iter().filter(|part| !part.is_empty()).collect();
    let left = format!("elbus top  {}  {}", clean(&state.address), described.join(" "));
    let up = broker.uptime.map(|seconds| format!("up {}", text::uptime(seconds))).unwrap_or_default();
    let (left, right) = ends(left, &up, width);
    Line::from(left + &right).style(Modifier::BOLD)
}

fn totals(totals: &Totals, width: u16) -> Line<'static> {
    let frames = if width >= 92 { "frames/s" } else { "f/s" };
    let way = |name: &str, of: Option<(f64, f64)>| match of {
        Some((per_second, bytes)) => {
            format!("{name} {} {frames} {}B/s", text::rate(per_second), text::rate(bytes))
        }
        None => format!("{name} - {frames} -B/s"),
    };
    let mut items = vec![
        format!("clients {}", totals.clients),
        format!("queued {}", text::count(totals.queued)),
        way("in", totals.rates.map(|rates| (rates.r_frames, rates.r_bytes))),
        way("out", totals.rates.map(|rates| (rates.w_frames, rates.w_bytes))),
    ];
    items.extend(totals.broker.refused_frames.map(|refused| format!("refused {}", text::count(refused))));
    // whole items only: half a number is a wrong one
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

fn status(state: &State, passed: usize, width: u16, look: Look) -> Line<'static> {
    let alarm = look.fg(Color::Red).add_modifier(Modifier::BOLD);
    let of = state.snapshot().rows.len();
    let (left, style) = match &state.connection {
        _ if state.mode == Mode::Filter => {
            (format!("filter: {}_  ({passed} of {of})", state.filter), Style::new())
        }
        Connection::Lost { reason, retry: None } => (format!("connection lost: {}", clean(reason)), alarm),
        Connection::Lost { reason, retry: Some((attempt, after)) } => {
            let after = text::seconds(*after);
            (format!("reconnecting in {after}, attempt {attempt}: {}", clean(reason)), alarm)
        }
        Connection::Failing(reason) => (clean(reason), alarm),
        Connection::Waiting => ("waiting for the broker's answer".to_owned(), Style::new()),
        Connection::Up if !state.filter.is_empty() => {
            (format!("filter: {}  ({passed} of {of})", clean(&state.filter)), Style::new())
        }
        Connection::Up => (String::new(), Style::new()),
    };
    let arrow = if state.is_descending() { '▼' } else { '▲' };
    let sort = format!("sort {} {arrow}", state.sort.title());
    let badge = if state.is_paused() { " PAUSED " } else { "" };
    let gap = if badge.is_empty() { "" } else { " " };
    let (left, right) = ends(left, &format!("{badge}{gap}{sort}"), width);
    let (badge, rest) = match right.strip_prefix(badge) {
        Some(rest) => (badge.to_owned(), rest.to_owned()),
        None => (String::new(), right),
    };
    Line::from(vec![
        Span::styled(left, style),
        Span::styled(badge, look.fg(Color::Yellow).add_modifier(Modifier::REVERSED | Modifier::BOLD)),
        Span::raw(rest),
    ])
}

/// Names that come with reasons are as harmless as names in rows.
fn clean(reason: &str) -> String {
    text::clean(reason, 512)
}

fn foot(state: &State, count: usize, area: Rect) -> Line<'static> {
    let first = state.scroll.min(count.saturating_sub(page(area.height)));
    let last = (first + page(area.height)).min(count);
    let range = if count == 0 { "no clients".to_owned() } else { format!("{}-{last} of {count}", first + 1) };
    let keys = match state.mode {
        Mode::Filter => "Enter keep  Esc clear",
        Mode::Help => "any key closes the help",
        Mode::Table => "q quit  / filter  s sort  r reverse  p pause  ? help",
    };
    let (left, right) = ends(keys.to_owned(), &range, area.width);
    Line::from(left + &right).style(Modifier::DIM)
}

/// The widths of the columns, with one free column of the terminal between them.
fn widths(columns: &[Column], rows: &[&Row], terminal: u16) -> Vec<usize> {
    let asked = |column: &Column| {
        column.fixed_width().unwrap_or_else(|| {
            let widest = rows.iter().map(|row| text::width(&column.cell(row))).max().unwrap_or(0);
            widest.max(column.title().len()).min(WIDEST)
        })
    };
    let mut widths: Vec<usize> = columns.iter().map(asked).collect();
    let room = usize::from(terminal).saturating_sub(columns.len() - 1);
    let flexible = |index: &usize| columns[*index].fixed_width().is_none();
    while widths.iter().sum::<usize>() > room {
        // the port is missed least, then whichever is widest, of equal ones the source
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

fn table(frame: &mut Frame<'_>, state: &State, rows: &[&Row], look: Look) {
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
    line(frame, HEAD - 1, Line::from(heads));

    let page = page(area.height);
    let first = state.scroll.min(rows.len().saturating_sub(page));
    let old = matches!(state.connection, Connection::Lost { .. });
    for (y, row) in (HEAD..).zip(rows.iter().skip(first).take(page)) {
        let mut cells = Vec::new();
        for (column, width) in columns.iter().zip(&widths) {
            let style = match column {
                _ if old => Style::new().add_modifier(Modifier::DIM),
                Column::Queue if row.queue > 0 => look.fg(Color::Yellow).add_modifier(Modifier::BOLD),
                Column::Name => look.fg(Color::Cyan),
                _ => Style::new(),
            };
            cells.push(Span::styled(aligned(*column, &column.cell(row), *width), style));
            cells.push(Span::raw(" "));
        }
        line(frame, y, Line::from(cells));
    }
}

/// The text in exactly so many columns of the terminal.
fn aligned(column: Column, content: &str, width: usize) -> String {
    let ends_matter = matches!(column, Column::Port | Column::Source);
    let kept = if ends_matter { text::keep_end(content, width) } else { text::keep_start(content, width) };
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
    let place = Rect::new((area.width - width) / 2, (area.height - height) / 2, width, height);
    frame.render_widget(Clear, place);
    frame.render_widget(Paragraph::new(lines).block(Block::bordered().title(" help ")), place);
}

#[cfg(test)]
mod tests;
