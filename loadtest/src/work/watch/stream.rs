//! The watch streams of one thread.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::SyncSender;
use std::time::Instant;

use castd_proto::etcdserverpb::watch_request::RequestUnion;
use castd_proto::etcdserverpb::{WatchCreateRequest, WatchRequest, WatchResponse};
use tokio::runtime::{Builder, LocalOptions};
use tokio::sync::oneshot;

use super::ledger::{Account, Stamp};
use super::putter::Timing;
use crate::driver::Plan;
use crate::error::LoadError;
use crate::grpc::{CallError, Inbound, Link, Outbound, Rpc};
use crate::keys::KeySpace;
use crate::latency::Latencies;

/// The method's path.
const WATCH: &str = "/etcdserverpb.Watch/Watch";

/// What the threads tell while they run.
#[derive(Debug, Default)]
pub(super) struct Counters {
    /// Watchers the server has confirmed.
    pub(super) created: AtomicU64,
    /// New events received, all watchers together.
    pub(super) received: AtomicU64,
}

/// The watch streams one thread is to hold.
pub(super) struct Streams {
    /// Where to connect, and how many connections there are.
    pub(super) plan: Plan,
    /// Which share of the streams: the thread's number.
    pub(super) thread: usize,
    /// Streams, over all threads.
    pub(super) streams: usize,
    /// Watchers, over all threads.
    pub(super) watchers: usize,
    /// The watched keys: one, or one for each watcher.
    pub(super) space: KeySpace,
    /// The common clock.
    pub(super) timing: Arc<Timing>,
    /// Shared with all threads.
    pub(super) counters: Arc<Counters>,
    /// Told once, when all streams are open or one cannot be.
    pub(super) ready: SyncSender<Result<(), LoadError>>,
    /// Comes when enough has been seen.
    pub(super) stop: oneshot::Receiver<()>,
}

/// What a thread's watchers saw.
#[derive(Debug)]
pub(super) struct Seen {
    /// Accounts, each with the index of the key it is about.
    pub(super) accounts: Vec<(u64, Account)>,
    /// From a put's sending to the arrival of its event, for puts in the window.
    pub(super) latencies: Latencies,
    /// Events that arrived in the window.
    pub(super) events_in_window: u64,
    /// Streams that broke and watchers that were cancelled, by reason.
    pub(super) errors: BTreeMap<String, u64>,
}

impl Streams {
    /// Opens the streams and reads them until told to stop.
    ///
    /// # Errors
    /// When the server cannot be reached.
    pub(super) fn run(self) -> Result<Seen, LoadError> {
        let runtime = Builder::new_current_thread()
            .enable_all()
            .build_local(LocalOptions::default())
            .map_err(LoadError::Runtime)?;
        runtime.block_on(self.watch())
    }

    async fn watch(self) -> Result<Seen, LoadError> {
        let seen = Rc::new(RefCell::new(Seen {
            accounts: Vec::new(),
            latencies: Latencies::new(),
            events_in_window: 0,
            errors: BTreeMap::new(),
        }));
        match self.open_all(&seen).await {
            Ok(()) => self.ready.send(Ok(())).map_err(|_| LoadError::Thread)?,
            Err(error) => {
                // The starter reports what it hears here.
                let _ = self.ready.send(Err(error));
                return Err(LoadError::Thread);
            }
        }
        // A starter that has gone is a reason to stop as well.
        let _ = self.stop.await;
        let seen = &mut *seen.borrow_mut();
        Ok(Seen {
            accounts: std::mem::take(&mut seen.accounts),
            latencies: seen.latencies.clone(),
            events_in_window: seen.events_in_window,
            errors: std::mem::take(&mut seen.errors),
        })
    }

    async fn open_all(&self, seen: &Rc<RefCell<Seen>>) -> Result<(), LoadError> {
        for connection in self.plan.connections_of(self.thread) {
            let endpoint = self.plan.endpoint_of(connection).clone();
            let link = Link::connect(endpoint).await.map_err(LoadError::Connect)?;
            for stream in (connection..self.streams).step_by(self.plan.connections) {
                let opened = self.open(Rpc::new(&link), stream, seen).await;
                opened.map_err(|source| LoadError::Call { what: "cannot watch", source })?;
            }
        }
        Ok(())
    }

    /// Opens one stream with its share of the watchers, and starts the task that reads it.
    async fn open(
        &self,
        mut rpc: Rpc,
        stream: usize,
        seen: &Rc<RefCell<Seen>>,
    ) -> Result<(), CallError> {
        let route = rpc.route(WATCH);
        let (mut outbound, inbound) = rpc.open::<WatchResponse>(&route).await?;
        let first = seen.borrow().accounts.len();
        for watcher in (stream..self.watchers).step_by(self.streams) {
            let key = watcher as u64 % self.space.count();
            let accounts = &mut seen.borrow_mut().accounts;
            accounts.push((key, Account::default()));
            let watch_id = (accounts.len() - first) as i64;
            let key = self.space.key(key);
            let create = WatchCreateRequest { key, watch_id, ..WatchCreateRequest::default() };
            let union = RequestUnion::CreateRequest(create);
            outbound.send(&WatchRequest { request_union: Some(union) })?;
        }
        let reader = Reader {
            _outbound: outbound,
            inbound,
            first,
            seen: Rc::clone(seen),
            timing: Arc::clone(&self.timing),
            counters: Arc::clone(&self.counters),
        };
        tokio::task::spawn_local(reader.read());
        Ok(())
    }
}

/// Reads one stream.
struct Reader {
    /// Kept, for the server ends the stream when its client ends its half.
    _outbound: Outbound,
    inbound: Inbound<WatchResponse>,
    /// The account of this stream's first watcher.
    first: usize,
    seen: Rc<RefCell<Seen>>,
    timing: Arc<Timing>,
    counters: Arc<Counters>,
}

impl Reader {
    async fn read(mut self) {
        let ended = loop {
            match self.inbound.next().await {
                Ok(Some(response)) => self.take(&response),
                Ok(None) => break "the server ended a watch stream".to_owned(),
                Err(error) => break error.to_string(),
            }
        };
        *self.seen.borrow_mut().errors.entry(ended).or_default() += 1;
    }

    fn take(&self, response: &WatchResponse) {
        let seen = &mut *self.seen.borrow_mut();
        if response.created {
            self.counters.created.fetch_add(1, Ordering::Relaxed);
        }
        if response.canceled {
            let reason = format!("watcher cancelled: {}", response.cancel_reason);
            *seen.errors.entry(reason).or_default() += 1;
        }
        if response.events.is_empty() {
            return;
        }
        let nth = usize::try_from(response.watch_id - 1).ok();
        let Some((_, account)) = nth.and_then(|nth| seen.accounts.get_mut(self.first + nth)) else {
            *seen.errors.entry("events for an unknown watch id".into()).or_default() += 1;
            return;
        };
        let now = Instant::now();
        let mut fresh = 0;
        for event in &response.events {
            let Some(kv) = &event.kv else { continue };
            let stamp = Stamp::of(&kv.value);
            fresh += u64::from(account.event(stamp, kv.mod_revision));
            let counted = stamp.filter(|stamp| self.timing.counts(stamp.sent));
            if let Some(stamp) = counted {
                seen.latencies.record(stamp.age(self.timing.epoch, now));
            }
        }
        self.counters.received.fetch_add(fresh, Ordering::Relaxed);
        if self.timing.counts(now.saturating_duration_since(self.timing.epoch)) {
            seen.events_in_window += fresh;
        }
    }
}
