//! One who looks after the cluster: compacts, packs anew, has others lead, and raises the
//! alarm that there is no space, under which nothing grows until it is lowered.

use castd_actors::Error;
use castd_check::{Evidence, Key, LEASE_KEYS};
use castd_proto::castdpb::request::Op;
use castd_proto::etcdserverpb::alarm_request::AlarmAction;
use castd_proto::etcdserverpb::{
    AlarmRequest, AlarmType, CompactionRequest, DeleteRangeRequest, PutRequest,
};
use rand::Rng;

use super::Client;
use crate::door::{CallId, Failure, Reply, Request};
use crate::keys;
use crate::time::{MS, Nanos, SECOND};
use crate::world::World;

/// How long an answer is waited for.
const PATIENCE: Nanos = 8 * SECOND;
/// A call whose answer was lost takes effect within this time, or never: no member stands
/// still for longer.
const DOUBT: Nanos = 30 * SECOND;
/// The first of the keys that it tries to put under an alarm.
const TRIED: Key = LEASE_KEYS + (1 << 29);
/// The member that is said to have no space.
const ALARMED: u64 = 1;

/// What it has asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum What {
    /// A compaction, what had been applied of revisions and compactions when it was asked.
    Compact {
        revision: i64,
        newest: i64,
        compacted: i64,
    },
    Pack,
    Transfer,
    Raise,
    Put,
    Delete,
    Lower,
}

/// How the alarm is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Alarm {
    Off,
    /// It is on, for so many more tries.
    On(u32),
    /// It may be on, and is to be off.
    Ending,
}

/// The client.
pub(crate) struct Operator {
    under: Option<(CallId, What)>,
    alarm: Alarm,
    tries: u32,
    /// No alarm is raised before: a call to lower it may still be on its way.
    doubtful_until: Nanos,
    wrong: Vec<String>,
    retired: bool,
}

impl Operator {
    /// One who has not done anything yet.
    pub(crate) fn new() -> Self {
        Self {
            under: None,
            alarm: Alarm::Off,
            tries: 0,
            doubtful_until: 0,
            wrong: Vec::new(),
            retired: false,
        }
    }

    fn next(&mut self, world: &mut World) -> Option<(What, Request)> {
        match self.alarm {
            Alarm::Off if is_alarmed(world) => Some(lower()),
            Alarm::Off if self.retired => None,
            Alarm::Off => draw(world, self.doubtful_until),
            Alarm::On(0) | Alarm::Ending => Some(lower()),
            Alarm::On(tries) => {
                self.alarm = Alarm::On(tries - 1);
                Some(self.attempt(world))
            }
        }
    }

    /// Something that grows the store, or does not.
    fn attempt(&mut self, world: &mut World) -> (What, Request) {
        self.tries += 1;
        let key = keys::key(TRIED + self.tries);
        if world.chance.random_bool(0.3) {
            let delete = DeleteRangeRequest { key, ..Default::default() };
            return (What::Delete, Request::Write(Op::DeleteRange(delete)));
        }
        let value = keys::value(u64::MAX - u64::from(self.tries), 0);
        let put = PutRequest { key, value, ..Default::default() };
        (What::Put, Request::Write(Op::Put(put)))
    }

    fn act(&mut self, world: &mut World, number: usize) {
        let Some((what, request)) = self.next(world) else {
            return world.wake_client(number, 100 * MS, 0);
        };
        let member = match what {
            What::Transfer => world.leader(),
            _ => world.any_reachable(),
        };
        match member {
            Some(member) => {
                let call = world.call(number, member, request, PATIENCE);
                self.under = Some((call, what));
            }
            None => world.wake_client(number, 100 * MS, 0),
        }
    }

    fn compacted(
        &mut self,
        world: &World,
        (revision, newest, before): (i64, i64, i64),
        outcome: &Result<Reply, Failure>,
    ) {
        let right = match outcome {
            Ok(_) => revision > before && revision <= world.watchman.revision(),
            Err(Failure::Refused(Error::Compacted)) => revision <= world.watchman.compacted,
            Err(Failure::Refused(Error::FutureRevision)) => revision > newest,
            Err(_) => true,
        };
        if !right {
            let (newest, compacted) = (world.watchman.revision(), world.watchman.compacted);
            self.wrong.push(format!(
                "a compaction to {revision} (newest {newest}, compacted {before}, then \
                 {compacted}): {outcome:?}"
            ));
        }
    }

    fn heard(&mut self, world: &mut World, what: What, outcome: &Result<Reply, Failure>) {
        let refused = matches!(outcome, Err(Failure::Refused(Error::NoSpace)));
        match what {
            What::Compact { revision, newest, compacted } => {
                self.compacted(world, (revision, newest, compacted), outcome);
            }
            What::Pack | What::Transfer => {}
            What::Raise => {
                let tries = world.chance.random_range(1..6);
                self.alarm = if outcome.is_ok() { Alarm::On(tries) } else { Alarm::Ending };
            }
            What::Put if outcome.is_ok() => {
                self.wrong.push("there is no space, and a key was put".to_owned());
            }
            What::Delete if refused => {
                self.wrong.push("there is no space, and nothing could be deleted".to_owned());
            }
            What::Put | What::Delete => {}
            What::Lower => {
                if outcome.as_ref().is_err_and(|failure| !failure.is_certain()) {
                    self.doubtful_until = world.now + DOUBT;
                }
                self.alarm = if outcome.is_ok() { Alarm::Off } else { Alarm::Ending };
            }
        }
    }
}

fn draw(world: &mut World, doubtful_until: Nanos) -> Option<(What, Request)> {
    let (newest, compacted) = (world.watchman.revision(), world.watchman.compacted);
    let drawn = match world.chance.random_range(0..100) {
        0..60 => {
            let revision = match world.chance.random_range(0..20) {
                0 => newest + world.chance.random_range(1..100),
                1 => compacted.max(1),
                _ => (newest - world.chance.random_range(0..200)).max(1),
            };
            let physical = world.chance.random_bool(0.3);
            let request = CompactionRequest { revision, physical };
            let what = What::Compact { revision, newest, compacted };
            (what, Request::Write(Op::Compaction(request)))
        }
        60..75 => (What::Pack, Request::Defragment),
        75..95 => {
            let to = world.any_reachable().filter(|_| world.chance.random_bool(0.7));
            (What::Transfer, Request::TransferLeader(to.unwrap_or(0)))
        }
        _ if world.now < doubtful_until => return None,
        _ => (What::Raise, alarm(AlarmAction::Activate)),
    };
    Some(drawn)
}

fn lower() -> (What, Request) {
    (What::Lower, alarm(AlarmAction::Deactivate))
}

fn alarm(action: AlarmAction) -> Request {
    Request::Write(Op::Alarm(AlarmRequest {
        action: action.into(),
        member_id: ALARMED,
        alarm: AlarmType::Nospace.into(),
    }))
}

/// Whether anybody knows of an alarm: one that was raised with a lost answer may come late.
fn is_alarmed(world: &World) -> bool {
    world.furthest_view().is_some_and(|view| view.cluster().has_alarm(AlarmType::Nospace))
}

impl Client for Operator {
    fn wake(&mut self, world: &mut World, number: usize, _token: u64) {
        if self.under.is_none() {
            self.act(world, number);
        }
    }

    fn answer(
        &mut self,
        world: &mut World,
        number: usize,
        call: CallId,
        outcome: Result<Reply, Failure>,
    ) {
        let Some((_, what)) = self.under.take_if(|(under, _)| *under == call) else { return };
        if outcome.is_ok() {
            world.watchman.count(name(what));
        }
        self.heard(world, what, &outcome);
        let pause = match self.alarm {
            Alarm::Off => world.chance.random_range(100 * MS..2 * SECOND),
            Alarm::On(_) | Alarm::Ending => world.chance.random_range(MS..100 * MS),
        };
        world.wake_client(number, pause, 0);
    }

    fn retire(&mut self) {
        self.retired = true;
    }

    fn is_content(&self, world: &World) -> bool {
        self.under.is_none() && self.alarm == Alarm::Off && !is_alarmed(world)
    }

    fn describe(&self) -> String {
        format!("operator: {:?}, alarm {:?}", self.under, self.alarm)
    }

    fn testify(&mut self, evidence: &mut Evidence) {
        evidence.records.wrong.append(&mut self.wrong);
    }
}

fn name(what: What) -> &'static str {
    match what {
        What::Compact { .. } => "compaction",
        What::Pack => "defragmentation",
        What::Transfer => "lead transferred",
        What::Raise => "alarm raised",
        What::Put | What::Delete => "write under alarm",
        What::Lower => "alarm lowered",
    }
}
