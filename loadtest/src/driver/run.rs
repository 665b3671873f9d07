//! Threads and the measured window around them.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::thread::ScopedJoinHandle;
use std::time::{Duration, Instant};

use tokio::runtime::{Builder, LocalOptions};
use tokio::task::JoinSet;

use super::client::{self, Desk};
use super::pacing::{Schedule, Slots};
use super::shared::Shared;
use super::{Pace, Plan, Recorder, Share, Window, Work};
use crate::error::LoadError;
use crate::grpc::{Link, Rpc};
use crate::process::{Cost, Usage};
use crate::progress::Progress;

/// Between the order to start and the first call, so that all threads hear it.
const START_DELAY: Duration = Duration::from_millis(2);
/// How often the progress bar is brought up to date.
const PROGRESS_INTERVAL: Duration = Duration::from_millis(200);

/// What a run found out.
#[derive(Debug)]
pub(crate) struct Measured<H> {
    /// The plan as it was carried out.
    pub(crate) plan: Plan,
    /// Calls, latencies and errors of all threads.
    pub(crate) recorder: Recorder,
    /// What each thread's room had to say.
    pub(crate) harvests: Vec<H>,
    /// Length of the window; shorter than planned when the budget ended it.
    pub(crate) seconds: f64,
    /// What the window cost the generator and the server.
    pub(crate) cost: Cost,
}

/// Runs `work` as `plan` says.
///
/// # Errors
/// When a server cannot be reached at the start, a thread cannot be made, or the process of
/// the server to be observed cannot be read. Calls that fail are not errors: they are counted.
pub(crate) fn measure<W: Work>(work: &W, plan: &Plan) -> Result<Measured<W::Harvest>, LoadError> {
    let plan = plan.clone().trimmed();
    let shared = Arc::new(Shared::new(plan.total, plan.stop.clone()));
    std::thread::scope(|scope| {
        let (ready_in, ready) = sync_channel(plan.threads);
        let (finished_in, finished) = sync_channel(plan.threads);
        let mut crew = Vec::with_capacity(plan.threads);
        for thread in 0..plan.threads {
            let (go, orders) = sync_channel(1);
            let station = Station {
                share: Share { thread, threads: plan.threads },
                plan: plan.clone(),
                shared: Arc::clone(&shared),
                ready: ready_in.clone(),
                orders,
                finished: finished_in.clone(),
            };
            crew.push((go, scope.spawn(move || station.run(work))));
        }
        drop((ready_in, finished_in));
        let started = start(&plan, &ready, &mut crew)?;
        let observed = observe(&plan, started, &shared, &finished)?;
        conclude(W::KINDS, plan.clone(), observed, crew)
    })
}

type Outcome<H> = Result<(Recorder, H), LoadError>;
type Crew<'scope, H> = Vec<(SyncSender<Window>, ScopedJoinHandle<'scope, Outcome<H>>)>;

/// Waits until every thread is connected and gives the order to start.
fn start<H>(
    plan: &Plan,
    ready: &Receiver<Result<(), LoadError>>,
    crew: &mut Crew<'_, H>,
) -> Result<Window, LoadError> {
    for _ in 0..crew.len() {
        ready.recv().map_err(|_| LoadError::Thread)??;
    }
    let start = Instant::now() + START_DELAY;
    let window = Window::new(start, plan.warmup, plan.duration, plan.total.is_some());
    for (go, _) in crew {
        go.send(window).map_err(|_| LoadError::Thread)?;
    }
    Ok(window)
}

/// The window as it came out, and what it cost.
struct Observed {
    window: Window,
    ended_early: bool,
    cost: Cost,
}

/// Watches over the window from outside: reads the clocks of both processes at its ends, and
/// draws the progress bar meanwhile.
fn observe(
    plan: &Plan,
    window: Window,
    shared: &Shared,
    finished: &Receiver<()>,
) -> Result<Observed, LoadError> {
    let progress = Progress::start(plan);
    std::thread::sleep(window.begin.saturating_duration_since(Instant::now()));
    let before = Usage::sample(&plan.pids)?;
    let mut running = plan.threads;
    while running > 0 {
        let left = window.end.saturating_duration_since(Instant::now());
        if left.is_zero() {
            break;
        }
        match finished.recv_timeout(left.min(PROGRESS_INTERVAL)) {
            Ok(()) => running -= 1,
            Err(RecvTimeoutError::Timeout) => progress.update(window.start, shared.done()),
            Err(RecvTimeoutError::Disconnected) => running = 0,
        }
    }
    let cost = Usage::sample(&plan.pids)?.since(&before);
    progress.finish();
    Ok(Observed { window, ended_early: running == 0, cost })
}

/// Joins the threads and merges what they wrote down.
fn conclude<H>(
    kinds: &[&'static str],
    plan: Plan,
    observed: Observed,
    crew: Crew<'_, H>,
) -> Result<Measured<H>, LoadError> {
    let window = observed.window;
    let mut recorder = Recorder::new(window, kinds);
    let mut harvests = Vec::with_capacity(crew.len());
    for (_, handle) in crew {
        let (part, harvest) = handle.join().map_err(|_| LoadError::Thread)??;
        recorder.merge(part);
        harvests.push(harvest);
    }
    let seconds = match recorder.last_end {
        Some(last) if observed.ended_early => last.saturating_duration_since(window.begin),
        _ => plan.duration,
    };
    let seconds = seconds.as_secs_f64();
    Ok(Measured { plan, recorder, harvests, seconds, cost: observed.cost })
}

/// One thread's place in the run.
struct Station {
    share: Share,
    plan: Plan,
    shared: Arc<Shared>,
    ready: SyncSender<Result<(), LoadError>>,
    orders: Receiver<Window>,
    finished: SyncSender<()>,
}

impl Station {
    fn run<W: Work>(self, work: &W) -> Outcome<W::Harvest> {
        let runtime = Builder::new_current_thread()
            .enable_all()
            .build_local(LocalOptions::default())
            .map_err(LoadError::Runtime)?;
        runtime.block_on(self.work(work))
    }

    async fn work<W: Work>(self, work: &W) -> Outcome<W::Harvest> {
        let links = match connect(&self.plan, self.share.thread).await {
            Ok(links) => links,
            Err(error) => {
                // The starter reports the error it hears first, and that ends the run.
                let _ = self.ready.send(Err(error));
                return Err(LoadError::Thread);
            }
        };
        let room = Rc::new(work.room(self.share));
        self.ready.send(Ok(())).map_err(|_| LoadError::Thread)?;
        let window = self.orders.recv().map_err(|_| LoadError::Thread)?;
        work.starts(window);
        tokio::time::sleep_until(window.start.into()).await;
        let desk = Rc::new(self.desk(window, W::KINDS));
        let keeper = desk.slots.clone().map(|slots| {
            tokio::task::spawn_local(async move { slots.keep_time(window.end).await })
        });
        let mut clients = JoinSet::new();
        for (connection, link) in &links {
            for client in self.plan.clients_of(*connection) {
                let caller = work.caller(&room, client, Rpc::new(link));
                clients.spawn_local(client::run(caller, Rc::clone(&desk)));
            }
        }
        drain(&mut clients, window.end + self.plan.drain, &desk).await;
        // The starter has gone only when the run failed; it needs no word from here then.
        let _ = self.finished.send(());
        if let Some(keeper) = keeper {
            keeper.abort();
        }
        let mut recorder = desk.recorder.borrow().clone();
        recorder.unsent = desk.slots.as_ref().map_or(0, |slots| slots.left());
        Ok((recorder, work.harvest(&room)))
    }

    fn desk(&self, window: Window, kinds: &[&'static str]) -> Desk {
        let slots = match self.plan.pace {
            Pace::Closed => None,
            Pace::Open { rate } => {
                let rate = rate / self.share.threads as f64;
                Some(Slots::new(Schedule::new(window.start, rate)))
            }
        };
        Desk {
            window,
            shared: Arc::clone(&self.shared),
            recorder: RefCell::new(Recorder::new(window, kinds)),
            slots,
        }
    }
}

/// Opens a thread's connections.
async fn connect(plan: &Plan, thread: usize) -> Result<Vec<(usize, Rc<Link>)>, LoadError> {
    let mut links = Vec::new();
    for connection in plan.connections_of(thread) {
        let endpoint = plan.endpoint_of(connection).clone();
        let link = Link::connect(endpoint).await.map_err(LoadError::Connect)?;
        links.push((connection, link));
    }
    Ok(links)
}

/// Waits for the clients to end; those that get no answer in time are counted as errors.
async fn drain(clients: &mut JoinSet<()>, until: Instant, desk: &Desk) {
    let all = async { while clients.join_next().await.is_some() {} };
    if tokio::time::timeout_at(until.into(), all).await.is_ok() {
        return;
    }
    let stuck = clients.len() as u64;
    clients.abort_all();
    desk.recorder.borrow_mut().count_error("no answer before the end of the run".into(), stuck);
}
