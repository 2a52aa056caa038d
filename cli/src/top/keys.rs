//! Maps keys to actions, depending on the mode. Pure.

use crossterm::event::{KeyCode, KeyEvent, KeyEventKind, KeyModifiers};

/// The mode that keys apply to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Mode {
    /// The table.
    #[default]
    Table,
    /// The line in which the filter is typed.
    Filter,
    /// The help window.
    Help,
}

/// The action of a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Action {
    Quit,
    /// Stop the process until it is continued.
    Suspend,
    /// Draw everything again.
    Redraw,
    Up,
    Down,
    PageUp,
    PageDown,
    Home,
    End,
    NextColumn,
    PreviousColumn,
    Reverse,
    Pause,
    /// Start typing a filter.
    Filter,
    Type(char),
    Erase,
    EraseAll,
    KeepFilter,
    ClearFilter,
    Help,
    CloseHelp,
}

/// Returns the action of this key in this mode.
pub(super) fn action(key: &KeyEvent, mode: Mode) -> Option<Action> {
    if key.kind == KeyEventKind::Release {
        return None;
    }
    if key.modifiers.contains(KeyModifiers::CONTROL) {
        return match key.code {
            KeyCode::Char('c') => Some(Action::Quit),
            KeyCode::Char('z') => Some(Action::Suspend),
            KeyCode::Char('l') => Some(Action::Redraw),
            KeyCode::Char('u' | 'w') if mode == Mode::Filter => Some(Action::EraseAll),
            KeyCode::Char('h') if mode == Mode::Filter => Some(Action::Erase),
            _ => None,
        };
    }
    if key.modifiers.intersects(KeyModifiers::ALT | KeyModifiers::META | KeyModifiers::SUPER) {
        return None;
    }
    match mode {
        Mode::Table => in_table(key.code),
        Mode::Filter => in_filter(key.code),
        Mode::Help => Some(if key.code == KeyCode::Char('q') { Action::Quit } else { Action::CloseHelp }),
    }
}

fn in_table(code: KeyCode) -> Option<Action> {
    match code {
        KeyCode::Char('q') | KeyCode::Esc => Some(Action::Quit),
        KeyCode::Char('s' | '>') => Some(Action::NextColumn),
        KeyCode::Char('<') => Some(Action::PreviousColumn),
        KeyCode::Char('r') => Some(Action::Reverse),
        KeyCode::Char('p' | ' ') => Some(Action::Pause),
        KeyCode::Char('/') => Some(Action::Filter),
        KeyCode::Char('?' | 'h') | KeyCode::F(1) => Some(Action::Help),
        _ => scrolling(code),
    }
}

fn in_filter(code: KeyCode) -> Option<Action> {
    match code {
        KeyCode::Char(c) if !c.is_control() => Some(Action::Type(c)),
        KeyCode::Backspace => Some(Action::Erase),
        KeyCode::Enter => Some(Action::KeepFilter),
        KeyCode::Esc => Some(Action::ClearFilter),
        _ => scrolling(code),
    }
}

fn scrolling(code: KeyCode) -> Option<Action> {
    match code {
        KeyCode::Up => Some(Action::Up),
        KeyCode::Down => Some(Action::Down),
        KeyCode::PageUp => Some(Action::PageUp),
        KeyCode::PageDown => Some(Action::PageDown),
        KeyCode::Home => Some(Action::Home),
        KeyCode::End => Some(Action::End),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plain(code: KeyCode, mode: Mode) -> Option<Action> {
        action(&KeyEvent::new(code, KeyModifiers::NONE), mode)
    }

    fn control(letter: char, mode: Mode) -> Option<Action> {
        action(&KeyEvent::new(KeyCode::Char(letter), KeyModifiers::CONTROL), mode)
    }

    #[test]
    fn ctrl_c_quits_in_every_mode() {
        for mode in [Mode::Table, Mode::Filter, Mode::Help] {
            assert_eq!(control('c', mode), Some(Action::Quit));
        }
    }

    #[test]
    fn letters_are_commands_in_the_table_and_text_in_the_filter() {
        for (letter, expected) in [
            ('q', Action::Quit),
            ('s', Action::NextColumn),
            ('>', Action::NextColumn),
            ('<', Action::PreviousColumn),
            ('r', Action::Reverse),
            ('p', Action::Pause),
            (' ', Action::Pause),
            ('/', Action::Filter),
            ('?', Action::Help),
        ] {
            assert_eq!(plain(KeyCode::Char(letter), Mode::Table), Some(expected));
            assert_eq!(plain(KeyCode::Char(letter), Mode::Filter), Some(Action::Type(letter)));
        }
        assert_eq!(plain(KeyCode::Char('x'), Mode::Table), None);
    }

    #[test]
    fn escape_closes_help_and_filter_and_quits_from_the_table() {
        assert_eq!(plain(KeyCode::Esc, Mode::Table), Some(Action::Quit));
        assert_eq!(plain(KeyCode::Esc, Mode::Filter), Some(Action::ClearFilter));
        assert_eq!(plain(KeyCode::Esc, Mode::Help), Some(Action::CloseHelp));
    }

    #[test]
    fn the_table_scrolls_while_a_filter_is_typed() {
        for mode in [Mode::Table, Mode::Filter] {
            assert_eq!(plain(KeyCode::Down, mode), Some(Action::Down));
            assert_eq!(plain(KeyCode::PageUp, mode), Some(Action::PageUp));
        }
    }

    #[test]
    fn chords_and_releases_do_nothing() {
        let alt = KeyEvent::new(KeyCode::Char('q'), KeyModifiers::ALT);
        assert_eq!(action(&alt, Mode::Table), None);
        let mut release = KeyEvent::new(KeyCode::Char('q'), KeyModifiers::NONE);
        release.kind = KeyEventKind::Release;
        assert_eq!(action(&release, Mode::Table), None);
        assert_eq!(control('x', Mode::Filter), None);
    }
}
