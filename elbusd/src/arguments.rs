//! The command line of `elbusd`.

use clap::{ArgAction, CommandFactory, Parser, ValueEnum};
use std::{path::PathBuf, time::Duration};

/// The address of `--web` without one.
pub(crate) const DEFAULT_WEB: &str = "127.0.0.1:7780";

/// The ELBUS message broker
///
/// Without --config and --bind it listens on a UNIX socket: $XDG_RUNTIME_DIR/elbus.sock, else
/// /run/elbus.sock for root, else /tmp/elbus.sock.
#[derive(Debug, Parser)]
#[command(version, about)]
#[command(
    after_help = "Exit codes: 0 stopped normally, 1 an error or a second signal, 2 invalid usage, 3 not stopped within \
                  shutdown_seconds."
)]
pub(crate) struct Arguments {
    /// The configuration file, broker.toml
    #[arg(short, long, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,

    /// Report all errors of the configuration and its libraries, then exit; binds and creates nothing
    #[arg(long)]
    pub(crate) check: bool,

    /// Also listen on ADDR: a UNIX socket (unix:PATH, or a path that starts with / or ends in .sock, .socket
    /// or .ipc), host:port, ws://host:port/path for WebSocket, or fifo:PATH; a path can be followed by
    /// permissions, as in fifo:/run/commands?mode=0620&group=plant (mode, group, and for sockets owner), and
    /// ws:// by keys of the plugin, as in ws://127.0.0.1:8080/bus?tokens_file=/etc/elbus/tokens; can be
    /// repeated
    #[arg(short = 'B', long, value_name = "ADDR", value_parser = clap::builder::NonEmptyStringValueParser::new())]
    pub(crate) bind: Vec<String>,

    /// Also serve a web page that shows the broker at work, at ADDR (host:port) or at 127.0.0.1:7780; keys of
    /// the plugin can follow, as in 127.0.0.1:7780?tokens_file=/etc/elbus/tokens; needs the library elbus_web
    #[arg(
        long,
        value_name = "ADDR",
        num_args = 0..=1,
        default_missing_value = DEFAULT_WEB,
        value_parser = clap::builder::NonEmptyStringValueParser::new()
    )]
    pub(crate) web: Option<String>,

    /// Also search this folder for plugin libraries; can be repeated
    #[arg(long, value_name = "DIR")]
    pub(crate) plugin_dir: Vec<PathBuf>,

    /// The source of the plugins for --bind and for the default socket
    #[arg(long, value_enum, default_value_t = Plugins::Auto)]
    pub(crate) plugins: Plugins,

    /// Threads of each transport for --bind and for the default socket
    #[arg(short, long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1024), conflicts_with = "config")]
    pub(crate) workers: Option<u16>,

    /// Time limit for each step of the handshake and for the rest of a frame; a client must ping within 1.25
    /// times this time
    #[arg(short, long, value_name = "SECONDS", value_parser = seconds, conflicts_with = "config")]
    pub(crate) timeout: Option<Duration>,

    /// Queue limit of each client in bytes; senders are held while a receiver's queue is full
    #[arg(long, value_name = "BYTES", value_parser = clap::value_parser!(u64).range(1024..=i64::MAX as u64), conflicts_with = "config")]
    pub(crate) queue_bytes: Option<u64>,

    /// Queue limit of each client in frames of 1 KiB
    #[arg(long, value_name = "FRAMES", value_parser = clap::value_parser!(u64).range(1..=1 << 40), conflicts_with_all = ["config", "queue_bytes"])]
    pub(crate) queue_size: Option<u64>,

    /// Let a client that registers a name in use evict the previous owner, instead of being refused
    #[arg(long)]
    pub(crate) force_register: bool,

    /// Write the process id to this file, and remove it on exit
    #[arg(short = 'P', long, value_name = "FILE")]
    pub(crate) pid_file: Option<PathBuf>,

    /// Log level (off, error, warn, info, debug or trace), or a filter such as info,elbus_unix=debug
    /// [default: $RUST_LOG, else info]
    #[arg(long, value_name = "FILTER")]
    pub(crate) log: Option<String>,

    /// Print the man page or the completion script for a shell, then exit
    #[arg(long, value_enum, value_name = "WHAT")]
    pub(crate) generate: Option<Document>,

    /// Make a token for WebSocket clients and exit: print the line for tokens_file to standard output, and
    /// the token, which is stored nowhere, to standard error
    #[arg(long, value_name = "NAME")]
    pub(crate) make_token: Option<String>,

    /// Do not print the banner
    #[arg(short, long, action = ArgAction::SetTrue)]
    pub(crate) quiet: bool,
}

/// A document generated from the definition of the command line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Document {
    /// The man page
    Man,
    /// Completions for bash
    Bash,
    /// Completions for zsh
    Zsh,
    /// Completions for fish
    Fish,
}

impl Document {
    /// Generates the text.
    ///
    /// # Errors
    /// It cannot be rendered.
    pub(crate) fn text(self) -> std::io::Result<Vec<u8>> {
        let (mut command, mut text) = (Arguments::command(), Vec::new());
        let shell = match self {
            Document::Man => return clap_mangen::Man::new(command).render(&mut text).map(|()| text),
            Document::Bash => clap_complete::Shell::Bash,
            Document::Zsh => clap_complete::Shell::Zsh,
            Document::Fish => clap_complete::Shell::Fish,
        };
        clap_complete::generate(shell, &mut command, "elbusd", &mut text);
        Ok(text)
    }
}

/// The source of standard plugins.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Plugins {
    /// The library if it exists, else the plugin that is linked in
    Auto,
    /// The library
    Library,
    /// The plugin that is linked in
    Builtin,
}

impl Arguments {
    /// Returns the queue limit in bytes, if the command line sets one.
    pub(crate) fn queue_limit(&self) -> Option<u64> {
        self.queue_bytes.or(self.queue_size.map(|frames| frames * 1024))
    }
}

fn seconds(text: &str) -> Result<Duration, String> {
    let seconds: f64 = text.parse().map_err(|_| "expected a number of seconds".to_owned())?;
    if !(0.1..=86_400.0).contains(&seconds) {
        return Err("must be between 0.1 and 86400 seconds".to_owned());
    }
    Ok(Duration::from_secs_f64(seconds))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_definition_is_consistent() {
        Arguments::command().debug_assert();
    }

    #[test]
    fn documents_name_every_option() {
        for (document, sign) in [
            (Document::Man, ".TH elbusd 1"),
            (Document::Bash, "complete -F _elbusd"),
            (Document::Zsh, "#compdef elbusd"),
            (Document::Fish, "complete -c elbusd"),
        ] {
            let text = String::from_utf8(document.text().unwrap()).unwrap();
            // a man page escapes hyphens
            let text = text.replace("\\-", "-");
            for word in [sign, "config", "pid-file", "generate"] {
                assert!(text.contains(word), "{document:?} lacks {word}");
            }
        }
    }

    /// Quoted arguments in these commands contain no blanks.
    #[test]
    fn commands_in_the_documents_parse() {
        let mut count = 0;
        for document in ["README.md", "docs/install.md", "docs/upgrading.md", "compat/README.md"] {
            let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(document);
            let text = std::fs::read_to_string(path).unwrap();
            let indented = text.lines().filter_map(|line| line.strip_prefix("    "));
            let quoted = text.split('`').skip(1).step_by(2);
            for command in indented.chain(quoted).filter(|text| text.starts_with("elbusd ")) {
                count += 1;
                let words = command.split(' ').filter(|word| !word.is_empty());
                let words = words.take_while(|word| !["#", "&", "|", ">"].contains(word));
                let parsed = Arguments::try_parse_from(words.map(|word| word.trim_matches('\'')));
                assert!(parsed.is_ok(), "{document}: {command}: {:?}", parsed.err());
            }
        }
        assert!(count > 5, "found {count} commands only");
    }

    #[test]
    fn the_page_has_a_default_address() {
        let parse = |args: &[&str]| Arguments::try_parse_from([&["elbusd"], args].concat()).map(|it| it.web);
        assert_eq!(parse(&[]).unwrap(), None);
        assert_eq!(parse(&["--web"]).unwrap().as_deref(), Some(DEFAULT_WEB));
        assert_eq!(parse(&["--web", "[::1]:80", "--quiet"]).unwrap().as_deref(), Some("[::1]:80"));
        assert!(parse(&["--web", ""]).is_err());
    }

    #[test]
    fn queue_limits_are_in_bytes_or_frames() {
        let parse = |args: &[&str]| Arguments::try_parse_from([&["elbusd"], args].concat());
        assert_eq!(parse(&[]).unwrap().queue_limit(), None);
        assert_eq!(parse(&["--queue-size", "8192"]).unwrap().queue_limit(), Some(8 << 20));
        assert_eq!(parse(&["--queue-bytes", "5000"]).unwrap().queue_limit(), Some(5000));
        assert!(parse(&["--queue-bytes", "5000", "--queue-size", "5"]).is_err());
        assert!(parse(&["--config", "x", "--workers", "2"]).is_err(), "--workers would have no effect");
        assert!(parse(&["--timeout", "0"]).is_err());
        assert!(parse(&["--timeout", "nan"]).is_err());
    }
}
