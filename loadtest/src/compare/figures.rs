//! What is measured of a work, and how it is written.

use std::collections::BTreeMap;
use std::fmt;

use serde::Serialize;

use crate::report::{Report, mebibytes};

/// One thing that is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Figure {
    /// Operations a second.
    Rate,
    /// Median latency, milliseconds.
    P50Ms,
    /// 99th percentile of latencies, milliseconds.
    P99Ms,
    /// Server CPU an operation, microseconds.
    ServerCpuUs,
    /// Generator CPU an operation, microseconds.
    GeneratorCpuUs,
    /// Most memory ever resident, bytes.
    PeakRssBytes,
    /// Anonymous memory at the end, bytes.
    AnonBytes,
    /// Bytes written to storage an operation.
    WrittenBytes,
    /// Size of the data directory on disk, bytes.
    DiskBytes,
    /// From exec to the first answers, seconds.
    ReadySeconds,
}

impl Figure {
    /// All of them, in the order of columns.
    pub(super) const ALL: [Self; 10] = [
        Self::Rate,
        Self::P50Ms,
        Self::P99Ms,
        Self::ServerCpuUs,
        Self::GeneratorCpuUs,
        Self::PeakRssBytes,
        Self::AnonBytes,
        Self::WrittenBytes,
        Self::DiskBytes,
        Self::ReadySeconds,
    ];

    /// What it is called in tables.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Rate => "rate",
            Self::P50Ms => "p50",
            Self::P99Ms => "p99",
            Self::ServerCpuUs => "server CPU",
            Self::GeneratorCpuUs => "generator CPU",
            Self::PeakRssBytes => "peak RSS",
            Self::AnonBytes => "anonymous",
            Self::WrittenBytes => "written",
            Self::DiskBytes => "disk",
            Self::ReadySeconds => "ready",
        }
    }

    /// The unit its values are written in.
    pub(super) fn unit(self) -> &'static str {
        match self {
            Self::Rate => "/s",
            Self::P50Ms | Self::P99Ms => "ms",
            Self::ServerCpuUs | Self::GeneratorCpuUs => "us/op",
            Self::PeakRssBytes | Self::AnonBytes | Self::DiskBytes => "MiB",
            Self::WrittenBytes => "B/op",
            Self::ReadySeconds => "s",
        }
    }

    /// Whether it says something beside the empty call: the rest is about keys.
    pub(super) fn has_floor(self) -> bool {
        matches!(self, Self::Rate | Self::P50Ms | Self::P99Ms | Self::ServerCpuUs)
    }

    /// A value as it stands in a table.
    pub(super) fn text(self, value: f64) -> String {
        match self {
            Self::Rate if value >= 100.0 => grouped(value),
            Self::Rate | Self::ServerCpuUs | Self::GeneratorCpuUs => significant(value),
            Self::P50Ms | Self::P99Ms | Self::ReadySeconds => significant(value),
            Self::PeakRssBytes | Self::AnonBytes | Self::DiskBytes => {
                format!("{:.0}", mebibytes(value as u64))
            }
            Self::WrittenBytes => format!("{value:.0}"),
        }
    }
}

/// Three significant digits or all before the point.
fn significant(value: f64) -> String {
    match value.abs() {
        v if v >= 1000.0 => grouped(value),
        v if v >= 100.0 => format!("{value:.0}"),
        v if v >= 10.0 => format!("{value:.1}"),
        v if v >= 1.0 => format!("{value:.2}"),
        _ => format!("{value:.3}"),
    }
}

/// A whole number with its thousands apart.
fn grouped(value: f64) -> String {
    let digits = format!("{value:.0}");
    let mut text = String::new();
    for (position, digit) in digits.chars().enumerate() {
        if position > 0 && (digits.len() - position).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// What was measured of one work.
pub(super) type Figures = BTreeMap<Figure, f64>;

/// One work by one server in one round.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(super) struct Row {
    /// Number of the round, from 1.
    pub(super) round: usize,
    /// The work's name.
    pub(super) work: String,
    /// The server's name.
    pub(super) server: String,
    /// Clients of a work whose distance to the empty call is of interest.
    pub(super) clients: Option<usize>,
    /// The figures.
    pub(super) figures: Figures,
    /// Failed calls and other faults.
    pub(super) errors: u64,
}

impl Row {
    /// A row of a work's report. What counts as an operation is an event where there were
    /// watchers, and else a call.
    pub(super) fn of(server: &str, report: &Report, clients: Option<usize>) -> Self {
        let mut figures = Figures::new();
        figures.insert(Figure::Rate, report.rate);
        figures.insert(Figure::P50Ms, report.latency.p50_ms);
        figures.insert(Figure::P99Ms, report.latency.p99_ms);
        figures.insert(Figure::GeneratorCpuUs, report.generator.cpu_us_per_call);
        if let Some(process) = &report.server {
            figures.insert(Figure::ServerCpuUs, process.cpu_us_per_call);
            figures.insert(Figure::PeakRssBytes, process.memory.rss_peak_bytes as f64);
            figures.insert(Figure::AnonBytes, process.memory.anon_bytes as f64);
            figures.insert(Figure::WrittenBytes, process.written_bytes_per_call);
        }
        if let Some(watch) = &report.watch {
            figures.insert(Figure::Rate, watch.events_per_second);
            figures.insert(Figure::P50Ms, watch.latency.p50_ms);
            figures.insert(Figure::P99Ms, watch.latency.p99_ms);
            figures.insert(Figure::GeneratorCpuUs, watch.generator_cpu_us_per_event);
            figures.extend(watch.server_cpu_us_per_event.map(|cpu| (Figure::ServerCpuUs, cpu)));
            figures.remove(&Figure::WrittenBytes);
        }
        Self {
            round: 0,
            work: report.work.clone(),
            server: server.to_owned(),
            clients,
            figures,
            errors: report.faults(),
        }
    }
}

impl fmt::Display for Row {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{:<14} {:<14}", self.work, self.server)?;
        for (figure, value) in &self.figures {
            write!(out, "  {} {} {}", figure.name(), figure.text(*value), figure.unit())?;
        }
        if self.errors > 0 {
            write!(out, "  ERRORS {}", self.errors)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_written_with_the_digits_that_mean_something() {
        assert_eq!(Figure::Rate.text(1_234_567.8), "1,234,568");
        assert_eq!(Figure::Rate.text(123.4), "123");
        assert_eq!(Figure::Rate.text(66.12), "66.1");
        assert_eq!(Figure::ServerCpuUs.text(20_614.0), "20,614");
        assert_eq!(Figure::P99Ms.text(0.1234), "0.123");
        assert_eq!(Figure::P50Ms.text(14.56), "14.6");
        assert_eq!(Figure::PeakRssBytes.text(104_857_600.0), "100");
    }

    #[test]
    fn every_figure_is_a_column_once() {
        let mut all = Figure::ALL.to_vec();
        all.sort_unstable();
        all.dedup();
        assert_eq!(all, Figure::ALL);
    }
}
