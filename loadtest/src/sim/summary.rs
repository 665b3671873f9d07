//! Everything that was seen, and what was not.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use castd_check::Judgement;
use castd_sim::{Counts, Coverage, Nanos, Profile};
use serde::Serialize;

use super::failure::Failure;
use super::pool::Finished;
use super::work::{Work, seconds};
use crate::report::row;

/// Columns in which counts are printed, and how wide their names are.
const COLUMNS: usize = 3;
const NAME_WIDTH: usize = 26;
/// Names of what was not seen in a line.
const NAMES: usize = 5;
/// What there is to be seen, one and many.
const SORTS: [(&str, &str); 4] =
    [("fault", "faults"), ("state", "states"), ("message", "messages"), ("actor", "actors")];

/// What became of the clients' calls.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
struct Operations {
    ok: u64,
    failed: u64,
    unknown: u64,
}

/// What was held against what must be.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
struct Judged {
    operations: u64,
    range_reads: u64,
    events_stored: u64,
    events_watched: u64,
    leases: u64,
    /// Keys whose operations were too many to search all their orders.
    undecided_keys: u64,
}

impl Judged {
    fn add(&mut self, world: &Judgement) {
        self.operations += world.operations;
        self.range_reads += world.range_reads;
        self.events_stored += world.events;
        self.events_watched += world.watched;
        self.leases += world.leases;
        self.undecided_keys += world.undecided;
    }
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
    judged: Judged,
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
            judged: Judged::default(),
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
        self.judged.add(&outcome.judged);
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
        match (seeds, seeds_wanted) {
            (1, 1) => writeln!(out, "seed {from}")?,
            (ran, wanted) if ran == wanted => writeln!(out, "{seeds} seeds from {from} on")?,
            _ => writeln!(out, "{seeds} of {seeds_wanted} seeds from {from} on")?,
        }
        let worlds = self.worlds.iter().filter(|(_, worlds)| **worlds > 0);
        let worlds: Vec<String> = worlds.map(|(name, worlds)| format!("{worlds} {name}")).collect();
        row(out, "worlds", worlds.join(", "))?;
        let lived = span(seconds(self.virtual_time));
        row(out, "virtual time", format!("{lived}, {} events", self.steps))?;
        row(out, "real time", format!("{}, {:.0}:1", span(self.real_seconds), self.ratio))?;
        let (cpu, ratio) = (span(self.cpu_seconds), self.ratio_of_one_core);
        row(out, "CPU time", format!("{cpu}, {ratio:.0}:1 on one core"))?;
        let Operations { ok, failed, unknown } = self.operations;
        row(out, "operations", format!("{ok} ok, {failed} failed, {unknown} unknown"))?;
        self.write_judged(out)?;
        row(out, "digest", digest)?;
        table(out, "faults", &self.faults)?;
        table(out, "states", &self.states)?;
        table(out, "messages", &self.messages)?;
        table(out, "turns", &self.turns)?;
        if self.seeds > 1 {
            self.write_missing(out)?;
        }
        writeln!(out, "  {}", self.verdict())
    }
}

impl Summary {
    fn write_judged(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Judged { operations, range_reads, events_watched, leases, undecided_keys, .. } =
            self.judged;
        let undecided = match undecided_keys {
            0 => String::new(),
            keys => format!("; {keys} keys UNDECIDED"),
        };
        let text = format!(
            "{operations} operations, {range_reads} reads of ranges, \
             {events_watched} watched events, {leases} leases{undecided}"
        );
        row(out, "judged", text)
    }

    fn write_missing(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut name = "never seen";
        for (sort, plural) in SORTS {
            let of_sort = self.missing.iter().filter(|(other, _)| *other == sort);
            let names: Vec<&str> = of_sort.map(|(_, name)| *name).collect();
            for (number, names) in names.chunks(NAMES).enumerate() {
                let what = if number == 0 { plural } else { "" };
                row(out, name, format!("{what:<9} {}", names.join(", ")))?;
                name = "";
            }
        }
        Ok(())
    }
}

/// A time for people.
fn span(seconds: f64) -> String {
    match seconds {
        ..120.0 => format!("{seconds:.1} s"),
        120.0..7200.0 => format!("{:.1} min", seconds / 60.0),
        _ => format!("{:.2} h", seconds / 3600.0),
    }
}

/// What was seen, in columns.
fn table(out: &mut fmt::Formatter<'_>, name: &str, counts: &Counts) -> fmt::Result {
    let seen: Vec<(&&str, &u64)> = counts.iter().filter(|(_, times)| **times > 0).collect();
    if seen.is_empty() {
        return row(out, name, "none");
    }
    let width = seen.iter().map(|(_, times)| times.to_string().len()).max().unwrap_or(0);
    let lines = seen.len().div_ceil(COLUMNS);
    for line in 0..lines {
        let cells = seen.iter().skip(line).step_by(lines);
        let cells: Vec<String> =
            cells.map(|(name, times)| format!("{times:>width$} {name:<NAME_WIDTH$}")).collect();
        row(out, if line == 0 { name } else { "" }, cells.concat().trim_end())?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::cli::{Cli, Command};

    fn summary(words: &str) -> Summary {
        let cli = Cli::parse_from(words.split(' '));
        let Command::Sim(args) = cli.command else { panic!("{words}") };
        let work = Work::new(&args).unwrap();
        let mut summary = Summary::new(&work);
        work.seeds.clone().for_each(|seed| summary.add(&Finished::run(work.settings(seed))));
        summary.finish(Duration::from_secs(1), Duration::from_secs(2));
        summary
    }

    #[test]
    fn all_worlds_are_summed_up() {
        let both = summary("loadtest sim --seeds 2 --from 3 --profile quiet --span 1");
        let [one, other] = [3, 4]
            .map(|seed| summary(&format!("loadtest sim --seed {seed} --profile quiet --span 1")));
        assert_eq!(both.steps, one.steps + other.steps);
        assert_eq!(both.operations.ok, one.operations.ok + other.operations.ok);
        assert_eq!(both.faults["power cut"], 0);
        assert_eq!(both.turns["RaftNode"], one.turns["RaftNode"] + other.turns["RaftNode"]);
        assert!(both.missing.contains(&("fault", "power cut")), "{:?}", both.missing);
        assert!(!both.missing.contains(&("message", "Append")), "{:?}", both.missing);
        assert!((both.ratio - 2.0 * both.ratio_of_one_core).abs() < 1e-9);
        assert!((both.virtual_hours * 3600.0 - both.ratio).abs() < 1e-9);
        let text = both.to_string();
        for part in ["2 seeds from 3 on", "2 quiet", "never seen", "all promises held"] {
            assert!(text.contains(part), "{part}: {text}");
        }
        assert!(!one.to_string().contains("never seen"), "{one}");
    }

    #[test]
    fn times_for_people() {
        assert_eq!(span(3.26), "3.3 s");
        assert_eq!(span(600.0), "10.0 min");
        assert_eq!(span(36_000.0), "10.00 h");
    }
}
