//! Works of watchers.

use std::path::Path;
use std::time::Duration;

use super::cluster::Cluster;
use super::contender::Contender;
use super::figures::{Figure, Figures, Row};
use super::stage::{Bench, DRAIN, KEY_BYTES, VALUE_BYTES};
use crate::cli::size;
use crate::driver::{Pace, Plan};
use crate::error::LoadError;
use crate::keys::{KeySpace, Order};
use crate::report::Report;
use crate::work::watch::{self, Scenario, WatchOptions, WatchReport};

/// Streams of a work whose name says nothing of them.
const STREAMS: usize = 100;
/// Puts a second for the watchers of one key.
const WATCHED_RATE: f64 = 50.0;
/// Clients that make these puts: as many as may wait at a time.
const WATCHED_CLIENTS: usize = 64;
/// Events a second over all watchers, where their number is not to matter.
const PACED_EVENTS: f64 = 50_000.0;
/// Clients that put one key as fast as they can: fewest and most.
const FLAT_CLIENTS: (usize, usize) = (4, 64);
/// Watchers that one of them keeps busy.
const FLAT_WATCHERS_A_CLIENT: usize = 16_000;
/// Events they may be ahead of the watchers, for all that is put has to be delivered in the end.
const FLAT_AHEAD_EVENTS: usize = 256_000;
/// And puts at most.
const FLAT_AHEAD_PUTS: usize = 256;
/// Clients that put the watchers' own keys as fast as they can.
const OWN_CLIENTS: usize = 16;
/// Keys that are put while watchers stop.
const SLOW_KEYS: u64 = 100;
/// Puts a second then.
const SLOW_RATE: f64 = 2000.0;
/// Size of their values.
const SLOW_VALUE_BYTES: usize = 1024;
/// Watchers that see all of these puts and do not stop.
const SLOW_OTHERS: usize = 10;
/// How long the others stop.
const SLOW_STOP: Duration = Duration::from_secs(30);
/// Keys of a history.
const PAST_KEYS: u64 = 1000;
/// How long a watcher may take to see it; its rate is that of this time at most.
const PAST_PATIENCE: Duration = Duration::from_secs(60);

/// A work of watchers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum WatchWork {
    /// So many watchers of one key, 50 puts a second.
    FanOut(usize),
    /// The same, and puts as fast as the watchers see them.
    Flat(usize),
    /// The same, and 50,000 events a second.
    Paced(usize),
    /// So many watchers of a key each, and puts as fast as they can, also without watchers.
    Own(usize),
    /// So many watchers are made, of a key each.
    Create(usize),
    /// Watchers at rest, of a key each: so many on each of so many streams.
    Memory {
        /// Streams.
        streams: usize,
        /// Watchers on each.
        watchers: usize,
    },
    /// So many watchers stop for a while.
    Slow(usize),
    /// One watcher from before so many puts.
    Past(u64),
}

impl WatchWork {
    /// Reads what stands behind `watch-` in a work's name.
    ///
    /// # Errors
    /// When it is none of these.
    pub(super) fn parse(rest: &str) -> Result<Self, LoadError> {
        let (kind, number) = rest.rsplit_once('-').unwrap_or(("", rest));
        let count = |text: &str| match size(text) {
            Ok(0) => Err(LoadError::Usage(format!("nothing to do in \"watch-{rest}\""))),
            Ok(count) => Ok(usize::try_from(count).unwrap_or(usize::MAX)),
            Err(text) => Err(LoadError::Usage(text)),
        };
        let unknown = || LoadError::Usage(format!("unknown work \"watch-{rest}\"; see --help"));
        Ok(match kind {
            "" => Self::FanOut(count(number)?),
            "flat" => Self::Flat(count(number)?),
            "paced" => Self::Paced(count(number)?),
            "own" => Self::Own(count(number)?),
            "create" => Self::Create(count(number)?),
            "slow" => Self::Slow(count(number)?),
            "past" => Self::Past(count(number)? as u64),
            "memory" => {
                let (streams, watchers) = number.split_once('x').ok_or_else(unknown)?;
                Self::Memory { streams: count(streams)?, watchers: count(watchers)? }
            }
            _ => return Err(unknown()),
        })
    }

    /// The name, as on the command line.
    pub(super) fn name(self) -> String {
        match self {
            Self::FanOut(watchers) => format!("watch-{watchers}"),
            Self::Flat(watchers) => format!("watch-flat-{watchers}"),
            Self::Paced(watchers) => format!("watch-paced-{watchers}"),
            Self::Own(watchers) => format!("watch-own-{watchers}"),
            Self::Create(watchers) => format!("watch-create-{watchers}"),
            Self::Memory { streams, watchers } => format!("watch-memory-{streams}x{watchers}"),
            Self::Slow(stopped) => format!("watch-slow-{stopped}"),
            Self::Past(history) => format!("watch-past-{history}"),
        }
    }

    /// Runs it on a fresh directory.
    ///
    /// # Errors
    /// When the server does not start, stop or answer.
    pub(super) fn run(
        self,
        contender: &Contender,
        bench: &Bench,
        dir: &Path,
    ) -> Result<Row, LoadError> {
        let mut cluster = Cluster::start(contender, bench.members, dir)?;
        let plan = self.plan(&bench.cluster_plan(&cluster, WATCHED_CLIENTS));
        let options = self.options(&plan)?;
        let alone = match self {
            Self::Own(_) => {
                Some(watch::run(&WatchOptions { watchers: 0, ..options.clone() }, &plan)?)
            }
            _ => None,
        };
        let report = Report { work: self.name(), ..watch::run(&options, &plan)? };
        let leader = cluster.member(cluster.leader()?)?.pid();
        let mut row = Row::of(&contender.name, &report, None).with_roles(&report, leader);
        if let Some(watch) = &report.watch {
            self.add(&mut row.figures, &report, watch, alone.as_ref());
        }
        row.errors += alone.as_ref().map_or(0, Report::faults);
        cluster.terminate()?;
        Ok(row)
    }

    fn watchers(self) -> usize {
        match self {
            Self::FanOut(count)
            | Self::Flat(count)
            | Self::Paced(count)
            | Self::Own(count)
            | Self::Create(count) => count,
            Self::Memory { streams, watchers } => streams.saturating_mul(watchers),
            Self::Slow(_) => SLOW_OTHERS,
            Self::Past(_) => 1,
        }
    }

    fn scenario(self) -> Scenario {
        match self {
            Self::FanOut(_) | Self::Flat(_) | Self::Paced(_) => Scenario::FanOut,
            Self::Own(_) | Self::Create(_) | Self::Memory { .. } => Scenario::OwnKeys,
            Self::Slow(stopped) => Scenario::Slow { keys: SLOW_KEYS, stopped, stop_for: SLOW_STOP },
            Self::Past(history) => {
                Scenario::Past { keys: PAST_KEYS, history, patience: PAST_PATIENCE }
            }
        }
    }

    fn plan(self, plan: &Plan) -> Plan {
        let open = |rate| Plan { pace: Pace::Open { rate }, ..plan.clone() };
        let closed = |clients| Plan { clients, ..plan.clone() };
        match self {
            Self::FanOut(_) | Self::Past(_) => open(WATCHED_RATE),
            Self::Flat(watchers) => closed(flat_clients(watchers)),
            Self::Paced(watchers) => open(PACED_EVENTS / watchers as f64),
            Self::Own(_) => closed(OWN_CLIENTS),
            // Not about puts: one shows that the watchers are there.
            Self::Create(_) | Self::Memory { .. } => {
                Plan { total: Some(1), warmup: Duration::ZERO, ..closed(1) }
            }
            Self::Slow(_) => open(SLOW_RATE),
        }
    }

    fn options(self, plan: &Plan) -> Result<WatchOptions, LoadError> {
        let (scenario, watchers) = (self.scenario(), self.watchers());
        let streams = match self {
            Self::Memory { streams, .. } => streams,
            _ => STREAMS,
        };
        Ok(WatchOptions {
            scenario,
            watchers,
            streams,
            connections: plan.connections,
            space: KeySpace::new("", KEY_BYTES, scenario.keys(watchers), Order::Sequential)?,
            value_bytes: if matches!(self, Self::Slow(_)) { SLOW_VALUE_BYTES } else { VALUE_BYTES },
            ahead: self.ahead(),
            grace: DRAIN,
        })
    }

    /// Puts that not all watchers have seen yet, at most.
    fn ahead(self) -> Option<u64> {
        let Self::Flat(watchers) = self else { return None };
        let puts = FLAT_AHEAD_EVENTS / watchers;
        Some(puts.clamp(flat_clients(watchers), FLAT_AHEAD_PUTS) as u64)
    }

    /// Puts the figures in that this work is about.
    fn add(
        self,
        figures: &mut Figures,
        report: &Report,
        watch: &WatchReport,
        alone: Option<&Report>,
    ) {
        match self {
            Self::FanOut(_) | Self::Flat(_) | Self::Paced(_) => {}
            Self::Own(_) => {
                let alone = alone.map_or(0.0, |alone| alone.rate);
                figures.insert(Figure::PutRate, report.rate);
                figures.insert(Figure::PutRateAlone, alone);
                figures.insert(Figure::PutShare, report.rate / alone.max(1e-9));
                let cpu = report.server.as_ref().map(|server| server.cpu_us_per_call);
                figures.extend(cpu.map(|cpu| (Figure::PutCpuUs, cpu)));
            }
            Self::Create(_) | Self::Memory { .. } => *figures = at_rest(watch),
            Self::Slow(_) => figures.extend(slow(watch)),
            Self::Past(_) => figures.extend(past(watch)),
        }
    }
}

/// Clients that keep so many watchers busy: the fewer watch, the more puts it takes.
fn flat_clients(watchers: usize) -> usize {
    let (fewest, most) = FLAT_CLIENTS;
    (FLAT_WATCHERS_A_CLIENT / watchers.max(1)).clamp(fewest, most)
}

/// What watchers cost when they are made, and at rest.
fn at_rest(watch: &WatchReport) -> Figures {
    let creation = &watch.creation;
    let mut figures = Figures::from([
        (Figure::Rate, creation.per_second),
        (Figure::GeneratorCpuUs, creation.generator_cpu_us),
    ]);
    figures.extend(creation.server_cpu_us.map(|cpu| (Figure::ServerCpuUs, cpu)));
    if let Some(memory) = &watch.memory {
        figures.insert(Figure::AnonBytes, memory.open.anon_bytes as f64);
        figures.insert(Figure::RssBytes, memory.open.rss_bytes as f64);
        figures.insert(Figure::WatcherRssBytes, memory.rss_bytes_per_watcher);
        figures.insert(Figure::WatcherAnonBytes, memory.anon_bytes_per_watcher);
    }
    figures
}

fn slow(watch: &WatchReport) -> Figures {
    let Some(slow) = &watch.slow else { return Figures::new() };
    let mut figures = Figures::from([
        (Figure::P50Ms, slow.during.p50_ms),
        (Figure::P99Ms, slow.during.p99_ms),
        (Figure::P99BeforeMs, slow.before.p99_ms),
        (Figure::P99Growth, slow.during.p99_ms / slow.before.p99_ms.max(1e-3)),
        (Figure::P99AfterMs, slow.after.p99_ms),
        (Figure::MadeUpSeconds, slow.recovery.max_ms / 1e3),
    ]);
    for (figure, bytes) in [
        (Figure::RssBeforeBytes, slow.rss_before_bytes),
        (Figure::RssStoppedBytes, slow.rss_peak_bytes),
        (Figure::RssAfterBytes, slow.rss_after_bytes),
    ] {
        figures.extend(bytes.map(|bytes| (figure, bytes as f64)));
    }
    figures
}

fn past(watch: &WatchReport) -> Figures {
    let Some(past) = &watch.past else { return Figures::new() };
    let mut figures = Figures::from([
        (Figure::Rate, past.events_per_second),
        (Figure::CatchUpSeconds, past.seconds),
        (Figure::Pending, past.pending as f64),
    ]);
    figures.extend(past.server_cpu_us_per_event.map(|cpu| (Figure::ServerCpuUs, cpu)));
    figures
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_reads_the_same_as_it_is_written() {
        for name in [
            "watch-9",
            "watch-flat-1000",
            "watch-paced-7",
            "watch-own-10000",
            "watch-create-5",
            "watch-memory-100x1000",
            "watch-slow-3",
            "watch-past-1000",
        ] {
            let rest = name.strip_prefix("watch-").unwrap();
            assert_eq!(WatchWork::parse(rest).unwrap().name(), name);
        }
        assert_eq!(WatchWork::parse("past-1m").unwrap(), WatchWork::Past(1_000_000));
        assert_eq!([10, 1000, 100_000].map(flat_clients), [64, 16, 4]);
        let ahead = [10, 1000, 10_000, 100_000].map(|count| WatchWork::Flat(count).ahead());
        assert_eq!(ahead, [Some(256), Some(256), Some(25), Some(4)]);
        for rest in ["", "0", "x", "flat", "flat-0", "memory-100", "memory-0x5", "some-3"] {
            assert!(WatchWork::parse(rest).is_err(), "{rest}");
        }
    }
}
