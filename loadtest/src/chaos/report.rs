//! What a run found out, for people and for programs.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use serde::Serialize;

use castd_check::{Judgement, Moment, Problem, Tally};

/// How long behind a fault's end its effect is looked for.
const AFTER: Moment = 3_000_000_000;

/// When writes succeeded.
#[derive(Debug)]
pub(super) struct Times {
    successes: Vec<Moment>,
}

impl Times {
    /// From the moments of success, in any order.
    pub(super) fn new(successes: &[Moment]) -> Self {
        let mut successes = successes.to_vec();
        successes.sort_unstable();
        Self { successes }
    }

    /// The longest time without a successful write that was under way between two moments, in
    /// milliseconds. What lies behind `end` does not count.
    pub(super) fn longest_gap_ms(&self, from: Moment, to: Moment, end: Moment) -> f64 {
        let first = self.successes.partition_point(|moment| *moment < from).saturating_sub(1);
        let pairs = self.successes[first..].windows(2).take_while(|pair| pair[0] < to);
        let longest = pairs.map(|pair| pair[1].min(end) - pair[0].min(end)).max().unwrap_or(0);
        Duration::from_nanos(longest).as_secs_f64() * 1e3
    }
}

/// One fault and what clients felt of it.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) struct FaultReport {
    /// Its kind.
    pub(crate) kind: &'static str,
    /// Whom it met, and how.
    pub(crate) text: String,
    /// When it began, in seconds of the round.
    pub(crate) begin: f64,
    /// When it was over.
    pub(crate) end: f64,
    /// The longest time without a successful write, while it lasted and shortly after.
    pub(crate) longest_gap_ms: f64,
    #[serde(skip)]
    span: (Moment, Moment),
}

impl FaultReport {
    /// A fault between two moments.
    pub(super) fn new(kind: &'static str, text: String, begin: Moment, end: Moment) -> Self {
        let seconds = |moment| Duration::from_nanos(moment).as_secs_f64();
        let span = (begin, end);
        Self { kind, text, begin: seconds(begin), end: seconds(end), longest_gap_ms: 0.0, span }
    }

    /// Fills in what clients felt, given when the next fault began.
    fn measure(&mut self, times: &Times, next: Moment) {
        let until = self.span.1 + AFTER;
        self.longest_gap_ms = times.longest_gap_ms(self.span.0, until, next);
    }
}

/// Fills in what clients felt of each fault.
pub(super) fn measure(faults: &mut [FaultReport], times: &Times) {
    let mut next = Moment::MAX;
    for fault in faults.iter_mut().rev() {
        fault.measure(times, next);
        next = fault.span.0;
    }
}

/// One round.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) struct RoundReport {
    /// Its seed.
    pub(crate) seed: u64,
    /// Members of the cluster.
    pub(crate) members: usize,
    /// How long it took.
    pub(crate) seconds: f64,
    /// Calls by outcome.
    pub(crate) tally: Tally,
    /// The faults, in order.
    pub(crate) faults: Vec<FaultReport>,
    /// The longest time without a successful write.
    pub(crate) longest_gap_ms: f64,
    /// How much was checked.
    pub(crate) judgement: Judgement,
    /// Watch streams that had to be opened again, or that watchers gave up on purpose.
    pub(crate) reopened_watches: u64,
    /// Packets carried and lost, in a network of namespaces.
    pub(crate) packets: Option<(u64, u64)>,
    /// CPU time of the members' processes that ran at the end.
    pub(crate) servers_cpu_seconds: f64,
    /// What must not be. Empty: everything held.
    pub(crate) problems: Vec<Problem>,
    /// Where data and logs are, if they were kept.
    pub(crate) kept: Option<PathBuf>,
}

impl fmt::Display for RoundReport {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { tally, judgement, .. } = self;
        let calls = tally.ok + tally.failed + tally.unknown;
        writeln!(out, "seed {}: {} members, {:.0} s", self.seed, self.members, self.seconds)?;
        writeln!(
            out,
            "  calls     {calls}: {} ok, {} refused, {} unknown; {} times no connection",
            tally.ok, tally.failed, tally.unknown, tally.unconnected
        )?;
        for (text, count) in &tally.errors {
            writeln!(out, "            {count:6} {text}")?;
        }
        writeln!(
            out,
            "  checked   {} operations on {} keys, {} events stored, {} watched ({} streams \
             reopened), {} leases{}",
            judgement.operations,
            judgement.keys,
            judgement.events,
            judgement.watched,
            self.reopened_watches,
            judgement.leases,
            match judgement.undecided {
                0 => String::new(),
                keys => format!("; {keys} keys UNDECIDED"),
            }
        )?;
        if let Some((carried, lost)) = self.packets {
            writeln!(out, "  packets   {carried} carried, {lost} lost")?;
        }
        writeln!(out, "  longest time without a successful write: {:.0} ms", self.longest_gap_ms)?;
        writeln!(out, "  {:>8} {:>8} {:>9}  fault", "begin s", "end s", "no write")?;
        for fault in &self.faults {
            let FaultReport { begin, end, longest_gap_ms, text, .. } = fault;
            writeln!(out, "  {begin:8.1} {end:8.1} {longest_gap_ms:6.0} ms  {text}")?;
        }
        for problem in &self.problems {
            writeln!(out, "  BROKEN PROMISE: {problem}")?;
        }
        if let Some(kept) = &self.kept {
            writeln!(out, "  data and logs are in {}", kept.display())?;
        }
        let verdict = if self.problems.is_empty() { "all promises held" } else { "FAILED" };
        writeln!(out, "  seed {}: {verdict}", self.seed)
    }
}

/// What clients felt of all faults of one kind.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) struct KindReport {
    /// Their number.
    pub(crate) count: usize,
    /// The median of the longest times without a successful write.
    pub(crate) median_gap_ms: f64,
    /// The longest of them.
    pub(crate) longest_gap_ms: f64,
}

/// All rounds of a run.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) struct ChaosReport {
    /// What the server says about its version.
    pub(crate) server: String,
    /// The rounds.
    pub(crate) rounds: Vec<RoundReport>,
    /// The faults of all rounds by kind.
    pub(crate) kinds: BTreeMap<&'static str, KindReport>,
    /// CPU time of this program: clients, network, checker.
    pub(crate) generator_cpu_seconds: f64,
}

impl ChaosReport {
    /// Sums rounds up.
    pub(super) fn new(server: &str, rounds: Vec<RoundReport>, cpu: Duration) -> Self {
        let mut gaps: BTreeMap<&'static str, Vec<f64>> = BTreeMap::new();
        for fault in rounds.iter().flat_map(|round| &round.faults) {
            gaps.entry(fault.kind).or_default().push(fault.longest_gap_ms);
        }
        let kinds = gaps.into_iter().map(|(kind, mut gaps)| {
            gaps.sort_unstable_by(f64::total_cmp);
            let (count, median_gap_ms) = (gaps.len(), gaps[gaps.len() / 2]);
            (kind, KindReport { count, median_gap_ms, longest_gap_ms: gaps[count - 1] })
        });
        let (server, kinds, generator_cpu_seconds) =
            (server.to_owned(), kinds.collect(), cpu.as_secs_f64());
        Self { server, rounds, kinds, generator_cpu_seconds }
    }

    /// Whether every promise held in every round.
    pub(crate) fn held(&self) -> bool {
        self.rounds.iter().all(|round| round.problems.is_empty())
    }
}

impl fmt::Display for ChaosReport {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seconds: f64 = self.rounds.iter().map(|round| round.seconds).sum();
        let faults: usize = self.kinds.values().map(|kind| kind.count).sum();
        let operations: u64 = self.rounds.iter().map(|round| round.judgement.operations).sum();
        let rounds = self.rounds.len();
        writeln!(out, "{}: {rounds} rounds, {:.1} min", self.server, seconds / 60.0)?;
        writeln!(out, "  {faults} faults, {operations} operations checked")?;
        writeln!(out, "  time without a successful write, in ms")?;
        writeln!(out, "  {:>6} {:>8} {:>8}  fault", "faults", "median", "longest")?;
        for (name, kind) in &self.kinds {
            let KindReport { count, median_gap_ms, longest_gap_ms } = kind;
            writeln!(out, "  {count:6} {median_gap_ms:8.0} {longest_gap_ms:8.0}  {name}")?;
        }
        let failed = self.rounds.iter().filter(|round| !round.problems.is_empty());
        let failed: Vec<String> = failed.map(|round| round.seed.to_string()).collect();
        match failed.is_empty() {
            true => writeln!(out, "  all promises held"),
            false => writeln!(out, "  FAILED: seeds {}", failed.join(", ")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Moment = 1_000_000_000;

    #[test]
    fn gaps_are_looked_for_around_a_fault() {
        let successes = [1, 2, 3, 7, 8, 9, 20].map(|seconds| seconds * SECOND);
        let times = Times::new(&successes);
        let gap = |from, to| times.longest_gap_ms(from * SECOND, to * SECOND, Moment::MAX);
        assert_eq!(gap(0, 60), 11_000.0);
        assert_eq!(gap(4, 5), 4000.0);
        assert_eq!(gap(8, 9), 1000.0);
        assert_eq!(gap(30, 40), 0.0);
        assert_eq!(Times::new(&[]).longest_gap_ms(0, 1, Moment::MAX), 0.0);
        let fault = |from, to| FaultReport::new("f", "f".into(), from * SECOND, to * SECOND);
        // The second fault begins in the first one's gap.
        let mut faults = [fault(2, 4), fault(6, 10)];
        measure(&mut faults, &times);
        assert_eq!(faults.map(|fault| fault.longest_gap_ms), [3000.0, 11_000.0]);
    }
}
