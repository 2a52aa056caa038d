//! The columns of the table: their cells, their order, and the terminal width from which each is shown.

use clap::ValueEnum;
use std::cmp::Ordering;

use super::{
    model::{Rates, Row},
    text,
};
use crate::output::compact_bytes;

/// A column. The names are the values of `--sort`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Column {
    /// The client's name
    Name,
    /// Transport
    Kind,
    /// The client's address, for network transports
    Source,
    /// The broker's address that the client has connected to
    Port,
    /// Process id of a local client
    Pid,
    /// Whether a local client has rings of shared memory
    Rings,
    /// Frames per second from the client
    Rx,
    /// Frames per second to the client
    Tx,
    /// Bytes per second in both directions
    Bytes,
    /// Bytes per second from the client
    RxBytes,
    /// Bytes per second to the client
    TxBytes,
    /// Frames queued for the client
    Queue,
    /// The client and its secondaries
    Instances,
    /// Frames from the client since it registered
    RxTotal,
    /// Frames to the client since it registered
    TxTotal,
    /// Bytes in both directions since the client registered
    Total,
}

impl Column {
    /// Returns the columns that a terminal of this width shows, from left to right.
    pub(super) fn visible(terminal: u16) -> impl Iterator<Item = Self> {
        Self::value_variants().iter().copied().filter(move |column| column.min_terminal_width() <= terminal)
    }

    /// Returns the terminal width from which the column is shown.
    fn min_terminal_width(self) -> u16 {
        match self {
            Self::Name => 0,
            Self::Bytes => 22,
            Self::Rx => 28,
            Self::Tx => 34,
            Self::Queue => 40,
            Self::Kind => 56,
            Self::Source => 66,
            Self::Instances => 72,
            Self::Port => 78,
            Self::Pid => 100,
            Self::Rings => 106,
            Self::RxBytes | Self::TxBytes => 112,
            Self::RxTotal | Self::TxTotal => 132,
            Self::Total => 145,
        }
    }

    pub(super) fn title(self) -> &'static str {
        match self {
            Self::Name => "NAME",
            Self::Kind => "KIND",
            Self::Source => "SOURCE",
            Self::Port => "PORT",
            Self::Pid => "PID",
            Self::Rings => "RINGS",
            Self::Rx => "RX/S",
            Self::Tx => "TX/S",
            Self::Bytes => "BYTES/S",
            Self::RxBytes => "RX B/S",
            Self::TxBytes => "TX B/S",
            Self::Queue => "QUEUE",
            Self::Instances => "INST",
            Self::RxTotal => "RX",
            Self::TxTotal => "TX",
            Self::Total => "BYTES",
        }
    }

    /// Returns the width of the column, or `None` if its cells decide it.
    pub(super) fn fixed_width(self) -> Option<usize> {
        match self {
            Self::Name | Self::Source | Self::Port => None,
            Self::Kind => Some(9),
            Self::Pid | Self::Bytes => Some(7),
            Self::RxBytes | Self::TxBytes | Self::Total => Some(6),
            Self::Instances => Some(4),
            _ => Some(5),
        }
    }

    /// Returns whether the column holds numbers, which are aligned to the right.
    pub(super) fn is_number(self) -> bool {
        !matches!(self, Self::Name | Self::Kind | Self::Source | Self::Port | Self::Rings)
    }

    /// Returns the cell of a row.
    pub(super) fn cell(self, row: &Row) -> String {
        let format = |of: fn(&Rates) -> f64, form: fn(f64) -> String| {
            row.rates.as_ref().map_or("-".to_owned(), |rates| form(of(rates)))
        };
        let rate = |of| format(of, text::rate);
        let byte_rate = |of| format(of, compact_bytes);
        match self {
            Self::Name => row.name.clone(),
            Self::Kind => row.kind.clone(),
            Self::Source => row.source.clone(),
            Self::Port => row.port.clone(),
            Self::Pid => row.pid.map_or_else(String::new, |pid| pid.to_string()),
            Self::Rings => String::from(if row.has_rings { "yes" } else { "" }),
            Self::Rx => rate(|rates| rates.r_frames),
            Self::Tx => rate(|rates| rates.w_frames),
            Self::Bytes => byte_rate(|rates| rates.r_bytes + rates.w_bytes),
            Self::RxBytes => byte_rate(|rates| rates.r_bytes),
            Self::TxBytes => byte_rate(|rates| rates.w_bytes),
            Self::Queue => text::count(row.queue),
            Self::Instances => text::count(row.instances),
            Self::RxTotal => text::count(row.counters.r_frames),
            Self::TxTotal => text::count(row.counters.w_frames),
            Self::Total => compact_bytes(bytes(row) as f64),
        }
    }

    /// Compares two rows, smallest first. A missing value is smallest.
    pub(super) fn compare(self, a: &Row, b: &Row) -> Ordering {
        let rate = |of: fn(&Rates) -> f64| {
            let value = |row: &Row| row.rates.as_ref().map_or(-1.0, of);
            value(a).total_cmp(&value(b))
        };
        match self {
            Self::Name => a.name.cmp(&b.name),
            Self::Kind => a.kind.cmp(&b.kind),
            Self::Source => a.source.cmp(&b.source),
            Self::Port => a.port.cmp(&b.port),
            Self::Pid => a.pid.cmp(&b.pid),
            Self::Rings => a.has_rings.cmp(&b.has_rings),
            Self::Rx => rate(|rates| rates.r_frames),
            Self::Tx => rate(|rates| rates.w_frames),
            Self::Bytes => rate(|rates| rates.r_bytes + rates.w_bytes),
            Self::RxBytes => rate(|rates| rates.r_bytes),
            Self::TxBytes => rate(|rates| rates.w_bytes),
            Self::Queue => a.queue.cmp(&b.queue),
            Self::Instances => a.instances.cmp(&b.instances),
            Self::RxTotal => a.counters.r_frames.cmp(&b.counters.r_frames),
            Self::TxTotal => a.counters.w_frames.cmp(&b.counters.w_frames),
            Self::Total => bytes(a).cmp(&bytes(b)),
        }
    }
}

fn bytes(row: &Row) -> u64 {
    row.counters.r_bytes.saturating_add(row.counters.w_bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn titles(terminal: u16) -> Vec<&'static str> {
        Column::visible(terminal).map(Column::title).collect()
    }

    #[test]
    fn a_terminal_of_80_columns_shows_the_main_columns() {
        let expected = ["NAME", "KIND", "SOURCE", "PORT", "RX/S", "TX/S", "BYTES/S", "QUEUE", "INST"];
        assert_eq!(titles(80), expected);
    }

    #[test]
    fn a_wider_terminal_shows_at_least_the_same_columns() {
        assert_eq!(titles(0), ["NAME"]);
        for terminal in 0..200 {
            let (narrow, wide) = (titles(terminal), titles(terminal + 1));
            assert!(narrow.iter().all(|title| wide.contains(title)), "{terminal}");
        }
        assert_eq!(titles(200).len(), Column::value_variants().len());
    }

    #[test]
    fn fixed_columns_fit_their_titles_and_leave_room_for_the_name() {
        for column in Column::value_variants() {
            assert!(column.fixed_width().is_none_or(|width| width >= column.title().len()), "{column:?}");
        }
        for terminal in 22..200 {
            let taken: usize = Column::visible(terminal).map(|c| c.fixed_width().unwrap_or(0) + 1).sum();
            assert!(taken + 12 <= usize::from(terminal), "{terminal}: {taken}");
        }
    }
}
