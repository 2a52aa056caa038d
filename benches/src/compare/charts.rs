//! The results as pictures: for each figure a file with a panel for each load, and in it a bar for each broker with a line from
//! the least to the most of all rounds.

use plotters::prelude::*;
use std::path::Path;

use super::{
    broker::Contestant,
    metrics::{Metric, Sample, Spread, spread},
    workloads::Load,
};
use crate::Failure;

/// A picture.
pub(super) struct Figure {
    pub(super) file: &'static str,
    pub(super) title: &'static str,
    metric: Metric,
    /// The figure that loads must be about; those about others have other pictures.
    about: &'static [Metric],
}

pub(super) const FIGURES: [Figure; 5] = [
    Figure {
        file: "throughput.svg",
        title: "Messages a second; more is better",
        metric: Metric::Messages,
        about: &[Metric::Messages],
    },
    Figure {
        file: "bytes.svg",
        title: "Bytes a second, large payloads; more is better",
        metric: Metric::Bytes,
        about: &[Metric::Bytes],
    },
    Figure {
        file: "cpu.svg",
        title: "CPU time of the broker for each message; less is better",
        metric: Metric::BrokerCpu,
        about: &[Metric::Messages, Metric::P50],
    },
    Figure {
        file: "latency-p50.svg",
        title: "Round trip, median; less is better",
        metric: Metric::P50,
        about: &[Metric::P50],
    },
    Figure {
        file: "latency-p99.svg",
        title: "Round trip, 99th percentile; less is better",
        metric: Metric::P99,
        about: &[Metric::P50],
    },
];

const WIDTH: i32 = 900;
const TITLE: i32 = 40;
const PANEL_TITLE: i32 = 28;
const BAR: i32 = 22;
const GAP: i32 = 14;
/// Where bars begin, and the longest they get.
const LEFT: i32 = 150;
const LENGTH: i32 = 560;
const OURS_COLOUR: RGBColor = RGBColor(0x1f, 0x6f, 0xb4);
const LIMIT_COLOUR: RGBColor = RGBColor(0x9a, 0x9a, 0x9a);
const OTHER_COLOUR: RGBColor = RGBColor(0xd0, 0x8b, 0x3a);

type Panel<'a> = (&'a Load, Vec<(&'static str, Spread)>);

fn panels<'a>(
    figure: &Figure,
    loads: &'a [Load],
    contestants: &[Contestant],
    samples: &[Sample],
) -> Vec<Panel<'a>> {
    let bars = |load: &Load| {
        let name = |contestant: &Contestant| {
            spread(samples, load.name, contestant.name(), figure.metric).map(|s| (contestant.name(), s))
        };
        contestants.iter().filter_map(name).collect::<Vec<_>>()
    };
    let about = loads.iter().filter(|load| figure.about.contains(&load.metric));
    about.map(|load| (load, bars(load))).filter(|(_, bars)| !bars.is_empty()).collect()
}

/// Whether there is anything to draw.
pub(super) fn has(figure: &Figure, loads: &[Load], contestants: &[Contestant], samples: &[Sample]) -> bool {
    !panels(figure, loads, contestants, samples).is_empty()
}

pub(super) fn write(
    folder: &Path,
    loads: &[Load],
    contestants: &[Contestant],
    samples: &[Sample],
) -> Result<(), Failure> {
    for figure in &FIGURES {
        let panels = panels(figure, loads, contestants, samples);
        if !panels.is_empty() {
            draw(&folder.join(figure.file), figure, &panels).map_err(|e| format!("{}: {e}", figure.file))?;
        }
    }
    Ok(())
}

fn draw(path: &Path, figure: &Figure, panels: &[Panel<'_>]) -> Result<(), Failure> {
    let height = |bars: &[_]| PANEL_TITLE + BAR * bars.len() as i32 + GAP;
    let all: i32 = panels.iter().map(|(_, bars)| height(bars)).sum();
    let area = SVGBackend::new(path, (WIDTH as u32, (TITLE + all) as u32)).into_drawing_area();
    let failed = |error: DrawingAreaErrorKind<_>| Failure::from(format!("{error}"));
    area.fill(&WHITE).map_err(failed)?;
    let text = |words: String, place: (i32, i32), size: i32| {
        area.draw(&Text::new(words, place, ("sans-serif", size).into_font().color(&BLACK))).map_err(failed)
    };
    text(figure.title.to_owned(), (10, 10), 20)?;
    let mut top = TITLE;
    for (load, bars) in panels {
        text(format!("{}: {}", load.name, load.title), (10, top + 6), 15)?;
        let longest = bars.iter().map(|(_, spread)| spread.max).fold(f64::MIN_POSITIVE, f64::max);
        let reach = |value: f64| LEFT + (value / longest * f64::from(LENGTH)) as i32;
        for (index, (name, spread)) in bars.iter().enumerate() {
            let y = top + PANEL_TITLE + BAR * index as i32;
            let colour = match *name {
                "relay" => LIMIT_COLOUR,
                name if name.starts_with("elbus") => OURS_COLOUR,
                _ => OTHER_COLOUR,
            };
            text((*name).to_owned(), (24, y + 2), 13)?;
            let corners = [(LEFT, y), (reach(spread.median).max(LEFT + 1), y + BAR - 5)];
            area.draw(&Rectangle::new(corners, colour.filled())).map_err(failed)?;
            let (middle, ends) = (y + (BAR - 5) / 2, [reach(spread.min), reach(spread.max)]);
            let line = ends.map(|x| (x, middle)).to_vec();
            area.draw(&PathElement::new(line, BLACK.stroke_width(1))).map_err(failed)?;
            for x in ends {
                let tick = vec![(x, middle - 3), (x, middle + 3)];
                area.draw(&PathElement::new(tick, BLACK.stroke_width(1))).map_err(failed)?;
            }
            text(figure.metric.format(spread.median), (reach(spread.max) + 8, y + 2), 13)?;
        }
        top += height(bars);
    }
    area.present().map_err(failed)
}
