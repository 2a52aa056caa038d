//! The results as charts: a file per figure with a panel per workload, in which each broker has a bar and a
//! line from the minimum to the maximum of all rounds.

use plotters::prelude::*;
use std::path::Path;

use super::{
    broker::{Broker, RELAY},
    metrics::{Metric, Sample, Spread, spread},
    workloads::Workload,
};
use crate::BoxError;

pub(super) struct Chart {
    pub(super) file: &'static str,
    pub(super) title: &'static str,
    metric: Metric,
    /// The chart shows the workloads whose main figure is one of these, either the real ones or the others.
    workload_metrics: &'static [Metric],
    real: bool,
}

const CHARTS: [Chart; 7] = [
    Chart {
        file: "throughput.svg",
        title: "Messages per second; more is better",
        metric: Metric::Messages,
        workload_metrics: &[Metric::Messages],
        real: false,
    },
    Chart {
        file: "throughput-real.svg",
        title: "Messages per second, topics or targets in turn; more is better",
        metric: Metric::Messages,
        workload_metrics: &[Metric::Messages],
        real: true,
    },
    Chart {
        file: "bytes.svg",
        title: "Bytes per second, large payloads; more is better",
        metric: Metric::Bytes,
        workload_metrics: &[Metric::Bytes],
        real: false,
    },
    Chart {
        file: "cpu.svg",
        title: "CPU time of the broker per message; less is better",
        metric: Metric::BrokerCpu,
        workload_metrics: &[Metric::Messages, Metric::P50],
        real: false,
    },
    Chart {
        file: "cpu-real.svg",
        title: "CPU time of the broker per message, topics or targets in turn; less is better",
        metric: Metric::BrokerCpu,
        workload_metrics: &[Metric::Messages],
        real: true,
    },
    Chart {
        file: "latency-p50.svg",
        title: "Round trip, median; less is better",
        metric: Metric::P50,
        workload_metrics: &[Metric::P50],
        real: false,
    },
    Chart {
        file: "latency-p99.svg",
        title: "Round trip, 99th percentile; less is better",
        metric: Metric::P99,
        workload_metrics: &[Metric::P50],
        real: false,
    },
];

const WIDTH: i32 = 900;
const TITLE_HEIGHT: i32 = 40;
const PANEL_TITLE_HEIGHT: i32 = 28;
const BAR_HEIGHT: i32 = 22;
const PANEL_GAP: i32 = 14;
/// The left end of all bars, and the length of the longest.
const BAR_LEFT: i32 = 150;
const BAR_LENGTH: i32 = 560;
const ELBUS_COLOUR: RGBColor = RGBColor(0x1f, 0x6f, 0xb4);
const RELAY_COLOUR: RGBColor = RGBColor(0x9a, 0x9a, 0x9a);
const OTHER_COLOUR: RGBColor = RGBColor(0xd0, 0x8b, 0x3a);

/// A workload, and the figure of each broker that was measured with it.
type Panel<'a> = (&'a Workload, Vec<(&'static str, Spread)>);

impl Chart {
    fn panels<'a>(
        &self,
        workloads: &'a [Workload],
        brokers: &[Broker],
        samples: &[Sample],
    ) -> Vec<Panel<'a>> {
        let bars = |workload: &Workload| {
            let bar = |broker: &Broker| {
                let spread = spread(samples, workload.name, broker.name(), self.metric)?;
                Some((broker.name(), spread))
            };
            brokers.iter().filter_map(bar).collect::<Vec<_>>()
        };
        let shown = workloads.iter().filter(|workload| {
            workload.real == self.real && self.workload_metrics.contains(&workload.metric)
        });
        shown.map(|workload| (workload, bars(workload))).filter(|(_, bars)| !bars.is_empty()).collect()
    }
}

/// The charts for which there are figures.
pub(super) fn drawn(
    workloads: &[Workload],
    brokers: &[Broker],
    samples: &[Sample],
) -> impl Iterator<Item = &'static Chart> {
    CHARTS.iter().filter(|chart| !chart.panels(workloads, brokers, samples).is_empty())
}

/// Writes a file for each chart for which there are figures.
pub(super) fn write(
    folder: &Path,
    workloads: &[Workload],
    brokers: &[Broker],
    samples: &[Sample],
) -> Result<(), BoxError> {
    for chart in drawn(workloads, brokers, samples) {
        let panels = chart.panels(workloads, brokers, samples);
        draw(&folder.join(chart.file), chart, &panels).map_err(|error| format!("{}: {error}", chart.file))?;
    }
    Ok(())
}

fn draw(path: &Path, chart: &Chart, panels: &[Panel<'_>]) -> Result<(), BoxError> {
    let height = |bars: &[_]| PANEL_TITLE_HEIGHT + BAR_HEIGHT * bars.len() as i32 + PANEL_GAP;
    let total: i32 = panels.iter().map(|(_, bars)| height(bars)).sum();
    let area = SVGBackend::new(path, (WIDTH as u32, (TITLE_HEIGHT + total) as u32)).into_drawing_area();
    let failed = |error: DrawingAreaErrorKind<_>| BoxError::from(format!("{error}"));
    area.fill(&WHITE).map_err(failed)?;
    let draw_text = |text: String, position: (i32, i32), size: i32| {
        let style = ("sans-serif", size).into_font().color(&BLACK);
        area.draw(&Text::new(text, position, style)).map_err(failed)
    };
    draw_text(chart.title.to_owned(), (10, 10), 20)?;
    let mut top = TITLE_HEIGHT;
    for (workload, bars) in panels {
        draw_text(format!("{}: {}", workload.name, workload.title), (10, top + 6), 15)?;
        let max = bars.iter().map(|(_, spread)| spread.max).fold(f64::MIN_POSITIVE, f64::max);
        let x_of = |value: f64| BAR_LEFT + (value / max * f64::from(BAR_LENGTH)) as i32;
        for (index, (name, spread)) in bars.iter().enumerate() {
            let y = top + PANEL_TITLE_HEIGHT + BAR_HEIGHT * index as i32;
            let colour = match *name {
                RELAY => RELAY_COLOUR,
                name if name.starts_with("elbus") => ELBUS_COLOUR,
                _ => OTHER_COLOUR,
            };
            draw_text((*name).to_owned(), (24, y + 2), 13)?;
            let corners = [(BAR_LEFT, y), (x_of(spread.median).max(BAR_LEFT + 1), y + BAR_HEIGHT - 5)];
            area.draw(&Rectangle::new(corners, colour.filled())).map_err(failed)?;
            let (middle, ends) = (y + (BAR_HEIGHT - 5) / 2, [x_of(spread.min), x_of(spread.max)]);
            let line = ends.map(|x| (x, middle)).to_vec();
            area.draw(&PathElement::new(line, BLACK.stroke_width(1))).map_err(failed)?;
            for x in ends {
                let tick = vec![(x, middle - 3), (x, middle + 3)];
                area.draw(&PathElement::new(tick, BLACK.stroke_width(1))).map_err(failed)?;
            }
            draw_text(chart.metric.format(spread.median), (x_of(spread.max) + 8, y + 2), 13)?;
        }
        top += height(bars);
    }
    area.present().map_err(failed)
}
