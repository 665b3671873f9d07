//! Options of `watch`.

use std::num::NonZeroUsize;
use std::time::Duration;

use clap::{Args, ValueEnum};

use super::options::{LoadArgs, OutputArgs, ValueArgs};
use super::parse::{duration, size};
use crate::error::LoadError;
use crate::work::watch::Scenario;

/// Watched keys of the scenarios with many.
const KEYS: u64 = 1000;
/// Watched keys where watchers stop: each of those sees one put in so many.
const SLOW_KEYS: u64 = 100;
/// Keys in each transaction.
const TXN_KEYS: usize = 4;
/// Watchers that stop.
const STOPPED: usize = 1000;
/// How long they stop.
const STOP_TIME: Duration = Duration::from_secs(30);
/// Mean time between two cuts of a stream.
const CUT_TIME: Duration = Duration::from_secs(1);
/// Puts before the watchers.
const HISTORY: u64 = 1_000_000;
/// How long the watchers may take to see them.
const PATIENCE: Duration = Duration::from_secs(300);

/// Who watches what.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum ScenarioKind {
    /// All watch one key.
    FanOut,
    /// Each watches a key of its own; the keys are put in turn.
    OwnKeys,
    /// Keys, prefixes of several lengths, ranges and an open end, all overlapping; every other
    /// write is a transaction.
    Mixed,
    /// All watch all keys; further watchers stop reading for a while.
    Slow,
    /// As mixed; streams and connections are cut, and watchers go on from where they were.
    Resume,
    /// All watch all keys, from before a history that is written first.
    Past,
}

/// Options of `watch`. The load options are those of the putters.
#[derive(Debug, Clone, Args)]
pub(crate) struct WatchArgs {
    /// Who watches what.
    #[arg(long, value_enum, default_value = "fan-out")]
    pub(crate) scenario: ScenarioKind,
    /// Watchers.
    #[arg(long, value_parser = size, default_value = "1000")]
    pub(crate) watchers: u64,
    /// Streams the watchers share, on --connections; the putters have as many connections of
    /// their own.
    #[arg(long, default_value = "100")]
    pub(crate) streams: NonZeroUsize,
    /// Watched keys (mixed, resume, past: 1000; slow: 100).
    #[arg(long, value_parser = size)]
    pub(crate) keys: Option<u64>,
    /// Keys in each transaction; 1 for plain puts alone (mixed, resume: 4).
    #[arg(long)]
    pub(crate) txn_keys: Option<NonZeroUsize>,
    /// Watchers that stop reading, each of one key, each on a stream of its own with windows as
    /// small as a Go client's, on connections of their own (slow: 1000).
    #[arg(long, value_parser = size)]
    pub(crate) stopped: Option<u64>,
    /// How long they do not read. Before and after it --duration is measured (slow: 30s).
    #[arg(long, value_parser = duration)]
    pub(crate) stop_for: Option<Duration>,
    /// Mean time between two cuts of a stream; one in four takes its connection along
    /// (resume: 1s).
    #[arg(long, value_parser = duration)]
    pub(crate) cut_every: Option<Duration>,
    /// Puts that are written before the watchers, which begin at the first one (past: 1m).
    #[arg(long, value_parser = size)]
    pub(crate) history: Option<u64>,
    /// How long these are waited for, before puts go on. With some still to come then, none is
    /// called missing (past: 5m).
    #[arg(long, value_parser = duration)]
    pub(crate) patience: Option<Duration>,
    /// Putters wait when so many puts have not been seen by all watchers (fan-out, past).
    #[arg(long, value_parser = size)]
    pub(crate) ahead: Option<u64>,
    /// How long events are waited for after the last put.
    #[arg(long, value_parser = duration, default_value = "10s")]
    pub(crate) grace: Duration,
    /// What every key starts with.
    #[arg(long, default_value = "watch/")]
    pub(crate) key_prefix: String,
    #[command(flatten)]
    pub(crate) load: LoadArgs,
    #[command(flatten)]
    pub(crate) values: ValueArgs,
    #[command(flatten)]
    pub(crate) output: OutputArgs,
}

impl WatchArgs {
    /// The scenario these options describe.
    ///
    /// # Errors
    /// When an option is given that the scenario has no use for.
    pub(crate) fn scenario(&self) -> Result<Scenario, LoadError> {
        use ScenarioKind::{FanOut, Mixed, OwnKeys, Past, Resume, Slow};
        let kind = self.scenario;
        for (name, is_given, users) in [
            ("keys", self.keys.is_some(), &[Mixed, Resume, Slow, Past][..]),
            ("txn-keys", self.txn_keys.is_some(), &[Mixed, Resume]),
            ("stopped", self.stopped.is_some(), &[Slow]),
            ("stop-for", self.stop_for.is_some(), &[Slow]),
            ("cut-every", self.cut_every.is_some(), &[Resume]),
            ("history", self.history.is_some(), &[Past]),
            ("patience", self.patience.is_some(), &[Past]),
            ("ahead", self.ahead.is_some(), &[FanOut, Past]),
        ] {
            if is_given && !users.contains(&kind) {
                return Err(LoadError::Usage(format!("--{name} is of no use in this scenario")));
            }
        }
        let keys = self.keys.unwrap_or(if kind == Slow { SLOW_KEYS } else { KEYS });
        let txn_keys = self.txn_keys.map_or(TXN_KEYS, NonZeroUsize::get);
        Ok(match kind {
            FanOut => Scenario::FanOut,
            OwnKeys => Scenario::OwnKeys,
            Mixed => Scenario::Mixed { keys, txn_keys },
            Resume => {
                let cut_every = self.cut_every.unwrap_or(CUT_TIME);
                Scenario::Resume { keys, txn_keys, cut_every }
            }
            Slow => {
                let stopped = self.stopped.map_or(STOPPED, |stopped| stopped as usize);
                Scenario::Slow { keys, stopped, stop_for: self.stop_for.unwrap_or(STOP_TIME) }
            }
            Past => Scenario::Past {
                keys,
                history: self.history.unwrap_or(HISTORY),
                patience: self.patience.unwrap_or(PATIENCE),
            },
        })
    }
}
