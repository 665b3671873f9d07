//! What one thread's watchers saw: takes chunks of streams apart and keeps the accounts.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use castd_proto::etcdserverpb::WatchCreateRequest;

use super::interest::Interest;
use super::ledger::Account;
use super::skim::Response;
use super::timing::Timing;
use crate::grpc::{CallError, Cutter};
use crate::keys::KeyTable;
use crate::latency::Latencies;

/// The phase in which some watchers do not read, and the one behind it.
pub(super) const STOPPED_PHASE: usize = 1;

/// What the threads tell while they run. Moments are nanoseconds since the epoch.
#[derive(Debug)]
pub(super) struct Counters {
    /// When the first watcher was asked for.
    pub(super) first_asked: AtomicU64,
    /// When the latest confirmation came.
    pub(super) last_created: AtomicU64,
    /// Watchers the server has confirmed.
    pub(super) created: AtomicU64,
    /// New events received, all watchers together.
    pub(super) received: AtomicU64,
    /// When the latest of them came.
    pub(super) last_received: AtomicU64,
    /// Puts that the server acknowledged.
    pub(super) acknowledged: AtomicU64,
}

impl Default for Counters {
    fn default() -> Self {
        Self {
            first_asked: AtomicU64::new(u64::MAX),
            last_created: AtomicU64::new(0),
            created: AtomicU64::new(0),
            received: AtomicU64::new(0),
            last_received: AtomicU64::new(0),
            acknowledged: AtomicU64::new(0),
        }
    }
}

/// A watcher's place in the whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Class {
    /// It reads all the time.
    Steady,
    /// It does not read in the stopped phase.
    Stopping,
}

/// What the watchers of a class saw, all together.
#[derive(Debug)]
pub(super) struct Tally {
    /// From a put's sending to the arrival of its event, by the phase of the sending.
    pub(super) latencies: Vec<Latencies>,
    /// Events that arrived in the window.
    pub(super) events_in_window: u64,
    /// From when they read again until the first event that was sent after that.
    pub(super) recoveries: Latencies,
    /// Events of the put that was sent at `run_sent`, not yet among the latencies: many events
    /// of one put arrive together.
    run: u64,
    run_sent: u64,
}

impl Tally {
    pub(super) fn new(phases: usize) -> Self {
        Self {
            latencies: vec![Latencies::new(); phases],
            events_in_window: 0,
            recoveries: Latencies::new(),
            run: 0,
            run_sent: 0,
        }
    }

    /// One more event, of a put that was sent then.
    fn event(&mut self, sent: u64, now: u64, timing: &Timing) {
        if sent != self.run_sent {
            self.flush(now, timing);
            self.run_sent = sent;
        }
        self.run += 1;
    }

    /// Writes the events down that are not yet.
    fn flush(&mut self, now: u64, timing: &Timing) {
        if self.run == 0 {
            return;
        }
        if let Some(phase) = timing.phase(self.run_sent) {
            self.latencies[phase].record_ns(now.saturating_sub(self.run_sent), self.run);
        }
        if timing.phase(now).is_some() {
            self.events_in_window += self.run;
        }
        self.run = 0;
    }

    /// Adds what another thread's watchers of the class saw.
    pub(super) fn merge(&mut self, other: &Self) {
        for (mine, theirs) in self.latencies.iter_mut().zip(&other.latencies) {
            mine.merge(theirs);
        }
        self.events_in_window += other.events_in_window;
        self.recoveries.merge(&other.recoveries);
    }
}

/// One watcher.
#[derive(Debug)]
struct Watcher {
    account: Account,
    key: Bytes,
    range_end: Bytes,
    class: Class,
    /// Where it goes on after its stream has broken; 0 for now.
    next_revision: i64,
    confirmed: bool,
    /// It has seen an event that was sent after it read again.
    recovered: bool,
}

/// What a thread's watchers saw.
#[derive(Debug)]
pub(super) struct Seen {
    /// One for each watcher.
    pub(super) accounts: Vec<Account>,
    /// Those that read all the time.
    pub(super) steady: Tally,
    /// Those that do not.
    pub(super) stopping: Tally,
    /// Streams and connections that were cut on purpose.
    pub(super) cuts: u64,
    /// Streams that broke and watchers that were cancelled, by reason.
    pub(super) errors: BTreeMap<String, u64>,
}

impl Seen {
    /// Nothing.
    pub(super) fn nothing(phases: usize) -> Self {
        Self {
            accounts: Vec::new(),
            steady: Tally::new(phases),
            stopping: Tally::new(phases),
            cuts: 0,
            errors: BTreeMap::new(),
        }
    }

    /// Adds what another thread saw.
    pub(super) fn merge(&mut self, other: Self) {
        self.accounts.extend(other.accounts);
        self.steady.merge(&other.steady);
        self.stopping.merge(&other.stopping);
        self.cuts += other.cuts;
        for (text, times) in other.errors {
            *self.errors.entry(text).or_default() += times;
        }
    }
}

/// The accounts of one thread; its streams share it.
#[derive(Debug)]
pub(super) struct Desk {
    /// The common clock.
    pub(super) timing: Arc<Timing>,
    /// Shared with all threads.
    pub(super) counters: Arc<Counters>,
    table: KeyTable,
    watchers: RefCell<Vec<Watcher>>,
    seen: RefCell<Seen>,
}

/// What a chunk brought, summed up for the counters.
#[derive(Debug, Default)]
struct Brought {
    created: u64,
    events: u64,
}

impl Desk {
    /// A desk without watchers.
    pub(super) fn new(timing: Arc<Timing>, counters: Arc<Counters>, table: KeyTable) -> Rc<Self> {
        let seen = RefCell::new(Seen::nothing(timing.phases()));
        Rc::new(Self { timing, counters, table, watchers: RefCell::default(), seen })
    }

    /// Adds a watcher that begins at `start_revision`, or now if that is 0. Answers its number.
    pub(super) fn add(&self, interest: Interest, class: Class, start_revision: i64) -> usize {
        let mut watchers = self.watchers.borrow_mut();
        watchers.push(Watcher {
            account: Account::new(interest.keys),
            key: interest.key,
            range_end: interest.range_end,
            class,
            next_revision: start_revision,
            confirmed: false,
            recovered: false,
        });
        watchers.len() - 1
    }

    /// The request for a watcher, as watch number `watch_id` of its stream, from where it was.
    pub(super) fn create_request(&self, watcher: usize, watch_id: i64) -> WatchCreateRequest {
        let watcher = &self.watchers.borrow()[watcher];
        WatchCreateRequest {
            key: watcher.key.clone(),
            range_end: watcher.range_end.clone(),
            start_revision: watcher.next_revision,
            watch_id,
            ..WatchCreateRequest::default()
        }
    }

    /// Takes a chunk of the stream whose watchers are numbered from `first`, watch id 1, on.
    ///
    /// # Errors
    /// When it cannot be read.
    pub(super) fn take(
        &self,
        cutter: &mut Cutter,
        chunk: &[u8],
        first: usize,
    ) -> Result<(), CallError> {
        let now = self.timing.now();
        let mut brought = Brought::default();
        let watchers = &mut *self.watchers.borrow_mut();
        let seen = &mut *self.seen.borrow_mut();
        let result = cutter.cut(chunk, |message| {
            let response = Response::read(message)?;
            let nth = usize::try_from(response.watch_id - 1).ok();
            let Some(watcher) = nth.and_then(|nth| watchers.get_mut(first + nth)) else {
                return Err(CallError::WrongAnswer("an unknown watch id".into()));
            };
            self.respond(&response, watcher, seen, &mut brought, now)
        });
        seen.steady.flush(now, &self.timing);
        seen.stopping.flush(now, &self.timing);
        if brought.created > 0 {
            self.counters.last_created.fetch_max(now, Ordering::Relaxed);
            self.counters.created.fetch_add(brought.created, Ordering::Release);
        }
        if brought.events > 0 {
            self.counters.last_received.fetch_max(now, Ordering::Relaxed);
            self.counters.received.fetch_add(brought.events, Ordering::Release);
        }
        result
    }

    fn respond(
        &self,
        response: &Response<'_>,
        watcher: &mut Watcher,
        seen: &mut Seen,
        brought: &mut Brought,
        now: u64,
    ) -> Result<(), CallError> {
        if response.canceled {
            let reason = String::from_utf8_lossy(response.cancel_reason);
            *seen.errors.entry(format!("watcher cancelled: {reason}")).or_default() += 1;
        }
        if response.created {
            brought.created += u64::from(!watcher.confirmed);
            watcher.confirmed = true;
            if watcher.next_revision == 0 {
                watcher.next_revision = response.revision()? + 1;
            }
        }
        if !response.has_events() {
            return Ok(());
        }
        let tally = match watcher.class {
            Class::Steady => &mut seen.steady,
            Class::Stopping => &mut seen.stopping,
        };
        let mut events = response.events();
        let mut is_first = true;
        while let Some(event) = events.next()? {
            if std::mem::take(&mut is_first) {
                watcher.account.response_begins(event.mod_revision);
            }
            if let Some(stamp) = watcher.account.event(&event, &self.table) {
                brought.events += 1;
                tally.event(stamp.sent_ns, now, &self.timing);
                if watcher.class == Class::Stopping && !watcher.recovered {
                    watcher.recovered = self.recovers(tally, stamp.sent_ns, now);
                }
            }
        }
        watcher.account.response_ends(response.fragment);
        if !response.fragment {
            watcher.next_revision = watcher.next_revision.max(watcher.account.last_revision() + 1);
        }
        Ok(())
    }

    /// Whether an event was sent after its watcher read again: events come in order, so it has
    /// all of those before.
    fn recovers(&self, tally: &mut Tally, sent: u64, now: u64) -> bool {
        let reads_again = self.timing.begin(STOPPED_PHASE + 1);
        if sent < reads_again {
            return false;
        }
        tally.recoveries.record_ns(now.saturating_sub(reads_again), 1);
        true
    }

    /// Counts something that went wrong.
    pub(super) fn error(&self, text: String) {
        *self.seen.borrow_mut().errors.entry(text).or_default() += 1;
    }

    /// Counts a cut.
    pub(super) fn cut(&self) {
        self.seen.borrow_mut().cuts += 1;
    }

    /// Takes out what was seen.
    pub(super) fn close(&self) -> Seen {
        let nothing = Seen::nothing(self.timing.phases());
        let accounts = self.watchers.take().into_iter().map(|watcher| watcher.account).collect();
        Seen { accounts, ..self.seen.replace(nothing) }
    }
}

#[cfg(test)]
mod tests {
    use super::super::interest::Scenario;
    use super::super::ledger::Stamp;
    use super::*;
    use crate::driver::Window;
    use crate::keys::{KeySpace, Order};
    use castd_proto::etcdserverpb::{ResponseHeader, WatchResponse};
    use castd_proto::mvccpb::{Event, KeyValue};
    use prost::Message;
    use std::time::{Duration, Instant};

    struct Bench {
        desk: Rc<Desk>,
        space: KeySpace,
        cutter: Cutter,
    }

    impl Bench {
        /// Two watchers of one key; the window is all time from now on, or its last phase if
        /// there are several.
        fn new(class: Class, phases: Vec<Duration>) -> Self {
            let space = KeySpace::new("", 4, 1, Order::Sequential).unwrap();
            let timing = Arc::new(Timing::new(phases));
            timing.set(Window::new(Instant::now(), Duration::ZERO, Duration::from_secs(60), false));
            let desk = Desk::new(timing, Arc::default(), space.table());
            for watcher in 0..2 {
                desk.add(Scenario::FanOut.interest(&space, watcher), class, 0);
            }
            Self { desk, space, cutter: Cutter::default() }
        }

        fn take(&mut self, responses: &[WatchResponse]) -> Result<(), CallError> {
            let mut chunk = Vec::new();
            for response in responses {
                chunk.push(0);
                chunk.extend(u32::try_from(response.encoded_len()).unwrap().to_be_bytes());
                response.encode(&mut chunk).unwrap();
            }
            self.desk.take(&mut self.cutter, &chunk, 0)
        }

        fn event(&self, watch_id: i64, number: u32, mod_revision: i64) -> WatchResponse {
            let value = Stamp { key: 0, number, sent_ns: self.desk.timing.now() }.value(30);
            let kv = KeyValue { key: self.space.key(0), value, mod_revision, ..Default::default() };
            let event = Event { kv: Some(kv), ..Event::default() };
            WatchResponse { watch_id, events: vec![event], ..WatchResponse::default() }
        }
    }

    fn created(watch_id: i64, revision: i64) -> WatchResponse {
        let header = Some(ResponseHeader { revision, ..ResponseHeader::default() });
        WatchResponse { header, watch_id, created: true, ..WatchResponse::default() }
    }

    #[test]
    fn watchers_go_on_behind_what_they_saw_or_where_they_were_confirmed() {
        let mut bench = Bench::new(Class::Steady, Vec::new());
        let next = |bench: &Bench, watcher| bench.desk.create_request(watcher, 1).start_revision;
        assert_eq!([0, 1].map(|watcher| next(&bench, watcher)), [0, 0]);
        bench.take(&[created(1, 7), created(2, 8)]).unwrap();
        assert_eq!([0, 1].map(|watcher| next(&bench, watcher)), [8, 9]);
        bench.take(&[bench.event(1, 0, 12), bench.event(2, 0, 12)]).unwrap();
        bench.take(&[bench.event(1, 1, 15), created(1, 20)]).unwrap();
        assert_eq!([0, 1].map(|watcher| next(&bench, watcher)), [16, 13]);
        let counters = &bench.desk.counters;
        assert_eq!(counters.created.load(Ordering::Relaxed), 2, "each once");
        assert_eq!(counters.received.load(Ordering::Relaxed), 3);
        let seen = bench.desk.close();
        assert_eq!((seen.steady.events_in_window, seen.stopping.events_in_window), (3, 0));
        assert_eq!(seen.steady.latencies[0].len(), 3);
        assert!(seen.errors.is_empty());
    }

    #[test]
    fn a_cancelled_watcher_and_an_unknown_one_are_errors() {
        let mut bench = Bench::new(Class::Steady, Vec::new());
        let canceled = WatchResponse {
            watch_id: 2,
            canceled: true,
            cancel_reason: "compacted".into(),
            ..WatchResponse::default()
        };
        bench.take(&[canceled]).unwrap();
        assert!(bench.take(&[created(3, 1)]).is_err());
        let errors = bench.desk.close().errors;
        assert_eq!(errors.get("watcher cancelled: compacted"), Some(&1));
    }

    #[test]
    fn a_stopped_watcher_has_made_up_with_the_first_event_sent_after_that() {
        let reading_again = vec![Duration::ZERO, Duration::ZERO];
        let mut bench = Bench::new(Class::Stopping, reading_again);
        bench.take(&[bench.event(1, 0, 5), bench.event(1, 1, 6)]).unwrap();
        let seen = bench.desk.close();
        assert_eq!(seen.stopping.recoveries.len(), 1, "once for each watcher");
        assert_eq!(seen.stopping.latencies[STOPPED_PHASE + 1].len(), 2);
    }
}
