//! How figures grow with the number of watchers, as a picture.

mod chart;

use super::figures::Figure;
use super::stage::Stage;
use super::summary::Summary;
use super::watches::WatchWork;
use crate::error::LoadError;
use chart::{Panel, Scale, Series};

/// What is below the horizontal axes.
const WATCHERS: &str = "watchers of one key";

/// Checks that there will be something to draw.
///
/// # Errors
/// When no work is about numbers of watchers.
pub(super) fn check(stages: &[Stage]) -> Result<(), LoadError> {
    let grows =
        |stage: &Stage| matches!(stage, Stage::Watch(WatchWork::Flat(_) | WatchWork::Paced(_)));
    if stages.iter().any(grows) {
        return Ok(());
    }
    Err(LoadError::Usage("--picture needs works such as watch-flat-N and watch-paced-N".into()))
}

/// The picture, as SVG.
pub(super) fn document(summary: &Summary) -> String {
    let panel = |title, unit, scale, prefix, figure| Panel {
        title,
        unit,
        scale,
        series: series(summary, prefix, figure),
    };
    let rate = "Events delivered, writers flat out";
    let cpu = "Server CPU an event, writers flat out";
    let delay = "From put to event, p99, at 50,000 events/s";
    let all = [
        panel(rate, "events/s", Scale::Linear, "flat", Figure::Rate),
        panel(cpu, "µs", Scale::Linear, "flat", Figure::ServerCpuUs),
        panel(delay, "ms", Scale::Logarithmic, "paced", Figure::P99Ms),
    ];
    let drawn: Vec<Panel> = all.into_iter().filter(|panel| !panel.series.is_empty()).collect();
    chart::document(&drawn, WATCHERS)
}

/// A figure of the works of one family, server by server, over the number of watchers. Where
/// nothing came there is nothing to draw.
fn series(summary: &Summary, family: &str, figure: Figure) -> Vec<Series> {
    let prefix = format!("watch-{family}-");
    let mut all: Vec<Series> = Vec::new();
    for median in &summary.medians {
        let watchers = median.work.strip_prefix(&prefix).and_then(|number| number.parse().ok());
        let value = median.figures.get(&figure).filter(|value| **value > 0.0);
        let (Some(watchers), Some(value)) = (watchers, value) else { continue };
        let point = (watchers, *value);
        match all.iter_mut().find(|series| series.name == median.server) {
            Some(series) => series.points.push(point),
            None => all.push(Series { name: median.server.clone(), points: vec![point] }),
        }
    }
    for series in &mut all {
        series.points.sort_by(|one, other| one.0.total_cmp(&other.0));
    }
    all
}
