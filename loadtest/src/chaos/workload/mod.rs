//! Clients that read and write a few keys, and write down what they were told.
//!
//! Owns: the clients' tasks, their sources of chance, which keys they use.
//! Sends: calls through a [`Session`] each, operations into the [`Recorder`].
//! Never does: repeat a call. One that fails is over; what it did is for the checker to say.

mod calls;

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::rc::Rc;
use std::time::Duration;

use castd_check::{Input, Key, Moment, NEVER, Operation, Output, Seen};
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior};

use super::history::{Lives, Recorder};
use super::session::{Failure, Session};
use crate::grpc::Endpoint;
use calls::Step;

/// Keys in use at a time. Even: transactions use two neighbours.
const KEYS: u32 = 10;
/// So long are keys in use; then come others. This bounds the history of each.
const KEYS_TIME: Duration = Duration::from_secs(10);
/// One call in so many goes to another member.
const MOVE_ONE_IN: u32 = 40;

/// How much work there is.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Load {
    /// Clients.
    pub(crate) clients: usize,
    /// Calls a second, all clients together, at most.
    pub(crate) rate: f64,
    /// How long a call is waited for.
    pub(crate) call_timeout: Duration,
    /// Where chance starts.
    pub(crate) seed: u64,
}

/// What the clients share.
#[derive(Debug)]
struct Common {
    recorder: Recorder,
    lives: Lives,
    stop: Cell<bool>,
    /// Each key's mod revision, as last heard: what swaps expect.
    heard: RefCell<HashMap<Key, i64>>,
}

/// The running clients.
#[derive(Debug)]
pub(crate) struct Clients {
    common: Rc<Common>,
    tasks: JoinSet<()>,
}

impl Clients {
    /// Starts them on the calling thread's runtime.
    pub(crate) fn start(
        load: &Load,
        endpoints: &Rc<[Endpoint]>,
        lives: &Lives,
        recorder: &Recorder,
    ) -> Self {
        let heard = RefCell::new(HashMap::new());
        let (recorder, stop) = (recorder.clone(), Cell::new(false));
        let lives = lives.clone();
        let common = Rc::new(Common { recorder, lives, stop, heard });
        let mut tasks = JoinSet::new();
        let period = Duration::from_secs_f64(load.clients as f64 / load.rate);
        for number in 0..load.clients {
            let client = Client {
                number: number as u16,
                common: Rc::clone(&common),
                session: Session::new(endpoints, number, load.call_timeout),
                random: SmallRng::seed_from_u64(load.seed.wrapping_add(1 + number as u64)),
            };
            let offset = period.mul_f64(number as f64 / load.clients as f64);
            tasks.spawn_local(client.run(Instant::now() + offset, period));
        }
        Self { common, tasks }
    }

    /// Lets every client finish its call, and ends them.
    pub(crate) async fn stop(mut self) {
        self.common.stop.set(true);
        while self.tasks.join_next().await.is_some() {}
    }
}

/// The member a call goes to, and which of its processes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Place {
    member: usize,
    life: u16,
}

struct Client {
    number: u16,
    common: Rc<Common>,
    session: Session,
    random: SmallRng,
}

impl Client {
    async fn run(mut self, first: Instant, period: Duration) {
        let mut ticks = tokio::time::interval_at(first, period);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        while !self.common.stop.get() {
            ticks.tick().await;
            if self.random.random_ratio(1, MOVE_ONE_IN) {
                let member = self.random.random_range(0..usize::MAX / 2);
                self.session.go_to(member);
            }
            if self.session.connect().await.is_err() {
                self.common.recorder.with(|records| records.tally.unconnected += 1);
                self.session.go_on();
                continue;
            }
            let step = self.choose();
            self.carry_out(step).await;
        }
    }

    fn place(&self) -> Place {
        let member = self.session.member();
        Place { member, life: self.common.lives.get(member) }
    }

    fn choose(&mut self) -> Step {
        let elapsed = Duration::from_nanos(self.common.recorder.now());
        let generation = (elapsed.as_secs_f64() / KEYS_TIME.as_secs_f64()) as u32;
        let key = generation * KEYS + self.random.random_range(0..KEYS);
        // An even key and the odd one behind it.
        let both = [key & !1, key | 1];
        let recorder = &self.common.recorder;
        match self.random.random_range(0..100) {
            0..30 => Step::One(key, Input::Put(recorder.next_value())),
            30..55 => Step::One(key, Input::Get),
            55..65 => Step::One(key, Input::GetStale),
            65..72 => Step::One(key, Input::Delete),
            72..88 => {
                let expected = self.common.heard.borrow().get(&key).copied().unwrap_or(0);
                Step::One(key, Input::Swap(expected, recorder.next_value()))
            }
            88..94 => Step::PutBoth(both.map(|key| (key, Input::Put(recorder.next_value())))),
            _ => Step::GetBoth(both),
        }
    }

    async fn carry_out(&mut self, step: Step) {
        let called = self.common.recorder.now();
        let at = self.place();
        let parts = step.parts();
        let result = step.send(&mut self.session).await;
        match result {
            Ok(outputs) => self.answered(at, called, &parts, &outputs),
            Err(failure) => {
                self.failed(at, called, &parts, failure);
                self.session.go_on();
            }
        }
    }

    fn answered(&self, at: Place, called: Moment, parts: &[(Key, Input)], outputs: &[Output]) {
        let returned = self.common.recorder.now();
        // A process that came up meanwhile may have answered, or the one before it.
        let life = if self.place() == at { at.life } else { 0 };
        self.record(Place { life, ..at }, called, returned, parts, outputs);
        let wrote = parts[0].1.is_write();
        self.common.recorder.with(|records| {
            records.tally.ok += 1;
            if wrote {
                records.successes.push(returned);
            }
        });
        for ((key, input), output) in parts.iter().zip(outputs) {
            self.hear(*key, *input, *output);
        }
    }

    fn failed(&self, at: Place, called: Moment, parts: &[(Key, Input)], failure: Failure) {
        let (certain, text) = match failure {
            Failure::Unconnected => (true, "not connected".to_owned()),
            Failure::Refused(text) => (true, text),
            Failure::Unknown(text) => (false, text),
            Failure::Wrong(text) => {
                let problem = format!("{:?} at m{}: {text}", parts[0].1, at.member + 1);
                self.common.recorder.with(|records| records.wrong.push(problem));
                (false, text)
            }
        };
        let writes = parts[0].1.is_write();
        self.common.recorder.with(|records| {
            let tally = &mut records.tally;
            *(if certain { &mut tally.failed } else { &mut tally.unknown }) += 1;
            *tally.errors.entry(text).or_default() += 1;
            if certain {
                let values = parts.iter().filter_map(|(key, input)| Some((*key, input.written()?)));
                records.refused.extend(values);
            }
        });
        if writes && !certain {
            let outputs = vec![Output::Unknown; parts.len()];
            self.record(at, called, NEVER, parts, &outputs);
        }
    }

    fn record(
        &self,
        at: Place,
        called: Moment,
        returned: Moment,
        parts: &[(Key, Input)],
        outputs: &[Output],
    ) {
        let call_number = self.common.recorder.next_call();
        let operations = parts.iter().zip(outputs).map(|((key, input), output)| Operation {
            call_number,
            client: self.number,
            member: at.member as u8,
            life: at.life,
            key: *key,
            called,
            returned,
            input: *input,
            output: *output,
        });
        self.common.recorder.with(|records| records.operations.extend(operations));
    }

    /// Keeps what a swap of the key may expect from now on.
    fn hear(&self, key: Key, input: Input, output: Output) {
        let Output::Done { revision, seen, effect } = output else { return };
        let modified = match (effect, input, seen) {
            (true, Input::Put(_) | Input::Swap(..), _) => revision,
            (true, Input::Delete, _) => 0,
            (_, _, Seen::Kv(Some(kv))) => kv.modified,
            (_, _, Seen::Kv(None)) => 0,
            (_, _, Seen::NotAsked) => return,
        };
        self.common.heard.borrow_mut().insert(key, modified);
    }
}
