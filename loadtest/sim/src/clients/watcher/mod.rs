//! A client with a stream of watches. It reads, is lazy at times, asks how far all is,
//! cancels and begins anew; when its stream ends or falls silent it goes on elsewhere.

mod watch;

use std::collections::VecDeque;
use std::rc::Rc;

use castd_actors::watch_hub::StreamRequest;
use castd_actors::{Chunk, WatchHandle};
use castd_check::{Evidence, Key, Stretch};
use castd_proto::etcdserverpb::WatchResponse;
use rand::Rng;
use tokio::sync::mpsc::Receiver;
use tokio::sync::mpsc::error::TryRecvError;

use self::watch::{Heard, State, Watch};
use super::Client;
use super::keyed::member_number;
use crate::door::{CallId, Failure, Reply, Request};
use crate::time::{MS, Nanos, SECOND};
use crate::world::World;

/// How long a client waits for a stream to open.
const PATIENCE: Nanos = 5 * SECOND;
/// A stream that says nothing for so long, though it was asked, is given up.
const SILENCE: Nanos = 4 * SECOND;
/// So long after all was mended no stream may be silent any more.
const CALM: Nanos = 15 * SECOND;
/// Ids that clients choose begin here; members choose small ones.
const FIRST_ID: i64 = 1000;
/// The id in responses that concern all of a stream.
const ALL: i64 = -1;

/// A stream that is open.
struct Stream {
    member: u64,
    life: u16,
    handle: Rc<WatchHandle>,
    chunks: Receiver<Box<Chunk>>,
    /// The watches that were asked for and not yet created, in order.
    to_create: VecDeque<usize>,
    /// When it was asked how far it is, and has not said since.
    asked: Option<Nanos>,
    /// Nothing is read before.
    lazy_until: Nanos,
}

/// The client.
pub(crate) struct Watcher {
    keys: Key,
    /// The longest pause between two looks.
    pause: Nanos,
    watches: Vec<Watch>,
    stream: Option<Stream>,
    /// The call that opens a stream, and where.
    opening: Option<(CallId, u64)>,
    next_id: i64,
    next_number: u32,
    told: Vec<Stretch>,
    problems: Vec<String>,
    reopened: u64,
    retired: bool,
}

impl Watcher {
    /// One that watches keys below `keys`, among others, and looks after `pause` at the
    /// latest. Its watches are numbered from `number` on.
    pub(crate) fn new(keys: Key, pause: Nanos, number: u32) -> Self {
        Self {
            keys,
            pause,
            watches: Vec::new(),
            stream: None,
            opening: None,
            next_id: FIRST_ID,
            next_number: number,
            told: Vec::new(),
            problems: Vec::new(),
            reopened: 0,
            retired: false,
        }
    }

    fn draw(&mut self, world: &mut World) -> Watch {
        self.next_number += 1;
        let revision = world.watchman.revision();
        Watch::draw(self.next_number, &mut world.chance, self.keys, revision)
    }

    /// Opens a stream at some member and asks for all watches.
    fn open(&mut self, world: &mut World, number: usize) {
        let there = world.reachable();
        if there.is_empty() {
            return;
        }
        if self.watches.is_empty() {
            let count = world.chance.random_range(1..6);
            self.watches = (0..count).map(|_| self.draw(world)).collect();
        }
        let member = there[world.chance.random_range(0..there.len())];
        let all: Vec<usize> = (0..self.watches.len()).collect();
        let requests = all.iter().map(|at| self.create(world, *at)).collect();
        let call = world.call(number, member, Request::Watch(requests), PATIENCE);
        self.opening = Some((call, member));
    }

    fn create(&mut self, world: &mut World, at: usize) -> StreamRequest {
        self.next_id += 1;
        let id = if world.chance.random_bool(0.5) { self.next_id } else { 0 };
        StreamRequest::Create(self.watches[at].request(id))
    }

    /// The stream is over, from whatever side.
    fn break_off(&mut self) {
        self.stream = None;
        self.reopened += 1;
        self.told.extend(self.watches.iter_mut().filter_map(Watch::break_off));
    }

    /// Reads what there is; false when the stream has ended.
    fn read(&mut self, world: &mut World) -> bool {
        let most = world.chance.random_range(1..5);
        let mut read = false;
        for _ in 0..most {
            let Some(stream) = &mut self.stream else { return false };
            match stream.chunks.try_recv() {
                Ok(chunk) => {
                    stream.asked = None;
                    read = true;
                    self.take(world, &chunk);
                }
                Err(TryRecvError::Empty) => break,
                Err(TryRecvError::Disconnected) => return false,
            }
        }
        if let Some(stream) = self.stream.as_ref().filter(|_| read) {
            let member = stream.member;
            // There is room for more.
            world.wake(member);
        }
        true
    }

    fn take(&mut self, world: &mut World, chunk: &Chunk) {
        let Some(responses) = chunk.decode() else {
            return self.problems.push("a chunk is not made of responses".to_owned());
        };
        for response in responses {
            let revision = response.header.as_ref().map_or(0, |header| header.revision);
            let id = u64::from_ne_bytes(response.watch_id.to_ne_bytes());
            let events = response.events.len() as u64;
            world.story.mix(&[id, revision.unsigned_abs(), events]);
            world.watchman.count(kind(&response));
            self.respond(world, &response);
        }
    }

    fn respond(&mut self, world: &mut World, response: &WatchResponse) {
        let Some(stream) = &mut self.stream else { return };
        if response.watch_id == ALL && !response.created {
            let revision = response.header.as_ref().map_or(0, |header| header.revision);
            return self.watches.iter_mut().for_each(|watch| watch.progress(revision));
        }
        let at = match response.created {
            true => stream.to_create.pop_front(),
            false => self.watches.iter().position(|watch| {
                matches!(watch.state, State::Live | State::Leaving) && watch.id == response.watch_id
            }),
        };
        let member = stream.member;
        let Some(watch) = at.and_then(|at| self.watches.get_mut(at)) else {
            return self.problems.push(format!("m{member} answers no watch: {response:?}"));
        };
        match watch.take(response) {
            Heard::Something => {}
            Heard::Ended => {
                let ended = watch.take_stretch();
                self.told.extend(ended);
                self.replace(world, at.unwrap_or_default(), response.compact_revision > 0);
            }
            Heard::Wrong(text) => self.problems.push(format!("m{member}: {text}")),
        }
    }

    /// A watch has ended: it goes on, or another one takes its place.
    fn replace(&mut self, world: &mut World, at: usize, goes_on: bool) {
        if !goes_on && !self.retired && world.chance.random_bool(0.7) {
            self.watches[at] = self.draw(world);
        }
        let request = self.create(world, at);
        let Some(stream) = &mut self.stream else { return };
        self.watches[at].begin(member_number(stream.member));
        stream.to_create.push_back(at);
        world.ask_stream(stream.member, stream.life, &stream.handle, vec![request]);
    }

    /// Does what comes to its mind.
    fn play(&mut self, world: &mut World) {
        let now = world.now;
        let Some(stream) = &mut self.stream else { return };
        let dice = world.chance.random_range(0..1000);
        if self.retired {
            stream.lazy_until = 0;
        }
        match dice {
            0..60 => self.ask_progress(world),
            _ if self.retired => {}
            60..65 => stream.lazy_until = now + world.chance.random_range(0..4 * SECOND),
            65..70 => self.cancel(world),
            70..72 => self.break_off(),
            _ => {}
        }
    }

    fn ask_progress(&mut self, world: &mut World) {
        let now = world.now;
        let Some(stream) = self.stream.as_mut().filter(|stream| stream.asked.is_none()) else {
            return;
        };
        stream.asked = Some(now.max(stream.lazy_until));
        if world.speaks(stream.member) {
            let requests = vec![StreamRequest::Progress];
            world.ask_stream(stream.member, stream.life, &stream.handle, requests);
        }
    }

    fn cancel(&mut self, world: &mut World) {
        let at = world.chance.random_range(0..self.watches.len().max(1));
        let Some(stream) = self.stream.as_ref().filter(|stream| world.speaks(stream.member)) else {
            return;
        };
        let watch = self.watches.get_mut(at).filter(|watch| watch.state == State::Live);
        let Some(watch) = watch else { return };
        watch.state = State::Leaving;
        let requests = vec![StreamRequest::Cancel(watch.id)];
        world.ask_stream(stream.member, stream.life, &stream.handle, requests);
    }

    /// Whether the stream has been silent for too long.
    fn is_silent(&mut self, world: &World) -> bool {
        let Some(stream) = &self.stream else { return false };
        let Some(asked) = stream.asked else { return false };
        if world.now < asked + SILENCE {
            return false;
        }
        if world.calm_since.is_some_and(|calm| asked > calm + CALM) {
            let member = stream.member;
            let text = format!("m{member} does not say how far a stream is, in {SILENCE} ns");
            self.problems.push(text);
        }
        true
    }
}

fn kind(response: &WatchResponse) -> &'static str {
    match response {
        response if response.compact_revision > 0 => "watch compacted",
        response if response.canceled => "watch cancelled",
        response if response.created => "watch created",
        response if response.fragment => "watch fragment",
        response if response.events.is_empty() => "watch progress",
        _ => "watch events",
    }
}

impl Client for Watcher {
    fn wake(&mut self, world: &mut World, number: usize, _token: u64) {
        let pause = world.chance.random_range(MS..self.pause.max(2 * MS));
        world.wake_client(number, pause, 0);
        if self.opening.is_some() {
            return;
        }
        let Some(stream) = &self.stream else { return self.open(world, number) };
        if world.now >= stream.lazy_until && world.speaks(stream.member) && !self.read(world) {
            return self.break_off();
        }
        self.play(world);
        if self.is_silent(world) {
            self.break_off();
        }
    }

    fn answer(
        &mut self,
        world: &mut World,
        _number: usize,
        call: CallId,
        outcome: Result<Reply, Failure>,
    ) {
        let Some((_, member)) = self.opening.take_if(|(opening, _)| *opening == call) else {
            return;
        };
        let Ok(Reply::Stream(handle, chunks)) = outcome else { return };
        self.watches.iter_mut().for_each(|watch| watch.begin(member_number(member)));
        self.stream = Some(Stream {
            member,
            life: world.life_of(member),
            handle: Rc::new(handle),
            chunks,
            to_create: (0..self.watches.len()).collect(),
            asked: None,
            lazy_until: 0,
        });
    }

    fn retire(&mut self) {
        self.retired = true;
    }

    fn is_content(&self, world: &World) -> bool {
        let revision = world.watchman.revision();
        self.opening.is_none() && self.watches.iter().all(|watch| watch.has_reached(revision))
    }

    fn describe(&self) -> String {
        let watches: Vec<String> = self.watches.iter().map(Watch::describe).collect();
        let member = self.stream.as_ref().map(|stream| stream.member);
        format!("watches at {member:?}: {}", watches.join("; "))
    }

    fn testify(&mut self, evidence: &mut Evidence) {
        let newest = evidence.stored.first().and_then(|stored| stored.last());
        let upto = newest.map_or(1, |event| event.revision);
        let sightings = &mut evidence.sightings;
        sightings.stretches.append(&mut self.told);
        for watch in &mut self.watches {
            // Whether it should have come so far was looked at before.
            let complete = self.stream.is_some() && watch.has_reached(upto);
            let stretch = watch.take_stretch();
            sightings.stretches.extend(stretch.map(|mut stretch| {
                stretch.must_be_complete_to = complete.then_some(upto);
                stretch
            }));
        }
        sightings.problems.append(&mut self.problems);
        sightings.reopened += self.reopened;
    }
}
