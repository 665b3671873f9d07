//! The leader goes while others write: how long nobody can, and whether anything is lost.

use std::collections::HashMap;
use std::path::Path;
use std::time::{Duration, Instant};

use castd_proto::etcdserverpb::{RangeRequest, RangeResponse};
use rustix::process::Signal;

use super::ask::block_on;
use super::cluster::Cluster;
use super::contender::Contender;
use super::figures::{Figure, Figures, Row};
use super::server::problem;
use super::stage::{Bench, VALUE_BYTES};
use super::writers::{Ack, Journal, Writers};
use crate::driver::Schedule;
use crate::error::LoadError;
use crate::grpc::{Endpoint, Link, Rpc};
use crate::keys::{KeySpace, Order, Values};
use crate::work::range::{RANGE, next_page};

/// Writes before the leader goes. The first of these seconds does not count.
const BEFORE: Duration = Duration::from_secs(3);
/// Left out of that: connections are new, and members have just started.
const SETTLING: Duration = Duration::from_secs(1);
/// Writes go on for so long after: several election timeouts.
const AFTER: Duration = Duration::from_secs(6);
/// Answers are waited for longer than a server may take for them: five seconds and two election
/// timeouts.
const DRAIN: Duration = Duration::from_secs(12);
/// What the written keys start with.
const PREFIX: &str = "w/";
/// Size of a written key.
const KEY_BYTES: usize = 12;
/// Writes there are keys for.
const WRITES_MAX: u64 = 10_000_000;
/// Keys a page when they are read back.
const PAGE_KEYS: i64 = 5000;

/// How the leader goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Blow {
    /// With no chance to do anything about it.
    Kill,
    /// Asked to.
    Stop,
}

/// The work.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Failover {
    /// How the leader goes.
    pub(super) blow: Blow,
}

/// What the writers saw.
struct Observed {
    journal: Journal,
    started: Instant,
    struck: Instant,
    end: Instant,
}

/// What was found of the writes when all was over.
#[derive(Debug, Default, PartialEq, Eq)]
struct Audit {
    /// Acknowledged, and not there as acknowledged, on one member at least.
    lost: u64,
    /// Failed, and there.
    applied: u64,
}

impl Failover {
    fn name(self) -> &'static str {
        match self.blow {
            Blow::Kill => "failover-kill",
            Blow::Stop => "failover-stop",
        }
    }

    fn signal(self) -> Signal {
        match self.blow {
            Blow::Kill => Signal::KILL,
            Blow::Stop => Signal::TERM,
        }
    }

    /// Runs it on fresh directories.
    ///
    /// # Errors
    /// When a member does not start, stop or answer.
    pub(super) fn run(
        self,
        contender: &Contender,
        bench: &Bench,
        dir: &Path,
    ) -> Result<Row, LoadError> {
        let mut cluster = Cluster::start(contender, bench.members, dir)?;
        let leader = cluster.leader()?;
        let space = KeySpace::new(PREFIX, KEY_BYTES, WRITES_MAX, Order::Sequential)?;
        let observed = block_on(self.strike(&cluster, leader, &space, bench.rate))?;
        cluster.await_end(leader)?;
        cluster.launch(leader)?;
        cluster.await_ready(leader)?;
        let audit = audit(&observed.journal, &space, &cluster.endpoints())?;
        let restarted = cluster.member(leader)?.ready;
        cluster.terminate()?;
        Ok(self.row(&contender.name, &observed, &audit, restarted))
    }

    async fn strike(
        self,
        cluster: &Cluster,
        leader: usize,
        space: &KeySpace,
        rate: f64,
    ) -> Result<Observed, LoadError> {
        let values = Values::new(VALUE_BYTES);
        let writers = Writers::connect(cluster.endpoints(), space.clone(), values).await?;
        let started = Instant::now();
        let end = started + BEFORE + AFTER;
        let writing =
            tokio::task::spawn_local(writers.run(Schedule::new(started, rate), end, DRAIN));
        tokio::time::sleep_until((started + BEFORE).into()).await;
        let struck = Instant::now();
        cluster.member(leader)?.signal(self.signal())?;
        let journal = writing.await.map_err(|_| LoadError::Thread)??;
        Ok(Observed { journal, started, struck, end })
    }

    fn row(self, server: &str, observed: &Observed, audit: &Audit, ready: Duration) -> Row {
        let Observed { journal, started, struck, end } = observed;
        let milliseconds = |time: Duration| time.as_secs_f64() * 1e3;
        let before = journal.longest_gap(*started + SETTLING, *struck);
        let resumed = journal.acks.last().is_some_and(|ack| ack.at > *struck);
        let figures = Figures::from([
            (Figure::GapBeforeMs, milliseconds(before)),
            (Figure::GapMs, milliseconds(journal.longest_gap(*struck, *end))),
            (Figure::SlowestMs, milliseconds(journal.slowest)),
            (Figure::Failed, journal.failed.len() as f64),
            (Figure::Applied, audit.applied as f64),
            (Figure::Lost, audit.lost as f64),
            (Figure::ReadySeconds, ready.as_secs_f64()),
        ]);
        Row {
            round: 0,
            work: self.name().to_owned(),
            server: server.to_owned(),
            clients: None,
            figures,
            // Failed writes belong to the event; lost ones never do, and it has to end.
            errors: audit.lost + u64::from(!resumed),
            failures: journal.failures.clone(),
        }
    }
}

/// Compares the journal with what each member has.
fn audit(journal: &Journal, space: &KeySpace, endpoints: &[Endpoint]) -> Result<Audit, LoadError> {
    let mut total = Audit::default();
    for endpoint in endpoints {
        let found = block_on(read_back(space, endpoint))?;
        let audit = compare(journal, &found);
        total.lost = total.lost.max(audit.lost);
        total.applied = total.applied.max(audit.applied);
    }
    Ok(total)
}

fn compare(journal: &Journal, found: &HashMap<u64, i64>) -> Audit {
    let is_lost = |ack: &&Ack| found.get(&ack.number) != Some(&ack.revision);
    let applied = journal.failed.iter().filter(|number| found.contains_key(number));
    Audit {
        lost: journal.acks.iter().filter(is_lost).count() as u64,
        applied: applied.count() as u64,
    }
}

/// Numbers of all writes that a member has, with their revisions.
async fn read_back(space: &KeySpace, endpoint: &Endpoint) -> Result<HashMap<u64, i64>, LoadError> {
    let failed = |source| LoadError::Call { what: "cannot read the writes back", source };
    let mut rpc = Rpc::new(&Link::connect(endpoint.clone()).await.map_err(LoadError::Connect)?);
    let route = rpc.route(RANGE);
    let (start, range_end) = space.range();
    let mut key = start.clone();
    let mut found = HashMap::new();
    loop {
        let request = RangeRequest {
            key,
            range_end: range_end.clone(),
            limit: PAGE_KEYS,
            keys_only: true,
            ..RangeRequest::default()
        };
        let answer: RangeResponse = rpc.unary(&route, &request).await.map_err(failed)?;
        for kv in &answer.kvs {
            let number = space.index(&kv.key).ok_or_else(|| {
                problem(&endpoint.to_string(), &format!("a key nobody wrote: {:?}", kv.key))
            })?;
            found.insert(number, kv.mod_revision);
        }
        if !answer.more {
            return Ok(found);
        }
        key = next_page(&answer, &start).map_err(failed)?;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_acknowledged_has_to_be_there_as_it_was() {
        let at = Instant::now();
        let ack = |number, revision| Ack { number, revision, at };
        let journal = Journal {
            acks: vec![ack(0, 2), ack(1, 3), ack(2, 4), ack(3, 5)],
            failed: vec![4, 5],
            ..Journal::default()
        };
        let all = HashMap::from([(0, 2), (1, 3), (2, 4), (3, 5)]);
        assert_eq!(compare(&journal, &all), Audit { lost: 0, applied: 0 });
        let some = HashMap::from([(0, 2), (1, 9), (3, 5), (5, 6)]);
        assert_eq!(compare(&journal, &some), Audit { lost: 2, applied: 1 });
    }
}
