//! What a key means. Pure: a key and the mode in, an action out.

use crossterm::event::{KeyCode, KeyEvent, KeyEventKind, KeyModifiers};

/// What keys act upon.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Mode {
    /// The table.
    #[default]
    Table,
    /// The line in which the filter is typed.
    Filter,
    /// The help above everything.
    Help,
}

/// What to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Action {
    Quit,
    /// Stop as any program does at Ctrl-Z.
    Suspend,
    /// Draw everything anew.
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
    /// Begin to type a filter.
    Filter,
    Type(char),
    Erase,
    EraseAll,
    KeepFilter,
    ClearFilter,
    Help,
    CloseHelp,
}

/// What this key does in this mode.
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
        _ => moving(code),
    }
}

fn in_filter(code: KeyCode) -> Option<Action> {
    match code {
        KeyCode::Char(c) if !c.is_control() => Some(Action::Type(c)),
        KeyCode::Backspace => Some(Action::Erase),
        KeyCode::Enter => Some(Action::KeepFilter),
        KeyCode::Esc => Some(Action::ClearFilter),
        _ => moving(code),
    }
}

fn moving(code: KeyCode) -> Option<Action> {
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
    fn ctrl_c_quits_whatever_is_open() {
        for mode in [Mode::Table, Mode::Filter, Mode::Help] {
            assert_eq!(control('c', mode), Some(Action::Quit));
        }
    }

    #[test]
    fn letters_are_commands_in_the_table_and_letters_in_the_filter() {
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
    fn escape_leaves_what_is_open_and_else_the_program() {
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
