//! Everything that was seen, and what was not.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use castd_sim::{Counts, Coverage, Nanos, Profile};
use serde::Serialize;

use super::failure::Failure;
use super::pool::Finished;
use super::work::{Work, seconds};
use crate::report::row;

/// Columns in which counts are printed, and how wide their names are.
const COLUMNS: usize = 3;
const NAME_WIDTH: usize = 23;

/// What became of the clients' calls.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
struct Operations {
    ok: u64,
    failed: u64,
    unknown: u64,
}

/// All worlds together.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(super) struct Summary {
    /// The first seed that was to be run.
    from: u64,
    /// Seeds that were to be run.
    seeds_wanted: u64,
    /// Seeds that were run.
    seeds: u64,
    /// Worlds of each profile.
    worlds: BTreeMap<String, u64>,
    virtual_hours: f64,
    real_seconds: f64,
    cpu_seconds: f64,
    /// Virtual time over real time.
    ratio: f64,
    /// Virtual time over CPU time.
    ratio_of_one_core: f64,
    /// Events that happened.
    steps: u64,
    operations: Operations,
    faults: Counts,
    states: Counts,
    messages: Counts,
    turns: Counts,
    /// What can be and was not seen: the sort, and the name.
    missing: Vec<(&'static str, &'static str)>,
    /// A number that differs when any of the worlds did.
    digest: String,
    /// Seeds that failed.
    pub(super) failures: Vec<Failure>,
    #[serde(skip)]
    virtual_time: Nanos,
    #[serde(skip)]
    coverage: Coverage,
    #[serde(skip)]
    mixed: u64,
}

impl Summary {
    /// Nothing seen yet.
    pub(super) fn new(work: &Work) -> Self {
        Self {
            from: work.seeds.start,
            seeds_wanted: work.count(),
            seeds: 0,
            worlds: Profile::ALL.iter().map(|profile| (profile.to_string(), 0)).collect(),
            virtual_hours: 0.0,
            real_seconds: 0.0,
            cpu_seconds: 0.0,
            ratio: 0.0,
            ratio_of_one_core: 0.0,
            steps: 0,
            operations: Operations::default(),
            faults: Counts::new(),
            states: Counts::new(),
            messages: Counts::new(),
            turns: Counts::new(),
            missing: Vec::new(),
            digest: String::new(),
            failures: Vec::new(),
            virtual_time: 0,
            coverage: Coverage::default(),
            mixed: 0,
        }
    }

    /// Adds a world.
    pub(super) fn add(&mut self, finished: &Finished) {
        self.seeds += 1;
        *self.worlds.entry(finished.settings.profile.to_string()).or_default() += 1;
        let Ok(outcome) = &finished.outcome else { return };
        self.virtual_time += outcome.ended;
        self.steps += outcome.steps;
        self.operations.ok += outcome.calls.ok;
        self.operations.failed += outcome.calls.failed;
        self.operations.unknown += outcome.calls.unknown;
        self.coverage.add(outcome);
        // Worlds end in any order: the sum does not tell.
        let own = (outcome.digest ^ outcome.seed).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        self.mixed = self.mixed.wrapping_add(own);
    }

    /// Virtual time so far.
    pub(super) fn virtual_hours(&self) -> f64 {
        seconds(self.virtual_time) / 3600.0
    }

    /// Sums up, when all worlds are over.
    pub(super) fn finish(&mut self, real: Duration, cpu: Duration) {
        let lived = seconds(self.virtual_time);
        let over = |spent: Duration| lived / spent.as_secs_f64().max(1e-3);
        (self.ratio, self.ratio_of_one_core) = (over(real), over(cpu));
        (self.real_seconds, self.cpu_seconds) = (real.as_secs_f64(), cpu.as_secs_f64());
        self.virtual_hours = self.virtual_hours();
        self.digest = format!("{:016x}", self.mixed);
        self.missing = self.coverage.missing();
        let Coverage { faults, states, messages, turns } = self.coverage.clone();
        (self.faults, self.states, self.messages, self.turns) = (faults, states, messages, turns);
    }

    fn verdict(&self) -> String {
        if self.failures.is_empty() {
            return "all promises held".to_owned();
        }
        let seeds: Vec<String> =
            self.failures.iter().map(|failure| failure.seed().to_string()).collect();
        format!("FAILED: seeds {}", seeds.join(", "))
    }
}

impl fmt::Display for Summary {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { seeds, seeds_wanted, from, digest, .. } = self;
        match seeds == seeds_wanted {
            true => writeln!(out, "\n{seeds} seeds from {from} on")?,
            false => writeln!(out, "\n{seeds} of {seeds_wanted} seeds from {from} on")?,
        }
        let worlds = self.worlds.iter().filter(|(_, worlds)| **worlds > 0);
        let worlds: Vec<String> = worlds.map(|(name, worlds)| format!("{worlds} {name}")).collect();
        row(out, "worlds", worlds.join(", "))?;
        row(out, "virtual time", format!("{:.2} h, {} events", self.virtual_hours, self.steps))?;
        row(out, "real time", format!("{:.1} s, {:.0}:1", self.real_seconds, self.ratio))?;
        let cpu = format!("{:.1} s, {:.0}:1 on one core", self.cpu_seconds, self.ratio_of_one_core);
        row(out, "CPU time", cpu)?;
        let Operations { ok, failed, unknown } = self.operations;
        row(out, "operations", format!("{ok} ok, {failed} failed, {unknown} unknown"))?;
        row(out, "digest", digest)?;
        table(out, "faults", &self.faults)?;
        table(out, "members", &self.states)?;
        table(out, "messages", &self.messages)?;
        table(out, "turns", &self.turns)?;
        self.write_missing(out)?;
        writeln!(out, "  {}", self.verdict())
    }
}

impl Summary {
    fn write_missing(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut name = "never seen";
        for sort in ["fault", "state", "message", "actor"] {
            let of_sort = self.missing.iter().filter(|(other, _)| *other == sort);
            let names: Vec<&str> = of_sort.map(|(_, name)| *name).collect();
            if !names.is_empty() {
                row(out, name, format!("{sort}: {}", names.join(", ")))?;
                name = "";
            }
        }
        Ok(())
    }
}

/// What was seen, in columns.
fn table(out: &mut fmt::Formatter<'_>, name: &str, counts: &Counts) -> fmt::Result {
    let seen: Vec<(&&str, &u64)> = counts.iter().filter(|(_, times)| **times > 0).collect();
    if seen.is_empty() {
        return row(out, name, "none");
    }
    let lines = seen.len().div_ceil(COLUMNS);
    for line in 0..lines {
        let cells = seen.iter().skip(line).step_by(lines);
        let cells: Vec<String> =
            cells.map(|(name, times)| format!("{times:>10} {name:<NAME_WIDTH$}")).collect();
        row(out, if line == 0 { name } else { "" }, cells.concat().trim_end())?;
    }
    Ok(())
}
