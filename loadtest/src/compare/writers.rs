//! Writers that go on while members come and go, and remember every answer.
//!
//! Owns: one connection to each member, made anew when it breaks, and the journal.
//! Receives: the moments at which writes fall due, the same whatever the cluster does.
//! Sends: puts of keys that are written once, each to the member whose turn it is or, where
//! that one takes no connection, to the next. Nothing is sent twice.
//! Never does: waits for one write before the next one goes out. A write that the cluster has
//! lost sight of must not hide that it serves others again.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use castd_proto::etcdserverpb::PutResponse;
use rand::SeedableRng;
use rand::rngs::SmallRng;
use tokio::task::JoinSet;

use crate::driver::{Schedule, Slots};
use crate::error::LoadError;
use crate::grpc::{CallError, Endpoint, Link, Rpc};
use crate::keys::{KeySpace, Values};
use crate::work::put::{PUT, put};

/// The most writes in flight: what falls due beyond them is left out.
const IN_FLIGHT_MAX: usize = 10_000;
/// Between two looks at whether a connection is to be made anew.
const REVIVE_POLL: Duration = Duration::from_millis(10);

/// A write that was acknowledged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Ack {
    /// Number of the write.
    pub(super) number: u64,
    /// The revision it was given.
    pub(super) revision: i64,
    /// When the answer came.
    pub(super) at: Instant,
}

/// What became of every write.
#[derive(Debug, Default)]
pub(super) struct Journal {
    /// Acknowledged writes, in the order of the answers.
    pub(super) acks: Vec<Ack>,
    /// The longest that a write waited for its answer, good or bad, from when it was due.
    pub(super) slowest: Duration,
    /// Numbers of writes that failed, or were never answered.
    pub(super) failed: Vec<u64>,
    /// The same by text.
    pub(super) failures: BTreeMap<String, u64>,
}

impl Journal {
    fn note(&mut self, number: u64, due: Instant, answer: Result<PutResponse, CallError>) {
        let at = Instant::now();
        self.slowest = self.slowest.max(at.saturating_duration_since(due));
        match answer.map(|response| response.header) {
            Ok(Some(header)) => {
                self.acks.push(Ack { number, revision: header.revision, at });
            }
            Ok(None) => self.fail(number, "an answer without a header".into()),
            Err(error) => self.fail(number, error.to_string()),
        }
    }

    fn fail(&mut self, number: u64, text: String) {
        self.failed.push(number);
        *self.failures.entry(text).or_default() += 1;
    }

    /// The longest time without an acknowledgement that lies between the last one up to `from`
    /// and `until`.
    pub(super) fn longest_gap(&self, from: Instant, until: Instant) -> Duration {
        let before = self.acks.iter().map(|ack| ack.at).take_while(|at| *at <= from).last();
        let within = self.acks.iter().map(|ack| ack.at).filter(|at| (from..until).contains(at));
        let mut last = before.unwrap_or(from);
        let mut longest = Duration::ZERO;
        for at in within.chain([until]) {
            longest = longest.max(at.saturating_duration_since(last));
            last = at;
        }
        longest
    }
}

/// The writers of one run.
#[derive(Debug)]
pub(super) struct Writers {
    links: Vec<Rc<Link>>,
    space: KeySpace,
    values: Values,
    journal: RefCell<Journal>,
}

impl Writers {
    /// Connects to every member.
    ///
    /// # Errors
    /// When one cannot be reached.
    pub(super) async fn connect(
        endpoints: Vec<Endpoint>,
        space: KeySpace,
        values: Values,
    ) -> Result<Rc<Self>, LoadError> {
        let mut links = Vec::new();
        for endpoint in endpoints {
            links.push(Link::connect(endpoint).await.map_err(LoadError::Connect)?);
        }
        Ok(Rc::new(Self { links, space, values, journal: RefCell::default() }))
    }

    /// Writes as `schedule` says until `end`, and waits for answers no longer than `drain`
    /// after that. Must run on a local runtime.
    ///
    /// # Errors
    /// When the kernel refuses a timer.
    pub(super) async fn run(
        self: Rc<Self>,
        schedule: Schedule,
        end: Instant,
        drain: Duration,
    ) -> Result<Journal, LoadError> {
        let mut keepers = JoinSet::new();
        for link in &self.links {
            keepers.spawn_local(keep_alive(Rpc::new(link)));
        }
        let slots = Slots::new(schedule);
        let clock = Rc::clone(&slots);
        let clock = tokio::task::spawn_local(async move { clock.keep_time(end).await });
        let mut flight = JoinSet::new();
        let mut number = 0;
        while let Some(due) = slots.next().await {
            while flight.try_join_next().is_some() {}
            if flight.len() < IN_FLIGHT_MAX && number < self.space.count() {
                flight.spawn_local(Rc::clone(&self).write(number, due));
                number += 1;
            }
        }
        clock.await.map_err(|_| LoadError::Thread)?.map_err(LoadError::Runtime)?;
        let all = async { while flight.join_next().await.is_some() {} };
        // Those that are late are seen below: they are in no list.
        let _ = tokio::time::timeout_at((end + drain).into(), all).await;
        let mut journal = self.journal.take();
        for late in unanswered(&journal, number) {
            journal.fail(late, "no answer before the end of the run".into());
        }
        Ok(journal)
    }

    async fn write(self: Rc<Self>, number: u64, due: Instant) {
        let answer = self.put(number).await;
        self.journal.borrow_mut().note(number, due, answer);
    }

    async fn put(&self, number: u64) -> Result<PutResponse, CallError> {
        let value = self.values.value(&mut SmallRng::seed_from_u64(number));
        let key: Bytes = self.space.key(number);
        let first = usize::try_from(number).unwrap_or(0);
        let mut refused = CallError::Connection("no member".into());
        for turn in 0..self.links.len() {
            let mut rpc = Rpc::new(&self.links[(first + turn) % self.links.len()]);
            let route = rpc.route(PUT);
            match rpc.usable().await {
                Ok(()) => return put(&mut rpc, &route, key, value).await,
                Err(error) => refused = error,
            }
        }
        Err(refused)
    }
}

/// Has a connection made anew whenever a write has found it broken.
async fn keep_alive(rpc: Rpc) {
    loop {
        rpc.revive().await;
        tokio::time::sleep(REVIVE_POLL).await;
    }
}

/// Numbers below `count` that neither succeeded nor failed.
fn unanswered(journal: &Journal, count: u64) -> Vec<u64> {
    let acked = journal.acks.iter().map(|ack| ack.number);
    let mut answered: Vec<u64> = acked.chain(journal.failed.iter().copied()).collect();
    answered.sort_unstable();
    (0..count).filter(|number| answered.binary_search(number).is_err()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    fn journal(start: Instant, acks: &[u64]) -> Journal {
        let ack = |(number, at): (usize, &u64)| Ack {
            number: number as u64,
            revision: 0,
            at: start + ms(*at),
        };
        Journal { acks: acks.iter().enumerate().map(ack).collect(), ..Journal::default() }
    }

    #[test]
    fn a_gap_counts_from_the_last_answer_before_the_event() {
        let start = Instant::now();
        let journal = journal(start, &[0, 400, 500, 900, 910, 1000]);
        let gap = |from, until| journal.longest_gap(start + ms(from), start + ms(until));
        assert_eq!(gap(600, 1000), ms(400), "from 500 to 900");
        assert_eq!(gap(900, 1000), ms(90));
        assert_eq!(gap(900, 3000), ms(2000), "nothing came any more");
        assert_eq!(gap(0, 600), ms(400));
    }

    #[test]
    fn without_any_answer_all_is_a_gap() {
        let start = Instant::now();
        assert_eq!(journal(start, &[]).longest_gap(start, start + ms(70)), ms(70));
    }

    #[test]
    fn writes_without_an_answer_are_found() {
        let mut journal = journal(Instant::now(), &[1, 2, 3]);
        journal.fail(5, "x".into());
        assert_eq!(unanswered(&journal, 7), [3, 4, 6]);
    }
}
