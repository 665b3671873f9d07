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
    #[cfg(feature = "planted")]
    planted: Option<castd_sim::Planted>,
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
            #[cfg(feature = "planted")]
            planted: args.planted,
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
            #[cfg(feature = "planted")]
            planted: self.planted,
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
    #[cfg(feature = "planted")]
    if let Some(bug) = settings.planted {
        command += &format!(" --planted {bug:?}");
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

#[cfg(test)]
mod tests {
    use castd_sim::Profile;
    use clap::Parser;

    use super::*;
    use crate::cli::{Cli, Command};

    fn work(words: &str) -> Work {
        let cli = Cli::parse_from(words.split(' '));
        let Command::Sim(args) = cli.command else { panic!("{words}") };
        Work::new(&args).unwrap()
    }

    /// The command that is told gives the very settings it was made of.
    #[test]
    fn a_command_is_its_settings() {
        let commands = [
            "loadtest sim --seed 17 --verbose",
            "loadtest sim --seed 17 --profile disk --verbose",
            "loadtest sim --seed 18446744073709551614 --without 0-4,7 --span 6.2 --verbose",
            "loadtest sim --seed 0 --profile wild --span 0.100000001 --verbose",
        ];
        for words in commands {
            let work = work(words);
            let settings = work.settings(work.seeds.start);
            assert!(settings.verbose && !work.shrinks, "{words}");
            assert_eq!(command(&settings), words);
        }
        let settings = work(commands[2]).settings(3);
        assert_eq!(settings.without, [0, 1, 2, 3, 4, 7].into());
        assert_eq!((settings.span, settings.profile), (62 * SECOND / 10, Profile::Membership));
    }

    #[test]
    fn seeds_and_threads() {
        let work = work("loadtest sim --seeds 1k --from 5 --jobs 3");
        assert_eq!((work.seeds.clone(), work.count(), work.jobs), (5..1005, 1000, 3));
        assert!(work.shrinks);
        assert_eq!(self::work("loadtest sim --seeds 2 --jobs 9").jobs, 2);
        assert!(!self::work("loadtest sim --seeds 2 --no-shrink").shrinks);
        assert!(!self::work("loadtest sim --seed 2 --without 1").shrinks);
    }
}
