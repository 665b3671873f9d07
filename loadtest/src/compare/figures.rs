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
    /// CPU of the member that led, an operation of the whole cluster, microseconds.
    LeaderCpuUs,
    /// CPU of a member that followed, the mean of them, likewise.
    FollowerCpuUs,
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
    /// The longest time without a successful write before anything happened, milliseconds.
    GapBeforeMs,
    /// The longest time without a successful write after the leader was struck, milliseconds.
    GapMs,
    /// The longest that a write waited for its answer, good or bad, milliseconds.
    SlowestMs,
    /// Writes that were answered with an error, or not at all.
    Failed,
    /// Writes that were answered with an error and took effect nevertheless.
    Applied,
    /// Writes that were acknowledged and are not there.
    Lost,
    /// From exec of a member that had fallen behind until it had caught up, seconds.
    CatchUpSeconds,
    /// 99th percentile of latencies before the member came back or watchers stopped, milliseconds.
    P99BeforeMs,
    /// The 99th percentile while it caught up, or while watchers did not read, over that before.
    P99Growth,
    /// 99th percentile of latencies while watchers make up for what they did not read,
    /// milliseconds.
    P99AfterMs,
    /// Puts a second beside watchers.
    PutRate,
    /// The same without watchers.
    PutRateAlone,
    /// The first over the second.
    PutShare,
    /// Server CPU a put with its events, microseconds.
    PutCpuUs,
    /// Resident memory with all watchers open, bytes.
    RssBytes,
    /// What a watcher adds to resident memory, bytes.
    WatcherRssBytes,
    /// What a watcher adds to anonymous memory, bytes.
    WatcherAnonBytes,
    /// Resident memory before watchers stopped, bytes.
    RssBeforeBytes,
    /// The most resident memory since then, bytes.
    RssStoppedBytes,
    /// Resident memory when they had made up for it, bytes.
    RssAfterBytes,
    /// From when watchers read again until the last one had everything, seconds.
    MadeUpSeconds,
    /// Events from the past that were still to come when nobody waited any longer.
    Pending,
}

impl Figure {
    /// All of them, in the order of columns.
    pub(super) const ALL: [Self; 34] = [
        Self::Rate,
        Self::P50Ms,
        Self::P99Ms,
        Self::ServerCpuUs,
        Self::LeaderCpuUs,
        Self::FollowerCpuUs,
        Self::GeneratorCpuUs,
        Self::PeakRssBytes,
        Self::AnonBytes,
        Self::WrittenBytes,
        Self::DiskBytes,
        Self::ReadySeconds,
        Self::GapBeforeMs,
        Self::GapMs,
        Self::SlowestMs,
        Self::Failed,
        Self::Applied,
        Self::Lost,
        Self::CatchUpSeconds,
        Self::P99BeforeMs,
        Self::P99Growth,
        Self::P99AfterMs,
        Self::PutRate,
        Self::PutRateAlone,
        Self::PutShare,
        Self::PutCpuUs,
        Self::RssBytes,
        Self::WatcherRssBytes,
        Self::WatcherAnonBytes,
        Self::RssBeforeBytes,
        Self::RssStoppedBytes,
        Self::RssAfterBytes,
        Self::MadeUpSeconds,
        Self::Pending,
    ];

    /// What it is called in tables.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Rate => "rate",
            Self::P50Ms => "p50",
            Self::P99Ms => "p99",
            Self::ServerCpuUs => "server CPU",
            Self::LeaderCpuUs => "leader CPU",
            Self::FollowerCpuUs => "follower CPU",
            Self::GeneratorCpuUs => "generator CPU",
            Self::PeakRssBytes => "peak RSS",
            Self::AnonBytes => "anonymous",
            Self::WrittenBytes => "written",
            Self::DiskBytes => "disk",
            Self::ReadySeconds => "ready",
            Self::GapBeforeMs => "gap before",
            Self::GapMs => "gap",
            Self::SlowestMs => "slowest",
            Self::Failed => "failed",
            Self::Applied => "failed yet applied",
            Self::Lost => "lost",
            Self::CatchUpSeconds => "caught up",
            Self::P99BeforeMs => "p99 before",
            Self::P99Growth => "p99 growth",
            Self::P99AfterMs => "p99 after",
            Self::PutRate => "puts",
            Self::PutRateAlone => "puts alone",
            Self::PutShare => "puts kept",
            Self::PutCpuUs => "put CPU",
            Self::RssBytes => "RSS",
            Self::WatcherRssBytes => "a watcher, RSS",
            Self::WatcherAnonBytes => "a watcher, anonymous",
            Self::RssBeforeBytes => "RSS before",
            Self::RssStoppedBytes => "RSS stopped",
            Self::RssAfterBytes => "RSS after",
            Self::MadeUpSeconds => "made up",
            Self::Pending => "still to come",
        }
    }

    /// The unit its values are written in.
    pub(super) fn unit(self) -> &'static str {
        match self {
            Self::Rate => "/s",
            Self::P50Ms | Self::P99Ms | Self::P99BeforeMs | Self::P99AfterMs => "ms",
            Self::GapBeforeMs | Self::GapMs | Self::SlowestMs => "ms",
            Self::ServerCpuUs | Self::LeaderCpuUs | Self::FollowerCpuUs => "us/op",
            Self::GeneratorCpuUs => "us/op",
            Self::PeakRssBytes | Self::AnonBytes | Self::DiskBytes => "MiB",
            Self::WrittenBytes => "B/op",
            Self::ReadySeconds | Self::CatchUpSeconds => "s",
            Self::Failed | Self::Applied | Self::Lost => "writes",
            Self::P99Growth | Self::PutShare => "times",
            Self::PutRate | Self::PutRateAlone => "/s",
            Self::PutCpuUs => "us/put",
            Self::RssBytes | Self::RssBeforeBytes | Self::RssStoppedBytes => "MiB",
            Self::RssAfterBytes => "MiB",
            Self::WatcherRssBytes | Self::WatcherAnonBytes => "B",
            Self::MadeUpSeconds => "s",
            Self::Pending => "events",
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
            Self::PeakRssBytes | Self::AnonBytes | Self::DiskBytes => mebibytes_text(value),
            Self::RssBytes | Self::RssBeforeBytes => mebibytes_text(value),
            Self::RssStoppedBytes | Self::RssAfterBytes => mebibytes_text(value),
            Self::WatcherRssBytes | Self::WatcherAnonBytes | Self::Pending => grouped(value),
            Self::WrittenBytes | Self::Failed | Self::Applied | Self::Lost => {
                format!("{value:.0}")
            }
            _ => significant(value),
        }
    }
}

fn mebibytes_text(bytes: f64) -> String {
    format!("{:.0}", mebibytes(bytes as u64))
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
    /// Failed calls by text.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub(super) failures: BTreeMap<String, u64>,
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
            failures: failures(report),
        }
    }

    /// The same with the CPU of leader and followers told apart, where there are several
    /// members: `leader` is the process id of the one that led.
    pub(super) fn with_roles(mut self, report: &Report, leader: u32) -> Self {
        let processes = report.server.as_ref().map_or(&[][..], |server| &server.processes);
        let cpu = |leads: bool| {
            let those = processes.iter().filter(move |process| (process.pid == leader) == leads);
            those.map(|process| process.cpu_us_per_call).collect::<Vec<_>>()
        };
        let (leaders, followers) = (cpu(true), cpu(false));
        if !followers.is_empty() {
            let mean = followers.iter().sum::<f64>() / followers.len() as f64;
            self.figures.insert(Figure::FollowerCpuUs, mean);
            self.figures.insert(Figure::LeaderCpuUs, leaders.iter().sum());
        }
        self
    }
}

/// What went wrong, by text, watchers' troubles included.
fn failures(report: &Report) -> BTreeMap<String, u64> {
    let mut failures = report.errors.clone();
    let Some(watch) = &report.watch else { return failures };
    failures.extend(watch.errors.clone());
    for (text, times) in [
        ("events missing", watch.missing),
        ("events doubled", watch.doubled),
        ("events disordered", watch.disordered),
        ("revisions split", watch.split),
        ("events foreign", watch.foreign),
    ] {
        if times > 0 {
            failures.insert(text.to_owned(), times);
        }
    }
    failures
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
        self.failures.iter().try_for_each(|(text, times)| write!(out, "\n  {times:>8} x {text}"))
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
