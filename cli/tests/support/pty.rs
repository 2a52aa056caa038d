//! Runs `elbus` in a pseudoterminal whose screen a terminal emulator keeps. Waits for text on it, never for a
//! fixed time.

use portable_pty::{Child, CommandBuilder, MasterPty, PtySize, native_pty_system};
use rustix::process::{Pid, Signal, kill_process};
use std::{
    io::{Read, Write},
    num::NonZeroU16,
    sync::{Arc, Condvar, Mutex, MutexGuard},
    thread,
    time::{Duration, Instant},
};
use vt100::{Parser, Screen};

/// The time after which a test gives up waiting.
const PATIENCE: Duration = Duration::from_secs(30);
/// The text on the screen before the program starts.
const PROMPT: &str = "$ elbus top";

/// A terminal and the program in it. The program is killed when this is dropped.
pub(crate) struct Pty {
    master: Box<dyn MasterPty + Send>,
    writer: Box<dyn Write + Send>,
    child: Box<dyn Child + Send + Sync>,
    shown: Arc<Shown>,
    modes_before: String,
}

struct Shown {
    state: Mutex<Emulator>,
    changed: Condvar,
}

struct Emulator {
    parser: Parser,
    /// No process has the terminal open any more, and everything written to it has been read.
    ended: bool,
    bytes: Vec<u8>,
}

fn size(columns: u16, lines: u16) -> PtySize {
    PtySize { rows: lines, cols: columns, ..PtySize::default() }
}

fn nonzero(value: u16) -> NonZeroU16 {
    NonZeroU16::new(value).unwrap()
}

impl Pty {
    /// Runs `elbus` with these arguments in a terminal of this size.
    pub(crate) fn elbus(columns: u16, lines: u16, arguments: &[&str]) -> Self {
        let pair = native_pty_system().openpty(size(columns, lines)).unwrap();
        let modes_before = format!("{:?}", pair.master.get_termios().unwrap());
        let mut parser = Parser::new(nonzero(lines), nonzero(columns), 0);
        parser.process(PROMPT.as_bytes());
        let shown = Arc::new(Shown {
            state: Mutex::new(Emulator { parser, ended: false, bytes: Vec::new() }),
            changed: Condvar::new(),
        });

        let mut command = CommandBuilder::new(env!("CARGO_BIN_EXE_elbus"));
        command.args(arguments);
        command.env("TERM", "xterm-256color");
        for unwanted in ["NO_COLOR", "ELBUS_ADDR", "ELBUS_NAME"] {
            command.env_remove(unwanted);
        }
        let mut reader = pair.master.try_clone_reader().unwrap();
        let writer = pair.master.take_writer().unwrap();
        let child = pair.slave.spawn_command(command).unwrap();
        // the program must be the last to close it
        drop(pair.slave);

        let reading = shown.clone();
        thread::spawn(move || {
            let mut buffer = [0; 4096];
            loop {
                // at the end, a pty returns an error
                let read = reader.read(&mut buffer).unwrap_or(0);
                let mut state = reading.state.lock().unwrap();
                state.ended |= read == 0;
                state.parser.process(&buffer[..read]);
                state.bytes.extend(&buffer[..read]);
                reading.changed.notify_all();
                if read == 0 {
                    return;
                }
            }
        });
        Pty { master: pair.master, writer, child, shown, modes_before }
    }

    /// Waits until `wanted` accepts the screen, and returns its lines.
    pub(crate) fn wait(&self, what: &str, wanted: impl Fn(&[String]) -> bool) -> Vec<String> {
        let lines = |emulator: &Emulator| lines(emulator.parser.screen());
        let state = self.wait_state(what, |emulator| wanted(&lines(emulator)));
        lines(&state)
    }

    /// Waits until this text is on the screen.
    pub(crate) fn wait_text(&self, text: &str) -> Vec<String> {
        self.wait(text, |lines| lines.iter().any(|line| line.contains(text)))
    }

    fn wait_state(&self, what: &str, wanted: impl Fn(&Emulator) -> bool) -> MutexGuard<'_, Emulator> {
        let until = Instant::now() + PATIENCE;
        let mut state = self.shown.state.lock().unwrap();
        while !wanted(&state) {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                let contents = state.parser.screen().contents();
                // a poisoned lock would make the reading thread panic as well
                drop(state);
                panic!("waited for {what}, and there is\n{contents}");
            }
            state = self.shown.changed.wait_timeout(state, left).unwrap().0;
        }
        state
    }

    /// Returns the lines on the screen.
    pub(crate) fn lines(&self) -> Vec<String> {
        lines(self.shown.state.lock().unwrap().parser.screen())
    }

    /// Returns everything written to the terminal so far.
    pub(crate) fn bytes(&self) -> Vec<u8> {
        self.shown.state.lock().unwrap().bytes.clone()
    }

    pub(crate) fn press(&mut self, keys: &str) {
        self.writer.write_all(keys.as_bytes()).unwrap();
        self.writer.flush().unwrap();
    }

    pub(crate) fn resize(&mut self, columns: u16, lines: u16) {
        self.shown.state.lock().unwrap().parser.set_size(nonzero(lines), nonzero(columns));
        self.master.resize(size(columns, lines)).unwrap();
    }

    pub(crate) fn signal(&self, signal: Signal) {
        let pid = i32::try_from(self.child.process_id().unwrap()).unwrap();
        kill_process(Pid::from_raw(pid).unwrap(), signal).unwrap();
    }

    /// Waits for the exit, and returns the code and the text after the prompt. Checks that the terminal is
    /// restored.
    pub(crate) fn finish(mut self) -> (u32, String) {
        let state = self.wait_state("the end", |emulator| emulator.ended);
        let screen = state.parser.screen();
        assert!(!screen.alternate_screen(), "the alternate screen is left");
        assert!(!screen.hide_cursor(), "the cursor is visible");
        assert!(!screen.bracketed_paste() && !screen.inverse() && !screen.bold(), "no mode is left");
        let contents = screen.contents();
        drop(state);
        let left = contents.strip_prefix(PROMPT).map(str::to_owned);
        let left = left.unwrap_or_else(|| panic!("the prompt is gone: {contents}"));
        assert_eq!(format!("{:?}", self.master.get_termios().unwrap()), self.modes_before);
        let status = self.child.wait().unwrap();
        assert_eq!(status.signal(), None);
        (status.exit_code(), left)
    }
}

impl Drop for Pty {
    fn drop(&mut self) {
        // fails if it has already exited
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn lines(screen: &Screen) -> Vec<String> {
    let (_, columns) = screen.size();
    screen.rows(0, columns.get()).map(|line| line.trim_end().to_owned()).collect()
}
