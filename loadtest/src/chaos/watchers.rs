//! Watchers of all keys on every member, and what they were told.
//!
//! Owns: the streams, and for each stretch of a stream the revisions and digests of its events.
//! Sends: nothing but watch requests. When a stream breaks, the next one begins one revision
//! behind the last that came.
//! Never does: judge the contents. That takes the whole history (see the `check` room); here
//! only what shows at once is noted: revisions that come twice, backwards, or in parts.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::rc::Rc;
use std::time::Duration;

use castd_proto::etcdserverpb::watch_request::RequestUnion;
use castd_proto::etcdserverpb::{
    WatchCreateRequest, WatchProgressRequest, WatchRequest, WatchResponse,
};
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout};

use super::history::{Key, Moment, Recorder};
use super::session::Session;
use super::wire::{Event, LEASE_KEYS, all_keys, read_event};
use crate::grpc::{Endpoint, Inbound, Outbound};

const WATCH: &str = "/etcdserverpb.Watch/Watch";
/// A stream on which nothing comes for so long is given up, and another one opened.
const SILENCE_MAX: Duration = Duration::from_secs(4);
/// How long a stream may take to open.
const OPEN_TIMEOUT: Duration = Duration::from_secs(3);
/// Between two attempts.
const REOPEN_PAUSE: Duration = Duration::from_millis(100);
/// Between two questions for the progress.
const PROGRESS_PERIOD: Duration = Duration::from_millis(500);
/// How far back a rewinding watcher begins again, in revisions.
const REWIND_MAX: i64 = 1000;
/// Noted problems of one round, at most.
const PROBLEMS_MAX: usize = 50;

/// What a watcher does besides reading.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Habit {
    /// Nothing: it resumes where it was.
    Follow,
    /// It also asks for the progress, and takes the answers as promises.
    AskProgress,
    /// Every few seconds it begins again at some earlier revision.
    Rewind,
}

/// What one watch, from its creation to its end, delivered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Stretch {
    /// The member watched.
    pub(crate) member: usize,
    /// The watcher's habit.
    pub(crate) habit: Habit,
    /// The first revision asked for.
    pub(crate) first: i64,
    /// Everything up to this revision has been delivered, the server says.
    pub(crate) reached: i64,
    /// Revision and digest of every event.
    pub(crate) events: Vec<(i64, u64)>,
}

/// What all watchers saw.
#[derive(Debug, Default)]
pub(crate) struct Sightings {
    /// Every watch that delivered anything.
    pub(crate) stretches: Vec<Stretch>,
    /// When the deletion of a key held by a lease was first seen.
    pub(crate) lease_ends: HashMap<Key, Moment>,
    /// What no history can explain.
    pub(crate) problems: Vec<String>,
    /// Streams opened again.
    pub(crate) reopened: u64,
}

/// The digest under which an event is kept.
pub(crate) fn digest(event: &Event) -> u64 {
    let mut hasher = DefaultHasher::new();
    event.hash(&mut hasher);
    hasher.finish()
}

/// The running watchers.
#[derive(Debug)]
pub(crate) struct Watchers {
    sightings: Rc<RefCell<Sightings>>,
    stop: Rc<Cell<bool>>,
    /// How far each watcher that only goes forward has come.
    reached: Vec<(usize, Habit, Rc<Cell<i64>>)>,
    tasks: JoinSet<()>,
}

impl Watchers {
    /// Starts some on every member.
    pub(crate) fn start(endpoints: &Rc<[Endpoint]>, recorder: &Recorder, seed: u64) -> Self {
        let sightings = Rc::new(RefCell::new(Sightings::default()));
        let stop = Rc::new(Cell::new(false));
        let mut watchers = Self { sightings, stop, reached: Vec::new(), tasks: JoinSet::new() };
        for member in 0..endpoints.len() {
            for habit in [Habit::Follow, Habit::AskProgress, Habit::Rewind] {
                let reached = Rc::new(Cell::new(0));
                let number = watchers.tasks.len() as u64;
                let watcher = Watcher {
                    member,
                    habit,
                    session: Session::new(endpoints, member, OPEN_TIMEOUT),
                    recorder: recorder.clone(),
                    sightings: Rc::clone(&watchers.sightings),
                    stop: Rc::clone(&watchers.stop),
                    reached: Rc::clone(&reached),
                    random: SmallRng::seed_from_u64(seed ^ (number << 32)),
                };
                if habit != Habit::Rewind {
                    watchers.reached.push((member, habit, reached));
                }
                watchers.tasks.spawn_local(watcher.run());
            }
        }
        watchers
    }

    /// Waits until the watchers have come to a revision; answers those that have not in time.
    pub(crate) async fn catch_up(&self, revision: i64, time_max: Duration) -> Vec<String> {
        let deadline = Instant::now() + time_max;
        let behind = |(_, _, reached): &&(usize, Habit, Rc<Cell<i64>>)| reached.get() < revision;
        while self.reached.iter().any(|watcher| behind(&watcher)) && Instant::now() < deadline {
            tokio::time::sleep(REOPEN_PAUSE).await;
        }
        let text = |(member, habit, reached): &(usize, Habit, Rc<Cell<i64>>)| {
            let (member, reached) = (member + 1, reached.get());
            format!("a watcher ({habit:?}) on m{member} is at revision {reached} of {revision}")
        };
        self.reached.iter().filter(behind).map(text).collect()
    }

    /// Ends them; answers what they saw.
    pub(crate) async fn stop(mut self) -> Sightings {
        self.stop.set(true);
        self.tasks.shutdown().await;
        std::mem::take(&mut *self.sightings.borrow_mut())
    }
}

struct Watcher {
    member: usize,
    habit: Habit,
    session: Session,
    recorder: Recorder,
    sightings: Rc<RefCell<Sightings>>,
    stop: Rc<Cell<bool>>,
    reached: Rc<Cell<i64>>,
    random: SmallRng,
}

impl Watcher {
    async fn run(mut self) {
        let mut first = 1;
        while !self.stop.get() {
            let Ok((outbound, inbound)) = self.session.open::<WatchResponse>(WATCH).await else {
                tokio::time::sleep(REOPEN_PAUSE).await;
                continue;
            };
            let nth = self.new_stretch(first);
            self.read(nth, first, outbound, inbound).await;
            let reached = self.sightings.borrow().stretches[nth].reached;
            self.reached.set(self.reached.get().max(reached));
            first = reached + 1;
            if self.habit == Habit::Rewind {
                first = (first - self.random.random_range(0..REWIND_MAX)).max(1);
            }
            self.sightings.borrow_mut().reopened += 1;
            self.session.disconnect();
            tokio::time::sleep(REOPEN_PAUSE).await;
        }
    }

    fn new_stretch(&self, first: i64) -> usize {
        let stretches = &mut self.sightings.borrow_mut().stretches;
        let (member, habit) = (self.member, self.habit);
        stretches.push(Stretch { member, habit, first, reached: first - 1, events: Vec::new() });
        stretches.len() - 1
    }

    /// Reads one stream to its end.
    async fn read(
        &mut self,
        nth: usize,
        first: i64,
        mut outbound: Outbound,
        mut inbound: Inbound<WatchResponse>,
    ) {
        if outbound.send(&create(first)).is_err() {
            return;
        }
        let life = Duration::from_millis(self.random.random_range(2000..6000));
        let end = (self.habit == Habit::Rewind).then(|| Instant::now() + life);
        let mut asked = Instant::now();
        let mut heard = Instant::now();
        while heard.elapsed() < SILENCE_MAX && end.is_none_or(|end| Instant::now() < end) {
            if self.habit == Habit::AskProgress && asked.elapsed() > PROGRESS_PERIOD {
                asked = Instant::now();
                let union = Some(RequestUnion::ProgressRequest(WatchProgressRequest {}));
                if outbound.send(&WatchRequest { request_union: union }).is_err() {
                    return;
                }
            }
            match timeout(PROGRESS_PERIOD, inbound.next()).await {
                Ok(Ok(Some(response))) => {
                    heard = Instant::now();
                    if !self.take(nth, &response) {
                        return;
                    }
                }
                Ok(Ok(None) | Err(_)) => return,
                Err(_) => {}
            }
        }
    }

    /// Takes in a response; answers whether the watch goes on.
    fn take(&self, nth: usize, response: &WatchResponse) -> bool {
        let mut sightings = self.sightings.borrow_mut();
        if response.canceled {
            if response.compact_revision != 0 {
                let text = format!("cancelled as compacted at {}", response.compact_revision);
                self.note(&mut sightings, &text);
            }
            return false;
        }
        let reached_before = sightings.stretches[nth].reached;
        for event in &response.events {
            let arrived = read_event(event)
                .and_then(|event| self.arrive(&mut sightings, nth, reached_before, &event));
            if let Err(text) = arrived {
                self.note(&mut sightings, &text);
            }
        }
        let stretch = &mut sightings.stretches[nth];
        let is_progress = response.events.is_empty() && !response.created;
        if let (true, Some(header)) = (is_progress, &response.header) {
            stretch.reached = stretch.reached.max(header.revision);
        }
        self.reached.set(self.reached.get().max(stretch.reached));
        true
    }

    /// Takes in one event; all events of a revision come in one response.
    fn arrive(
        &self,
        sightings: &mut Sightings,
        nth: usize,
        reached_before: i64,
        event: &Event,
    ) -> Result<(), String> {
        let (revision, stretch) = (event.revision, &mut sightings.stretches[nth]);
        if revision <= reached_before {
            return Err(format!(
                "revision {revision} came in a response behind one that had reached \
                 {reached_before}"
            ));
        }
        let reached = stretch.reached;
        stretch.reached = reached.max(revision);
        stretch.events.push((revision, digest(event)));
        if event.key >= LEASE_KEYS && event.now.is_none() {
            let now = self.recorder.now();
            sightings.lease_ends.entry(event.key).or_insert(now);
        }
        if revision < reached {
            Err(format!("revision {revision} came after {reached}"))
        } else {
            Ok(())
        }
    }

    fn note(&self, sightings: &mut Sightings, text: &str) {
        if sightings.problems.len() < PROBLEMS_MAX {
            let (member, habit) = (self.member + 1, self.habit);
            let seconds = Duration::from_nanos(self.recorder.now()).as_secs_f64();
            let text = format!("({habit:?}) on m{member} at {seconds:.3} s: {text}");
            sightings.problems.push(text);
        }
    }
}

fn create(first: i64) -> WatchRequest {
    let (key, range_end) = all_keys();
    let create = WatchCreateRequest {
        key,
        range_end,
        start_revision: first,
        prev_kv: true,
        ..WatchCreateRequest::default()
    };
    WatchRequest { request_union: Some(RequestUnion::CreateRequest(create)) }
}

/// All events up to a revision, as a new watch on one member tells them.
///
/// # Errors
/// With a text when the member does not deliver them in time.
pub(crate) async fn read_all(
    endpoints: &Rc<[Endpoint]>,
    member: usize,
    upto: i64,
    time_max: Duration,
) -> Result<Vec<Event>, String> {
    let mut session = Session::new(endpoints, member, OPEN_TIMEOUT);
    let opened = session.open::<WatchResponse>(WATCH).await;
    let (mut outbound, mut inbound) = opened.map_err(|failure| format!("{failure:?}"))?;
    outbound.send(&create(1)).map_err(|error| error.to_string())?;
    let mut events: Vec<Event> = Vec::new();
    let read = async {
        while events.last().is_none_or(|last| last.revision < upto) {
            let response = inbound.next().await.map_err(|error| error.to_string())?;
            let response = response.ok_or("the stream ended")?;
            if response.canceled {
                return Err(format!("cancelled: {}", response.cancel_reason));
            }
            for event in &response.events {
                events.push(read_event(event)?);
            }
        }
        Ok(())
    };
    match timeout(time_max, read).await {
        Ok(Ok(())) => Ok(events),
        Ok(Err(text)) => Err(text),
        Err(_) => Err("not all events came in time".into()),
    }
}
