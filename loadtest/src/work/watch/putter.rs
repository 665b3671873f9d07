//! The puts that the watchers wait for.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use super::ledger::{PutLog, Stamp};
use crate::driver::{Caller, Done, Share, Window, Work};
use crate::grpc::{CallError, Route, Rpc};
use crate::keys::{KeySpace, KeyTable};
use crate::work::put::{PUT, put};

/// The common clock of putters and watchers, and the window in which events count.
#[derive(Debug)]
pub(super) struct Timing {
    /// Moments in values count from here.
    pub(super) epoch: Instant,
    begin_ns: AtomicU64,
    end_ns: AtomicU64,
}

impl Timing {
    /// A clock whose window is not known yet.
    pub(super) fn new() -> Arc<Self> {
        Arc::new(Self {
            epoch: Instant::now(),
            begin_ns: AtomicU64::new(u64::MAX),
            end_ns: AtomicU64::new(u64::MAX),
        })
    }

    /// Makes the window known.
    fn set(&self, window: Window) {
        let since_epoch = |moment: Instant| nanoseconds(moment.duration_since(self.epoch));
        self.begin_ns.store(since_epoch(window.begin), Ordering::Relaxed);
        self.end_ns.store(since_epoch(window.end), Ordering::Relaxed);
    }

    /// Whether a moment (since the epoch) lies in the window.
    pub(super) fn counts(&self, moment: Duration) -> bool {
        let moment = nanoseconds(moment);
        moment >= self.begin_ns.load(Ordering::Relaxed)
            && moment <= self.end_ns.load(Ordering::Relaxed)
    }
}

fn nanoseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

/// Puts stamped values under the watched keys, one key after the other.
#[derive(Debug)]
pub(super) struct WatchedPuts {
    /// The watched keys.
    pub(super) space: KeySpace,
    /// Size of a value; the stamp needs some of it.
    pub(super) value_bytes: usize,
    /// The common clock.
    pub(super) timing: Arc<Timing>,
}

/// The keys' logs. All putters are on one thread, so that each key's numbers have one source.
#[derive(Debug)]
pub(super) struct PutRoom {
    table: KeyTable,
    logs: RefCell<Vec<PutLog>>,
    next: Cell<usize>,
}

/// One putting client.
#[derive(Debug)]
pub(super) struct WatchedPutter {
    room: Rc<PutRoom>,
    timing: Arc<Timing>,
    value_bytes: usize,
    route: Route,
    rpc: Rpc,
}

impl Work for WatchedPuts {
    const KINDS: &'static [&'static str] = &["put"];
    type Room = PutRoom;
    type Caller = WatchedPutter;
    type Harvest = Vec<PutLog>;

    fn room(&self, _: Share) -> PutRoom {
        PutRoom {
            table: self.space.table(),
            logs: RefCell::new(vec![PutLog::default(); self.space.count() as usize]),
            next: Cell::new(0),
        }
    }

    fn starts(&self, window: Window) {
        self.timing.set(window);
    }

    fn caller(&self, room: &Rc<PutRoom>, _: usize, rpc: Rpc) -> WatchedPutter {
        WatchedPutter {
            room: Rc::clone(room),
            timing: Arc::clone(&self.timing),
            value_bytes: self.value_bytes,
            route: rpc.route(PUT),
            rpc,
        }
    }

    fn harvest(&self, room: &PutRoom) -> Vec<PutLog> {
        room.logs.take()
    }
}

impl Caller for WatchedPutter {
    async fn call(&mut self) -> Result<Done, CallError> {
        let index = self.room.next.get();
        let number = {
            let mut logs = self.room.logs.borrow_mut();
            self.room.next.set((index + 1) % logs.len());
            logs[index].issue()
        };
        let key = self.room.table.key(index as u64);
        let value = Stamp { number, sent: self.timing.epoch.elapsed() }.value(self.value_bytes);
        put(&mut self.rpc, &self.route, key, value).await?;
        self.room.logs.borrow_mut()[index].acknowledged.insert(number);
        Ok(Done::one(0))
    }

    fn rpc(&self) -> &Rpc {
        &self.rpc
    }
}
