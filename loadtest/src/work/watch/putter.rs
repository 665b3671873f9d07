//! The puts that the watchers wait for.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use castd_proto::etcdserverpb::request_op::Request;
use castd_proto::etcdserverpb::{
    PutRequest, PutResponse, RequestOp, ResponseHeader, TxnRequest, TxnResponse,
};
use rand::SeedableRng;
use rand::rngs::SmallRng;

use super::desk::Counters;
use super::ledger::{PutLog, Stamp};
use super::timing::Timing;
use crate::driver::{Caller, Done, Share, Window, Work};
use crate::grpc::{CallError, Route, Rpc};
use crate::keys::{KeySpace, KeyTable};
use crate::work::put::PUT;
use crate::work::txn::TXN;

/// Between two looks at whether the watchers have come near enough.
const AHEAD_POLL: Duration = Duration::from_millis(1);

/// Puts stamped values under the watched keys.
#[derive(Debug)]
pub(super) struct WatchedPuts {
    /// The watched keys.
    pub(super) space: KeySpace,
    /// Size of a value; the stamp needs some of it.
    pub(super) value_bytes: usize,
    /// Every other write is a transaction that puts so many keys, chosen at random. Without
    /// it each write puts the next key.
    pub(super) txn_keys: Option<usize>,
    /// How far ahead of the watchers the putters may get.
    pub(super) ahead: Option<Ahead>,
    /// The puts of earlier runs on the same keys.
    pub(super) earlier: Puts,
    /// The common clock.
    pub(super) timing: Arc<Timing>,
    /// What is shared with the watchers' threads.
    pub(super) counters: Arc<Counters>,
}

/// A limit on the puts that not all watchers have seen.
#[derive(Debug, Clone, Copy)]
pub(super) struct Ahead {
    /// Puts.
    pub(super) puts: u64,
    /// Watchers, each of which sees every put.
    pub(super) watchers: u64,
}

/// All puts so far.
#[derive(Debug, Clone, Default)]
pub(super) struct Puts {
    /// Key by key.
    pub(super) logs: Vec<PutLog>,
    /// The lowest revision that one of them made.
    pub(super) first_revision: Option<i64>,
}

/// The keys' logs. All putters are on one thread, so that each key's numbers have one source.
#[derive(Debug)]
pub(super) struct PutRoom {
    table: KeyTable,
    puts: RefCell<Puts>,
    calls: Cell<u64>,
    random: RefCell<SmallRng>,
}

/// One putting client.
#[derive(Debug)]
pub(super) struct WatchedPutter {
    room: Rc<PutRoom>,
    timing: Arc<Timing>,
    counters: Arc<Counters>,
    ahead: Option<Ahead>,
    value_bytes: usize,
    txn_keys: Option<usize>,
    put: Route,
    txn: Route,
    rpc: Rpc,
}

impl Puts {
    /// None of these keys has been put.
    pub(super) fn none(keys: u64) -> Self {
        Self { logs: vec![PutLog::default(); keys as usize], first_revision: None }
    }
}

impl Work for WatchedPuts {
    const KINDS: &'static [&'static str] = &["put"];
    type Room = PutRoom;
    type Caller = WatchedPutter;
    type Harvest = Puts;

    fn room(&self, _: Share) -> PutRoom {
        PutRoom {
            table: self.space.table(),
            puts: RefCell::new(self.earlier.clone()),
            calls: Cell::new(0),
            random: RefCell::new(SmallRng::seed_from_u64(self.space.count())),
        }
    }

    fn starts(&self, window: Window) {
        self.timing.set(window);
    }

    fn caller(&self, room: &Rc<PutRoom>, _: usize, rpc: Rpc) -> WatchedPutter {
        WatchedPutter {
            room: Rc::clone(room),
            timing: Arc::clone(&self.timing),
            counters: Arc::clone(&self.counters),
            ahead: self.ahead,
            value_bytes: self.value_bytes,
            txn_keys: self.txn_keys,
            put: rpc.route(PUT),
            txn: rpc.route(TXN),
            rpc,
        }
    }

    fn harvest(&self, room: &PutRoom) -> Puts {
        room.puts.take()
    }
}

impl PutRoom {
    /// The keys of the next write.
    fn next_keys(&self, txn_keys: Option<usize>) -> Vec<u32> {
        let call = self.calls.replace(self.calls.get() + 1);
        let keys = self.puts.borrow().logs.len();
        match txn_keys {
            None => vec![(call % keys as u64) as u32],
            Some(wanted) => {
                let wanted = if call.is_multiple_of(2) { 1 } else { wanted.min(keys) };
                let random = &mut *self.random.borrow_mut();
                let chosen = rand::seq::index::sample(random, keys, wanted);
                chosen.into_iter().map(|key| key as u32).collect()
            }
        }
    }

    /// The put of one key, and its stamp.
    fn next_put(&self, key: u32, sent_ns: u64, value_bytes: usize) -> (Stamp, PutRequest) {
        let number = self.puts.borrow_mut().logs[key as usize].issue();
        let stamp = Stamp { key, number, sent_ns };
        let (key, value) = (self.table.key(key.into()), stamp.value(value_bytes));
        (stamp, PutRequest { key, value, ..PutRequest::default() })
    }

    /// Writes down that these puts have been acknowledged.
    fn acknowledged(&self, stamps: &[Stamp], header: Option<&ResponseHeader>) {
        let mut puts = self.puts.borrow_mut();
        for stamp in stamps {
            puts.logs[stamp.key as usize].acknowledged.insert(stamp.number);
        }
        let revision = header.map_or(i64::MAX, |header| header.revision);
        puts.first_revision = Some(puts.first_revision.map_or(revision, |r| r.min(revision)));
    }
}

impl WatchedPutter {
    /// Waits until the watchers have come near enough.
    async fn keep_near(&self) {
        let Some(ahead) = self.ahead else { return };
        loop {
            let seen = self.counters.received.load(Ordering::Relaxed) / ahead.watchers.max(1);
            if self.counters.acknowledged.load(Ordering::Relaxed) < seen + ahead.puts {
                return;
            }
            tokio::time::sleep(AHEAD_POLL).await;
        }
    }
}

impl Caller for WatchedPutter {
    async fn call(&mut self) -> Result<Done, CallError> {
        self.keep_near().await;
        let keys = self.room.next_keys(self.txn_keys);
        let now = self.timing.now();
        let next = |key| self.room.next_put(key, now, self.value_bytes);
        let (stamps, mut puts): (Vec<Stamp>, Vec<PutRequest>) = keys.into_iter().map(next).unzip();
        let header = match puts.len() {
            1 => {
                let put = puts.remove(0);
                self.rpc.unary::<_, PutResponse>(&self.put, &put).await?.header
            }
            _ => {
                let op = |put| RequestOp { request: Some(Request::RequestPut(put)) };
                let success = puts.into_iter().map(op).collect();
                let txn = TxnRequest { success, ..TxnRequest::default() };
                self.rpc.unary::<_, TxnResponse>(&self.txn, &txn).await?.header
            }
        };
        self.room.acknowledged(&stamps, header.as_ref());
        self.counters.acknowledged.fetch_add(stamps.len() as u64, Ordering::Relaxed);
        Ok(Done { kind: 0, items: stamps.len() as u64 })
    }

    fn rpc(&self) -> &Rpc {
        &self.rpc
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::keys::Order;

    fn room(keys: u64) -> PutRoom {
        let space = KeySpace::new("", 4, keys, Order::Sequential).unwrap();
        PutRoom {
            table: space.table(),
            puts: RefCell::new(Puts::none(keys)),
            calls: Cell::new(0),
            random: RefCell::new(SmallRng::seed_from_u64(1)),
        }
    }

    #[test]
    fn keys_come_in_turn_or_several_different_ones_at_once() {
        let room = room(3);
        let in_turn: Vec<_> = (0..4).map(|_| room.next_keys(None)).collect();
        assert_eq!(in_turn, [[0], [1], [2], [0]]);
        let lengths: Vec<_> = (0..4).map(|_| room.next_keys(Some(9)).len()).collect();
        assert_eq!(lengths, [1, 3, 1, 3]);
        let mut all = room.next_keys(Some(9));
        all.extend(room.next_keys(Some(9)));
        all.sort_unstable();
        all.dedup();
        assert_eq!(all, [0, 1, 2]);
    }

    #[test]
    fn puts_are_numbered_on_each_key_and_the_first_revision_is_kept() {
        let room = room(3);
        let numbers = [1, 1, 2].map(|key| room.next_put(key, 0, 0).0.number);
        assert_eq!(numbers, [0, 1, 0]);
        let header = |revision| ResponseHeader { revision, ..ResponseHeader::default() };
        let stamp = Stamp { key: 1, number: 1, sent_ns: 0 };
        room.acknowledged(&[stamp], Some(&header(9)));
        room.acknowledged(&[Stamp { number: 0, ..stamp }], Some(&header(8)));
        let puts = room.puts.take();
        assert_eq!(puts.first_revision, Some(8));
        assert_eq!(puts.logs[1].acknowledged.len(), 2);
    }
}
