//! Sets the terminal up for `elbus top` and restores it: on return, on errors, on a panic.

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

/// Whether the terminal is set up. A static, as there is one terminal and the panic hook must reach it.
static IN_USE: AtomicBool = AtomicBool::new(false);
static HOOK: Once = Once::new();

/// The terminal in raw mode with its alternate screen. Restored when dropped.
pub(super) struct Terminal {
    inner: ratatui::Terminal<CrosstermBackend<Stdout>>,
}

impl Terminal {
    /// Sets the terminal up, and installs a panic hook that restores it.
    pub(super) fn enter() -> io::Result<Self> {
        HOOK.call_once(|| {
            let report = panic::take_hook();
            panic::set_hook(Box::new(move |info| {
                // restore first: a report on the alternate screen would be lost
                restore();
                report(info);
            }));
        });
        let inner = ratatui::Terminal::new(CrosstermBackend::new(stdout()))?;
        let terminal = Self { inner };
        terminal.set_up()?;
        Ok(terminal)
    }

    /// Switches to raw mode and the alternate screen. If a step fails, dropping undoes the others.
    fn set_up(&self) -> io::Result<()> {
        IN_USE.store(true, Ordering::SeqCst);
        enable_raw_mode()?;
        execute!(stdout(), EnterAlternateScreen, Hide)
    }

    /// Draws a frame.
    ///
    /// # Errors
    /// The terminal fails, or a panic in another thread has restored it.
    pub(super) fn draw(&mut self, draw: impl FnOnce(&mut Frame<'_>)) -> io::Result<()> {
        if !IN_USE.load(Ordering::SeqCst) {
            return Err(io::Error::other("the terminal was restored after an internal error"));
        }
        self.inner.draw(draw).map(drop)
    }

    /// Makes the next draw repaint everything. Does not use ratatui's `clear`, which queries the cursor
    /// position and waits for the terminal's answer.
    pub(super) fn redraw_all(&mut self) -> io::Result<()> {
        let size = self.inner.size()?;
        self.inner.resize(Rect::from(size))
    }

    /// Restores the terminal while `pause` runs.
    pub(super) fn restore_while(&mut self, pause: impl FnOnce()) -> io::Result<()> {
        restore();
        pause();
        self.set_up()?;
        self.redraw_all()
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        restore();
    }
}

/// Restores the terminal, if it is set up. If a step fails, the others are tried, and nothing is reported.
fn restore() {
    if IN_USE.swap(false, Ordering::SeqCst) {
        let _ = execute!(stdout(), ResetColor, SetAttribute(Attribute::Reset), LeaveAlternateScreen, Show);
        let _ = disable_raw_mode();
    }
}

/// Restores what needs no write to the terminal, which may block writes.
pub(super) fn disable_raw_mode_only() {
    let _ = disable_raw_mode();
}
