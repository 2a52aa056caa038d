//! The state of the screen and how keys change it: order, filter, pause, scroll position. Pure; draws
//! nothing.

use std::time::Duration;

use super::{
    column::Column,
    keys::{Action, Mode},
    layout::visible_rows,
    model::{Row, Snapshot},
};

/// The maximum length of a filter, in characters.
const FILTER_CHARACTERS: usize = 128;

/// The state of the connection.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) enum Connection {
    /// Connected; the first poll is not answered yet.
    #[default]
    Waiting,
    /// The last poll was answered.
    Up,
    /// Connected, but the last poll failed.
    Failing(String),
    /// Lost; the rows shown are old.
    Lost { reason: String, retry: Option<(u32, Duration)> },
}

/// What the loop does after an action, besides drawing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Effect {
    None,
    Quit,
    Suspend,
    /// Draw everything, not only changes.
    Redraw,
}

/// The state of the screen.
#[derive(Debug)]
pub(super) struct State {
    /// The broker's address.
    pub(super) address: String,
    pub(super) connection: Connection,
    pub(super) sort: Column,
    /// Reverses the default order, which is descending for numbers and ascending for text.
    pub(super) reversed: bool,
    pub(super) filter: String,
    pub(super) mode: Mode,
    /// Number of rows above the first one shown. Each action limits it, so that the last page is full.
    pub(super) scroll: usize,
    /// The terminal's columns and lines.
    pub(super) size: (u16, u16),
    current: Snapshot,
    /// The snapshot shown while paused.
    frozen: Option<Snapshot>,
}

impl State {
    pub(super) fn new(address: String, sort: Column, filter: String) -> Self {
        Self {
            address,
            connection: Connection::default(),
            sort,
            reversed: false,
            filter,
            mode: Mode::default(),
            scroll: 0,
            size: (0, 0),
            current: Snapshot::default(),
            frozen: None,
        }
    }

    /// Shows the answer to a poll.
    pub(super) fn show(&mut self, snapshot: Snapshot) {
        self.connection = Connection::Up;
        self.current = snapshot;
    }

    pub(super) fn is_paused(&self) -> bool {
        self.frozen.is_some()
    }

    /// Returns the snapshot shown: the newest, or while paused that of the pause.
    pub(super) fn snapshot(&self) -> &Snapshot {
        self.frozen.as_ref().unwrap_or(&self.current)
    }

    /// Returns the rows that match the filter, sorted. Equal rows are sorted by name, so that they keep their
    /// order.
    pub(super) fn rows(&self) -> Vec<&Row> {
        let wanted = self.filter.to_lowercase();
        let passes = |text: &String| text.to_lowercase().contains(&wanted);
        let mut rows: Vec<&Row> = self.snapshot().rows.iter().collect();
        if !wanted.is_empty() {
            rows.retain(|row| [&row.name, &row.kind, &row.source, &row.port].into_iter().any(passes));
        }
        let descending = self.is_descending();
        rows.sort_by(|a, b| {
            let order = self.sort.compare(a, b);
            let order = if descending { order.reverse() } else { order };
            order.then_with(|| a.name.cmp(&b.name))
        });
        rows
    }

    pub(super) fn is_descending(&self) -> bool {
        self.sort.is_number() != self.reversed
    }

    /// Applies an action.
    pub(super) fn apply(&mut self, action: Action) -> Effect {
        let page = visible_rows(self.size.1);
        let last = self.rows().len().saturating_sub(page);
        self.scroll = self.scroll.min(last);
        match action {
            Action::Quit => return Effect::Quit,
            Action::Suspend => return Effect::Suspend,
            Action::Redraw => return Effect::Redraw,
            Action::Up => self.scroll = self.scroll.saturating_sub(1),
            Action::Down => self.scroll = (self.scroll + 1).min(last),
            Action::PageUp => self.scroll = self.scroll.saturating_sub(page.max(1)),
            Action::PageDown => self.scroll = (self.scroll + page.max(1)).min(last),
            Action::Home => self.scroll = 0,
            Action::End => self.scroll = last,
            Action::NextColumn => self.sort_by_neighbour(true),
            Action::PreviousColumn => self.sort_by_neighbour(false),
            Action::Reverse => {
                self.reversed = !self.reversed;
                self.scroll = 0;
            }
            Action::Pause => {
                self.frozen = if self.is_paused() { None } else { Some(self.current.clone()) };
            }
            Action::Filter => self.mode = Mode::Filter,
            Action::Type(c) => {
                if self.filter.chars().count() < FILTER_CHARACTERS {
                    self.filter.push(c);
                }
                self.scroll = 0;
            }
            Action::Erase => {
                self.filter.pop();
                self.scroll = 0;
            }
            Action::EraseAll => {
                self.filter.clear();
                self.scroll = 0;
            }
            Action::KeepFilter => self.mode = Mode::Table,
            Action::ClearFilter => {
                self.filter.clear();
                self.scroll = 0;
                self.mode = Mode::Table;
            }
            Action::Help => self.mode = Mode::Help,
            Action::CloseHelp => self.mode = Mode::Table,
        }
        Effect::None
    }

    /// Sorts by the next or previous visible column. From a hidden one, it moves to the first or last visible
    /// one.
    fn sort_by_neighbour(&mut self, next: bool) {
        let visible: Vec<Column> = Column::visible(self.size.0).collect();
        let count = visible.len();
        let index = match (visible.iter().position(|column| *column == self.sort), next) {
            (Some(index), true) => (index + 1) % count,
            (Some(index), false) => (index + count - 1) % count,
            (None, true) => 0,
            (None, false) => count - 1,
        };
        self.sort = visible[index];
        self.reversed = false;
        self.scroll = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::top::model::Totals;

    fn state(names: &[(&str, u64)]) -> State {
        let row = |(name, queue): &(&str, u64)| Row { name: (*name).into(), queue: *queue, ..Row::default() };
        let mut state = State::new("here".into(), Column::Queue, String::new());
        state.size = (80, 15);
        state.show(Snapshot { rows: names.iter().map(row).collect(), totals: Totals::default() });
        state
    }

    fn names(state: &State) -> Vec<&str> {
        state.rows().into_iter().map(|row| row.name.as_str()).collect()
    }

    #[test]
    fn numbers_are_sorted_descending_and_text_ascending_unless_reversed() {
        let mut state = state(&[("c", 1), ("a", 9), ("b", 1)]);
        assert_eq!(names(&state), ["a", "b", "c"], "by queue, then by name");
        state.apply(Action::Reverse);
        assert_eq!(names(&state), ["b", "c", "a"]);
        state.sort = Column::Name;
        assert_eq!(names(&state), ["c", "b", "a"]);
        state.apply(Action::Reverse);
        assert_eq!(names(&state), ["a", "b", "c"]);
    }

    #[test]
    fn the_filter_applies_while_it_is_typed() {
        let mut state = state(&[("plant.Sensor", 0), ("plant.display", 0), ("console", 0)]);
        state.apply(Action::Filter);
        for c in "SENS".chars() {
            state.apply(Action::Type(c));
        }
        assert_eq!((names(&state), state.mode), (vec!["plant.Sensor"], Mode::Filter));
        for _ in 0..4 {
            state.apply(Action::Erase);
        }
        state.apply(Action::Erase);
        assert_eq!(names(&state).len(), 3);
        state.apply(Action::Type('o'));
        state.apply(Action::KeepFilter);
        assert_eq!((state.filter.as_str(), state.mode), ("o", Mode::Table));
        state.apply(Action::Filter);
        state.apply(Action::ClearFilter);
        assert_eq!((state.filter.as_str(), state.mode), ("", Mode::Table));
    }

    #[test]
    fn the_length_of_a_filter_is_limited() {
        let mut state = state(&[]);
        for _ in 0..10 * FILTER_CHARACTERS {
            state.apply(Action::Type('x'));
        }
        assert_eq!(state.filter.len(), FILTER_CHARACTERS);
    }

    #[test]
    fn a_pause_freezes_the_rows_until_it_ends() {
        let mut state = state(&[("old", 0)]);
        state.apply(Action::Pause);
        state.show(Snapshot { rows: Vec::new(), totals: Totals::default() });
        assert_eq!(names(&state), ["old"]);
        state.apply(Action::Pause);
        assert!(names(&state).is_empty() && !state.is_paused());
    }

    #[test]
    fn scrolling_stops_at_both_ends() {
        let many: Vec<(String, u64)> = (0..25).map(|n| (format!("c{n:02}"), 0)).collect();
        let many: Vec<(&str, u64)> = many.iter().map(|(name, queue)| (name.as_str(), *queue)).collect();
        let mut state = state(&many);
        assert_eq!(visible_rows(15), 10);
        for (action, expected) in [
            (Action::Up, 0),
            (Action::Down, 1),
            (Action::PageDown, 11),
            (Action::PageDown, 15),
            (Action::Down, 15),
            (Action::PageUp, 5),
            (Action::End, 15),
            (Action::Home, 0),
        ] {
            assert_eq!(state.apply(action), Effect::None);
            assert_eq!(state.scroll, expected, "{action:?}");
        }
        state.apply(Action::End);
        state.size = (80, 30);
        state.apply(Action::Up);
        assert_eq!(state.scroll, 0, "all rows fit");
    }

    #[test]
    fn only_visible_columns_are_selected() {
        let mut state = state(&[]);
        state.size = (40, 10);
        let mut chosen = Vec::new();
        for _ in 0..5 {
            state.apply(Action::NextColumn);
            chosen.push(state.sort);
        }
        assert_eq!(chosen, [Column::Name, Column::Rx, Column::Tx, Column::Bytes, Column::Queue]);
        state.apply(Action::PreviousColumn);
        assert_eq!(state.sort, Column::Bytes);
        state.sort = Column::Total;
        state.apply(Action::PreviousColumn);
        assert_eq!(state.sort, Column::Queue, "from a hidden column");
        state.size = (0, 0);
        state.apply(Action::NextColumn);
        assert_eq!(state.sort, Column::Name);
    }
}
