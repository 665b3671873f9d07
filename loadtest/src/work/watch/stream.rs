//! The watch streams of one thread.

use std::ops::Range;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::SyncSender;
use std::time::{Duration, Instant};

use castd_proto::etcdserverpb::WatchRequest;
use castd_proto::etcdserverpb::watch_request::RequestUnion;
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use tokio::runtime::{Builder, LocalOptions};
use tokio::sync::oneshot;

use super::desk::{Class, Counters, Desk, STOPPED_PHASE, Seen};
use super::interest::{Interest, Scenario};
use super::timing::Timing;
use crate::driver::Plan;
use crate::error::LoadError;
use crate::grpc::{CallError, Chunks, Cutter, Link, Outbound, Route, Rpc, Windows};
use crate::keys::KeySpace;

/// The method's path.
const WATCH: &str = "/etcdserverpb.Watch/Watch";
/// One cut in so many takes the whole connection along.
const CONNECTION_CUTS: u32 = 4;

/// Watchers that behave alike.
#[derive(Debug, Clone, Copy)]
pub(super) struct Group {
    /// How they behave.
    pub(super) class: Class,
    /// Their number.
    pub(super) watchers: usize,
    /// Streams they share.
    pub(super) streams: usize,
    /// Connections the streams share.
    pub(super) connections: usize,
}

impl Group {
    /// A group with no more streams than watchers and no more connections than streams.
    pub(super) fn new(class: Class, watchers: usize, streams: usize, connections: usize) -> Self {
        let streams = streams.clamp(1, watchers.max(1));
        Self { class, watchers, streams, connections: connections.clamp(1, streams) }
    }

    /// What its watcher number `watcher` watches.
    pub(super) fn interest(
        &self,
        scenario: &Scenario,
        space: &KeySpace,
        watcher: usize,
    ) -> Interest {
        match self.class {
            Class::Steady => scenario.interest(space, watcher),
            Class::Stopping => Interest::key(space, watcher as u64 % space.count()),
        }
    }

    fn windows(&self) -> Windows {
        match self.class {
            Class::Steady => Windows::STREAMED,
            Class::Stopping => Windows::small(self.streams.div_ceil(self.connections)),
        }
    }
}

/// The watch streams one thread is to hold: its share of each group's connections.
pub(super) struct Station {
    /// Where to connect, and how many threads there are.
    pub(super) plan: Plan,
    /// Which share: the thread's number.
    pub(super) thread: usize,
    /// All watchers.
    pub(super) groups: Vec<Group>,
    /// What becomes of them.
    pub(super) scenario: Scenario,
    /// The watched keys.
    pub(super) space: KeySpace,
    /// Where the watchers begin; 0 for now.
    pub(super) start_revision: i64,
    /// The common clock.
    pub(super) timing: Arc<Timing>,
    /// Shared with all threads.
    pub(super) counters: Arc<Counters>,
    /// Told once, when all connections are open or one cannot be.
    pub(super) ready: SyncSender<Result<(), LoadError>>,
    /// The order to ask for the watchers.
    pub(super) go: oneshot::Receiver<()>,
    /// Comes when enough has been seen.
    pub(super) stop: oneshot::Receiver<()>,
}

impl Station {
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

    async fn watch(mut self) -> Result<Seen, LoadError> {
        let (timing, counters) = (Arc::clone(&self.timing), Arc::clone(&self.counters));
        let desk = Desk::new(timing, counters, self.space.table());
        let streams = match self.open_all(&desk).await {
            Ok(streams) => streams,
            Err(error) => {
                // The starter reports what it hears here.
                let _ = self.ready.send(Err(error));
                return Err(LoadError::Thread);
            }
        };
        self.ready.send(Ok(())).map_err(|_| LoadError::Thread)?;
        (&mut self.go).await.map_err(|_| LoadError::Thread)?;
        for (stream, halves) in streams {
            tokio::task::spawn_local(stream.run(halves));
        }
        // A starter that has gone is a reason to stop as well.
        let _ = self.stop.await;
        Ok(desk.close())
    }

    /// Opens this thread's streams, with no watcher on them yet.
    async fn open_all(&self, desk: &Rc<Desk>) -> Result<Vec<(Stream, Halves)>, LoadError> {
        let failed = |source| LoadError::Call { what: "cannot watch", source };
        let mut all = Vec::new();
        for group in &self.groups {
            for connection in (self.thread..group.connections).step_by(self.plan.threads) {
                let endpoint = self.plan.endpoint_of(connection).clone();
                let link = Link::connect_with(endpoint, group.windows()).await;
                let link = link.map_err(LoadError::Connect)?;
                for number in (connection..group.streams).step_by(group.connections) {
                    let mut stream = self.stream(group, number, Rpc::new(&link), desk);
                    let halves = stream.open().await.map_err(failed)?;
                    all.push((stream, halves));
                }
            }
        }
        Ok(all)
    }

    /// Stream number `number` of a group, with its share of the watchers.
    fn stream(&self, group: &Group, number: usize, rpc: Rpc, desk: &Rc<Desk>) -> Stream {
        let mut watchers = 0..0;
        for watcher in (number..group.watchers).step_by(group.streams) {
            let interest = group.interest(&self.scenario, &self.space, watcher);
            let added = desk.add(interest, group.class, self.start_revision);
            watchers =
                if watchers.is_empty() { added..added + 1 } else { watchers.start..added + 1 };
        }
        let cut_every = match self.scenario {
            Scenario::Resume { cut_every, .. } => Some(cut_every),
            _ => None,
        };
        Stream {
            desk: Rc::clone(desk),
            watchers,
            class: group.class,
            cut_every,
            random: SmallRng::seed_from_u64(number as u64),
            route: rpc.route(WATCH),
            rpc,
        }
    }
}

/// One stream, through all its lives.
struct Stream {
    desk: Rc<Desk>,
    /// Its watchers' numbers at the desk.
    watchers: Range<usize>,
    class: Class,
    /// Mean time between two cuts.
    cut_every: Option<Duration>,
    random: SmallRng,
    route: Route,
    rpc: Rpc,
}

/// Both directions of a stream.
struct Halves {
    /// Kept, for the server ends the stream when its client ends its half.
    outbound: Outbound,
    chunks: Chunks,
    cutter: Cutter,
}

impl Stream {
    async fn run(mut self, mut halves: Halves) {
        loop {
            let ended = self.live(&mut halves).await;
            let is_cut = match ended {
                None => self.cut(),
                Some(error) => {
                    self.is_cut_along(&error) || {
                        self.desk.error(error.to_string());
                        false
                    }
                }
            };
            if !is_cut {
                return;
            }
            drop(halves);
            halves = self.reopen().await;
        }
    }

    /// Asks for the watchers and reads, until the stream ends or, with `None`, its time is up.
    async fn live(&mut self, halves: &mut Halves) -> Option<CallError> {
        let time = self.next_cut();
        let reading = async {
            match self.ask(halves) {
                Ok(()) => self.read(halves).await,
                Err(error) => error,
            }
        };
        match time {
            None => Some(reading.await),
            Some(time) => tokio::time::timeout(time, reading).await.ok(),
        }
    }

    /// Asks for every watcher, from where it was.
    fn ask(&self, halves: &mut Halves) -> Result<(), CallError> {
        self.desk.counters.first_asked.fetch_min(self.desk.timing.now(), Ordering::Relaxed);
        for (watcher, watch_id) in self.watchers.clone().zip(1..) {
            let create = self.desk.create_request(watcher, watch_id);
            let union = RequestUnion::CreateRequest(create);
            halves.outbound.send(&WatchRequest { request_union: Some(union) })?;
        }
        Ok(())
    }

    /// Reads until the stream ends, which it should not.
    async fn read(&self, halves: &mut Halves) -> CallError {
        loop {
            if self.class == Class::Stopping {
                self.stand_still().await;
            }
            let taken = match halves.chunks.next().await {
                Ok(Some(chunk)) => self.desk.take(&mut halves.cutter, &chunk, self.watchers.start),
                Ok(None) => {
                    let text = "the server ended a watch stream".to_owned();
                    return halves.cutter.ended().err().unwrap_or(CallError::WrongAnswer(text));
                }
                Err(error) => Err(error),
            };
            if let Err(error) = taken {
                return error;
            }
        }
    }

    /// Waits for the end of the stopped phase, if this is it.
    async fn stand_still(&self) {
        let timing = &self.desk.timing;
        if timing.phase(timing.now()) == Some(STOPPED_PHASE) {
            let end = timing.moment(timing.begin(STOPPED_PHASE + 1));
            tokio::time::sleep_until(end.into()).await;
        }
    }

    /// How long the stream may live now; any time, when it is not to be cut.
    fn next_cut(&mut self) -> Option<Duration> {
        let timing = &self.desk.timing;
        let mean = self.cut_every?;
        let is_over = timing.now() >= timing.begin(timing.phases());
        (!is_over).then(|| mean.mul_f64(self.random.random_range(0.0..2.0)))
    }

    /// Cuts the stream, or its connection.
    fn cut(&mut self) -> bool {
        self.desk.cut();
        if self.random.random_ratio(1, CONNECTION_CUTS) {
            self.rpc.link().cut();
        }
        true
    }

    /// Whether it broke because another stream's cut took the connection along.
    fn is_cut_along(&self, error: &CallError) -> bool {
        let is_old = self.rpc.generation() != Some(self.rpc.link().generation());
        self.cut_every.is_some() && error.lost_connection() && is_old
    }

    async fn open(&mut self) -> Result<Halves, CallError> {
        let (outbound, chunks) = self.rpc.open_raw(&self.route).await?;
        Ok(Halves { outbound, chunks, cutter: Cutter::default() })
    }

    /// Opens the stream once more, over a new connection if need be.
    async fn reopen(&mut self) -> Halves {
        loop {
            self.rpc.revive().await;
            if let Ok(halves) = self.open().await {
                return halves;
            }
        }
    }
}

/// Waits until something is so that the threads tell, or time is up. Answers whether it is.
pub(super) fn await_until(deadline: Instant, poll: Duration, is_so: impl Fn() -> bool) -> bool {
    while !is_so() {
        if Instant::now() > deadline {
            return false;
        }
        std::thread::sleep(poll);
    }
    true
}
