//! What is to be run.

use std::collections::BTreeSet;
use std::ops::Range;
use std::time::Duration;

use castd_sim::{Nanos, SECOND, Settings};

use crate::cli::{Faults, SimArgs, SimProfile};
use crate::error::LoadError;

/// The longest life of a world.
const MAX_SPAN: Nanos = 24 * 3600 * SECOND;

/// The seeds, and how they are run.
#[derive(Debug, Clone)]
pub(super) struct Work {
    /// The seeds.
    pub(super) seeds: Range<u64>,
    /// Threads.
    pub(super) jobs: usize,
    /// No seed is begun after this.
    pub(super) time_limit: Option<Duration>,
    /// Whether the first failure is shrunk without being asked: not when it is a replay.
    pub(super) shrinks: bool,
    profile: SimProfile,
    span: Option<Nanos>,
    without: BTreeSet<usize>,
    verbose: bool,
}

impl Work {
    /// What the options ask for.
    ///
    /// # Errors
    /// When that is nothing.
    pub(super) fn new(args: &SimArgs) -> Result<Self, LoadError> {
        let (first, count) = args.seed.map_or((args.from, args.seeds), |seed| (seed, 1));
        let usage = |text: &str| Err(LoadError::Usage(text.to_owned()));
        let Some(end) = first.checked_add(count) else { return usage("no such seeds") };
        if count == 0 {
            return usage("no seeds to run");
        }
        let span = args.span.map(|span| u64::try_from(span.as_nanos()).unwrap_or(u64::MAX));
        if span.is_some_and(|span| span == 0 || span > MAX_SPAN) {
            return usage("--span must be more than 0 and at most 24h");
        }
        let cores = || std::thread::available_parallelism().map_or(1, usize::from);
        let jobs = args.jobs.map_or_else(cores, usize::from);
        let is_replay = args.verbose || args.without.is_some();
        Ok(Self {
            seeds: first..end,
            jobs: jobs.min(usize::try_from(count).unwrap_or(usize::MAX)),
            time_limit: args.time_limit,
            shrinks: !args.no_shrink && !is_replay,
            profile: args.profile,
            span,
            without: args.without.clone().unwrap_or_default().0,
            verbose: args.verbose,
        })
    }

    /// How many seeds there are.
    pub(super) fn count(&self) -> u64 {
        self.seeds.end - self.seeds.start
    }

    /// The settings of a seed.
    pub(super) fn settings(&self, seed: u64) -> Settings {
        let usual = Settings::new(seed, self.profile.of(seed));
        Settings {
            span: self.span.unwrap_or(usual.span),
            without: self.without.clone(),
            verbose: self.verbose,
            ..usual
        }
    }
}

/// The command that runs a world again.
pub(super) fn command(settings: &Settings) -> String {
    let Settings { seed, profile, span, without, .. } = settings;
    let mut command = format!("loadtest sim --seed {seed}");
    if SimProfile::All.of(*seed) != *profile {
        command += &format!(" --profile {profile}");
    }
    if !without.is_empty() {
        command += &format!(" --without {}", Faults(without.clone()));
    }
    if *span != Settings::new(*seed, *profile).span {
        command += &format!(" --span {}", duration(*span));
    }
    command + " --verbose"
}

/// A span as the command line takes it: exact.
fn duration(span: Nanos) -> String {
    let text = format!("{}.{:09}", span / SECOND, span % SECOND);
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

/// A span for people, in seconds.
pub(super) fn seconds(span: Nanos) -> f64 {
    Duration::from_nanos(span).as_secs_f64()
}
