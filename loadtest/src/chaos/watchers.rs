//! Watchers of all keys on every member, and what they were told.
//!
//! Owns: the streams, and what each of them was asked for and told.
//! Sends: nothing but watch requests. When a stream breaks, the next one begins one revision
//! behind the last that came.
//! Never does: judge. That takes the whole history and is for `castd-check`; here only what
//! cannot even be read is noted.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::Duration;

use castd_check::{Asked, Event, Key, LEASE_KEYS, Response, Sightings, Stretch};
use castd_proto::etcdserverpb::watch_request::RequestUnion;
use castd_proto::etcdserverpb::{
    WatchCreateRequest, WatchProgressRequest, WatchRequest, WatchResponse,
};
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout};

use super::history::Recorder;
use super::session::Session;
use super::wire::{all_keys, read_event};
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
                let number = watchers.tasks.len() as u32;
                let watcher = Watcher {
                    number,
                    member,
                    habit,
                    session: Session::new(endpoints, member, OPEN_TIMEOUT),
                    recorder: recorder.clone(),
                    sightings: Rc::clone(&watchers.sightings),
                    stop: Rc::clone(&watchers.stop),
                    reached: Rc::clone(&reached),
                    random: SmallRng::seed_from_u64(seed ^ (u64::from(number) << 32)),
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
    number: u32,
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
            first = self.sightings.borrow().stretches[nth].next().unwrap_or(first);
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
        let (name, member) = (format!("{:?}", self.habit), self.member as u8);
        let mut stretch = Stretch::new(self.number, name, member, Asked::all(0..=Key::MAX, first));
        stretch.resumes = self.habit != Habit::Rewind;
        stretches.push(stretch);
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
        let revision = response.header.as_ref().map_or(0, |header| header.revision);
        if response.canceled {
            let compact_revision = response.compact_revision;
            let reason = response.cancel_reason.clone();
            let end = Response::Canceled { compact_revision, reason };
            sightings.stretches[nth].responses.push(end);
            return false;
        }
        if response.created {
            sightings.stretches[nth].responses.push(Response::Created { revision });
        }
        if !response.events.is_empty() {
            let mut events = Vec::with_capacity(response.events.len());
            for event in &response.events {
                match read_event(event) {
                    Ok(event) => events.push(event),
                    Err(text) => self.note(&mut sightings, &text),
                }
            }
            self.note_lease_ends(&mut sightings, &events);
            self.reach(events.last().map_or(0, |event| event.revision));
            let fragment = response.fragment;
            let told = Response::Events { revision, events, fragment };
            sightings.stretches[nth].responses.push(told);
        } else if !response.created {
            self.reach(revision);
            sightings.stretches[nth].responses.push(Response::Progress { revision });
        }
        true
    }

    fn note_lease_ends(&self, sightings: &mut Sightings, events: &[Event]) {
        let ends = events.iter().filter(|event| event.key >= LEASE_KEYS && event.now.is_none());
        for event in ends {
            let now = self.recorder.now();
            sightings.lease_ends.entry(event.key).or_insert(now);
        }
    }

    /// The watcher has come to a revision.
    fn reach(&self, revision: i64) {
        self.reached.set(self.reached.get().max(revision));
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
