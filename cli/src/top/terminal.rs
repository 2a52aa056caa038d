//! The terminal while `elbus top` has it, and how it is given back: on return, on errors, on a panic.

use crossterm::{
    cursor::{Hide, Show},
    execute,
    style::{Attribute, ResetColor, SetAttribute},
    terminal::{EnterAlternateScreen, LeaveAlternateScreen, disable_raw_mode, enable_raw_mode},
};
use ratatui::{Frame, backend::CrosstermBackend, layout::Rect};
use std::{
    io::{self, Stdout, stdout},
    panic,
    sync::{
        Once,
        atomic::{AtomicBool, Ordering},
    },
};

/// Whether the terminal is changed. There is one terminal, and a panic hook knows nothing but statics.
static TAKEN: AtomicBool = AtomicBool::new(false);
static HOOK: Once = Once::new();

/// The terminal in raw mode, showing its alternate screen. Given back when dropped.
pub(super) struct Terminal {
    inner: ratatui::Terminal<CrosstermBackend<Stdout>>,
}

impl Terminal {
    pub(super) fn take() -> io::Result<Self> {
        HOOK.call_once(|| {
            let report = panic::take_hook();
            panic::set_hook(Box::new(move |info| {
                // first, else what is reported goes to the alternate screen and is lost with it
                give_back();
                report(info);
            }));
        });
        let inner = ratatui::Terminal::new(CrosstermBackend::new(stdout()))?;
        let terminal = Self { inner };
        terminal.enter()?;
        Ok(terminal)
    }

    /// If this fails half-way, dropping gives back what was done.
    fn enter(&self) -> io::Result<()> {
        TAKEN.store(true, Ordering::SeqCst);
        enable_raw_mode()?;
        execute!(stdout(), EnterAlternateScreen, Hide)
    }

    /// Refused once the terminal was given back, which a panic in another thread does.
    pub(super) fn draw(&mut self, draw: impl FnOnce(&mut Frame<'_>)) -> io::Result<()> {
        if !TAKEN.load(Ordering::SeqCst) {
            return Err(io::Error::other("it was given back after an internal error"));
        }
        self.inner.draw(draw).map(drop)
    }

    /// The next drawing draws everything. Not by ratatui's `clear`, which asks the terminal where its cursor is and
    /// waits for the answer.
    pub(super) fn forget(&mut self) -> io::Result<()> {
        let size = self.inner.size()?;
        self.inner.resize(Rect::from(size))
    }

    /// Gives the terminal back while `pause` lasts.
    pub(super) fn lend(&mut self, pause: impl FnOnce()) -> io::Result<()> {
        give_back();
        pause();
        self.enter()?;
        self.forget()
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        give_back();
    }
}

/// Whatever fails here, the rest is tried: there is nobody left to tell.
fn give_back() {
    if TAKEN.swap(false, Ordering::SeqCst) {
        let _ = execute!(stdout(), ResetColor, SetAttribute(Attribute::Reset), LeaveAlternateScreen, Show);
        let _ = disable_raw_mode();
    }
}

/// For a terminal that takes nothing: gives back what needs no writing to it.
pub(super) fn abandon() {
    let _ = disable_raw_mode();
}
