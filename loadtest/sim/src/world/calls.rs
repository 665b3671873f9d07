//! Clients' calls on their way to members and back.

use std::collections::BTreeMap;

use castd_actors::Error;
use rand::Rng;

use super::World;
use super::events::Event;
use crate::door::{CallId, Done, Failure, Reply, Request, serve};
use crate::time::{MS, Nanos, US};

/// Calls that no client has heard the end of.
#[derive(Debug, Default)]
pub(super) struct Calls {
    last: CallId,
    pending: BTreeMap<CallId, Pending>,
}

#[derive(Debug)]
struct Pending {
    client: usize,
    member: u64,
    /// The process that has the call, once it has.
    life: Option<u16>,
}

impl World {
    /// Sends a call to a member; its client hears once what became of it.
    pub(crate) fn call(
        &mut self,
        client: usize,
        member: u64,
        request: Request,
        timeout: Nanos,
    ) -> CallId {
        self.calls.last += 1;
        let call = self.calls.last;
        self.calls.pending.insert(call, Pending { client, member, life: None });
        if !self.network.cut_off.contains(&member) {
            let latency = self.client_latency();
            self.after(latency, Event::Request { call, member, request: Box::new(request) });
        }
        self.after(timeout, Event::Answer { call, outcome: Box::new(Err(Failure::TimedOut)) });
        call
    }

    /// Which process has a call, if it has reached one.
    pub(crate) fn life_of(&self, member: u64) -> u16 {
        self.process(member).map_or(0, |process| process.life)
    }

    fn client_latency(&mut self) -> Nanos {
        self.chance.random_range(50 * US..MS)
    }

    pub(super) fn request(&mut self, call: CallId, id: u64, request: Request) {
        if self.is_paused(id) {
            let request = Box::new(request);
            return self.after(10 * MS, Event::Request { call, member: id, request });
        }
        let Some(life) = self.process(id).map(|process| process.life) else {
            return self.outcome(call, Err(Failure::NotReached));
        };
        let Some(pending) = self.calls.pending.get_mut(&call) else { return };
        pending.life = Some(life);
        if let Some(process) = self.process_mut(id, life) {
            let company = process.company.clone();
            process.tasks.push(async move { Done::Call(call, serve(company, request).await) });
        }
        self.wake(id);
    }

    /// A member has an answer.
    pub(super) fn call_done(&mut self, id: u64, call: CallId, outcome: Result<Reply, Error>) {
        if !self.network.cut_off.contains(&id) {
            self.outcome(call, outcome.map_err(Failure::Refused));
        }
    }

    fn outcome(&mut self, call: CallId, outcome: Result<Reply, Failure>) {
        let latency = self.client_latency();
        self.after(latency, Event::Answer { call, outcome: Box::new(outcome) });
    }

    /// A process has ended: its callers notice.
    pub(super) fn calls_lost(&mut self, id: u64, life: u16) {
        let lost: Vec<CallId> = self
            .calls
            .pending
            .iter()
            .filter(|(_, pending)| pending.member == id && pending.life == Some(life))
            .map(|(call, _)| *call)
            .collect();
        for call in lost {
            self.outcome(call, Err(Failure::Lost));
        }
    }

    pub(super) fn answer(&mut self, call: CallId, outcome: Result<Reply, Failure>) {
        let Some(pending) = self.calls.pending.remove(&call) else { return };
        let told = match &outcome {
            Ok(Reply::Applied(applied)) => applied.revision,
            Ok(Reply::Range(revision, found)) => *revision + found.count,
            Ok(Reply::Alive(ttl_s)) => *ttl_s,
            _ => 0,
        };
        self.story.mix(&[call, u64::from(outcome.is_ok()), told.cast_unsigned()]);
        self.with_client(pending.client, |client, world, number| {
            client.answer(world, number, call, outcome);
        });
    }
}
