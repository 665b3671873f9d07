//! The result of a run: one line of JSON, or a table for people.

use std::collections::BTreeMap;
use std::fmt;

use serde::Serialize;

use crate::driver::{Measured, Pace};
use crate::latency::{Latencies, LatencySummary};
use crate::process::{Memory, ServerCost};
use crate::work::watch::WatchReport;

/// Everything a run found out.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) struct Report {
    /// The workload's name.
    pub(crate) work: String,
    /// The servers.
    pub(crate) endpoints: Vec<String>,
    /// `closed`, or `open` when calls were due at a rate.
    #[serde(rename = "loop")]
    pub(crate) pace: &'static str,
    /// Calls a second that were due (open loop).
    pub(crate) target_rate: Option<f64>,
    /// Clients.
    pub(crate) clients: usize,
    /// Connections.
    pub(crate) connections: usize,
    /// Threads of the generator.
    pub(crate) threads: usize,
    /// Length of the measured window.
    pub(crate) seconds: f64,
    /// Calls answered in it.
    pub(crate) calls: u64,
    /// Calls a second.
    pub(crate) rate: f64,
    /// Keys those calls read or wrote, a second.
    pub(crate) keys_per_second: f64,
    /// Latencies of all calls.
    pub(crate) latency: LatencySummary,
    /// The same by kind of call, where there are several.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub(crate) kinds: BTreeMap<&'static str, KindReport>,
    /// Calls that were due and never sent (open loop): the server or the limit on calls in
    /// flight did not keep up.
    pub(crate) unsent: u64,
    /// Failed calls.
    pub(crate) error_count: u64,
    /// Failed calls by text.
    pub(crate) errors: BTreeMap<String, u64>,
    /// What the generator cost.
    pub(crate) generator: GeneratorReport,
    /// What the server cost, when its process was known.
    pub(crate) server: Option<ServerReport>,
    /// What the watchers saw, when there were any.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) watch: Option<WatchReport>,
}

/// One kind of call.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) struct KindReport {
    /// Calls in the window.
    pub(crate) calls: u64,
    /// Their latencies.
    pub(crate) latency: LatencySummary,
}

/// The generator's own cost: it shares the machine with the server.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub(crate) struct GeneratorReport {
    /// CPU time in the window.
    pub(crate) cpu_seconds: f64,
    /// CPU time a call, microseconds.
    pub(crate) cpu_us_per_call: f64,
}

/// The server's cost, that of all its processes together.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) struct ServerReport {
    /// What each process spent.
    pub(crate) processes: Vec<ProcessReport>,
    /// CPU time in the window.
    pub(crate) cpu_seconds: f64,
    /// CPU time a call, microseconds.
    pub(crate) cpu_us_per_call: f64,
    /// Memory at the end of the window; the peak is over the process's life.
    #[serde(flatten)]
    pub(crate) memory: Memory,
    /// Bytes written to storage in the window.
    pub(crate) written_bytes: u64,
    /// The same for each call.
    pub(crate) written_bytes_per_call: f64,
}

/// One process of the server.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub(crate) struct ProcessReport {
    /// Process id.
    pub(crate) pid: u32,
    /// CPU time in the window, for each call to any of the processes.
    pub(crate) cpu_us_per_call: f64,
}

impl Report {
    /// Sums up a run.
    pub(crate) fn new<H>(work: &str, measured: &Measured<H>) -> Self {
        let plan = &measured.plan;
        let recorder = &measured.recorder;
        let calls = recorder.calls();
        let items: u64 = recorder.tracks.iter().map(|track| track.items).sum();
        let seconds = measured.seconds.max(1e-9);
        let mut together = Latencies::new();
        recorder.tracks.iter().for_each(|track| together.merge(&track.latencies));
        let (pace, target_rate) = match plan.pace {
            Pace::Closed => ("closed", None),
            Pace::Open { rate } => ("open", Some(rate)),
        };
        let cpu_seconds = measured.cost.generator_cpu.as_secs_f64();
        Self {
            work: work.to_owned(),
            endpoints: plan.endpoints.iter().map(ToString::to_string).collect(),
            pace,
            target_rate,
            clients: plan.clients,
            connections: plan.connections,
            threads: plan.threads,
            seconds,
            calls,
            rate: calls as f64 / seconds,
            keys_per_second: items as f64 / seconds,
            latency: together.summary(),
            kinds: kinds(measured),
            unsent: recorder.unsent,
            error_count: recorder.error_count(),
            errors: recorder.errors.clone(),
            generator: GeneratorReport {
                cpu_seconds,
                cpu_us_per_call: per(cpu_seconds * 1e6, calls),
            },
            server: ServerReport::new(&measured.cost.servers, calls),
            watch: None,
        }
    }

    /// Everything that went wrong: failed calls, and what the watchers found amiss.
    pub(crate) fn faults(&self) -> u64 {
        self.error_count + self.watch.as_ref().map_or(0, WatchReport::faults)
    }
}

impl ServerReport {
    /// Sums up the processes; nothing where none is known.
    fn new(costs: &[ServerCost], calls: u64) -> Option<Self> {
        if costs.is_empty() {
            return None;
        }
        let process = |cost: &ServerCost| ProcessReport {
            pid: cost.pid,
            cpu_us_per_call: per(cost.cpu.as_secs_f64() * 1e6, calls),
        };
        let cpu_seconds = costs.iter().map(|cost| cost.cpu.as_secs_f64()).sum::<f64>();
        let written_bytes = costs.iter().map(|cost| cost.written_bytes).sum::<u64>();
        Some(Self {
            processes: costs.iter().map(process).collect(),
            cpu_seconds,
            cpu_us_per_call: per(cpu_seconds * 1e6, calls),
            memory: costs.iter().map(|cost| cost.memory).sum(),
            written_bytes,
            written_bytes_per_call: per(written_bytes as f64, calls),
        })
    }
}

fn kinds<H>(measured: &Measured<H>) -> BTreeMap<&'static str, KindReport> {
    let tracks = &measured.recorder.tracks;
    if tracks.len() < 2 {
        return BTreeMap::new();
    }
    let report = |calls, latencies: &Latencies| KindReport { calls, latency: latencies.summary() };
    tracks.iter().map(|track| (track.kind, report(track.calls, &track.latencies))).collect()
}

/// A share of a sum; of nothing, when there were no calls.
fn per(sum: f64, calls: u64) -> f64 {
    if calls == 0 { 0.0 } else { sum / calls as f64 }
}

impl fmt::Display for Report {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let paced = self.target_rate.map_or_else(String::new, |rate| format!(" at {rate:.0}/s"));
        writeln!(
            out,
            "{}: {} clients, {} connections, {} threads, {} loop{paced}, {:.2} s",
            self.work, self.clients, self.connections, self.threads, self.pace, self.seconds
        )?;
        row(out, "calls", format!("{} ({:.0}/s)", self.calls, self.rate))?;
        if (self.keys_per_second - self.rate).abs() > 0.5 {
            row(out, "keys", format!("{:.0}/s", self.keys_per_second))?;
        }
        row(out, "latency ms", latency_text(&self.latency))?;
        for (kind, report) in &self.kinds {
            let text = format!("{} calls, {}", report.calls, latency_text(&report.latency));
            row(out, &format!("  {kind}"), text)?;
        }
        if let Some(watch) = &self.watch {
            watch.write(out)?;
        }
        row(out, "generator CPU", format!("{:.1} us a call", self.generator.cpu_us_per_call))?;
        if let Some(server) = &self.server {
            write_server(out, server)?;
        }
        if self.unsent > 0 {
            row(out, "unsent", format!("{} calls were due and not sent", self.unsent))?;
        }
        row(out, "errors", self.error_count.to_string())?;
        self.errors.iter().try_for_each(|(text, times)| writeln!(out, "  {times:>8} x {text}"))
    }
}

/// One line of a report for people.
///
/// # Errors
/// As the formatter's.
pub(crate) fn row(
    out: &mut fmt::Formatter<'_>,
    name: &str,
    text: impl fmt::Display,
) -> fmt::Result {
    writeln!(out, "  {name:<14} {text}")
}

/// Latencies in one line, milliseconds.
pub(crate) fn latency_text(latency: &LatencySummary) -> String {
    format!(
        "p50 {:.3}  p90 {:.3}  p99 {:.3}  p99.9 {:.3}  max {:.3}  mean {:.3}",
        latency.p50_ms,
        latency.p90_ms,
        latency.p99_ms,
        latency.p999_ms,
        latency.max_ms,
        latency.mean_ms
    )
}

fn write_server(out: &mut fmt::Formatter<'_>, server: &ServerReport) -> fmt::Result {
    row(out, "server CPU", format!("{:.1} us a call", server.cpu_us_per_call))?;
    for process in server.processes.iter().filter(|_| server.processes.len() > 1) {
        let text = format!("{:.1} us a call", process.cpu_us_per_call);
        row(out, &format!("  {}", process.pid), text)?;
    }
    let memory = format!(
        "{:.1} MiB resident, {:.1} anonymous, peak {:.1}",
        mebibytes(server.memory.rss_bytes),
        mebibytes(server.memory.anon_bytes),
        mebibytes(server.memory.rss_peak_bytes)
    );
    row(out, "server memory", memory)?;
    row(out, "server writes", format!("{:.0} bytes a call", server.written_bytes_per_call))
}

/// Bytes in MiB.
pub(crate) fn mebibytes(bytes: u64) -> f64 {
    bytes as f64 / f64::from(1 << 20)
}
