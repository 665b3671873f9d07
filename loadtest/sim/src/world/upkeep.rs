//! What clients can see of the members and do to them, besides calls.

use std::rc::Rc;
use std::sync::Arc;

use castd_actors::WatchHandle;
use castd_actors::mvcc::View;
use castd_actors::watch_hub::StreamRequest;

use rand::Rng;

use super::World;
use super::lives::Ending;
use crate::door::Done;
use crate::time::{MS, Nanos, SECOND};

/// No lease of a world has a longer time.
const LEASE_TIME_MAX: Nanos = 10 * SECOND;

impl World {
    /// Whether what a member sends to clients arrives: it runs, and they are not cut off
    /// from it.
    pub(crate) fn speaks(&self, id: u64) -> bool {
        self.members.get(&id).is_some_and(|member| !member.paused)
            && !self.network.cut_off.contains(&id)
    }

    /// Any member that a client may try.
    pub(crate) fn any_reachable(&mut self) -> Option<u64> {
        let there = self.reachable();
        (!there.is_empty()).then(|| there[self.chance.random_range(0..there.len())])
    }

    /// A client asks something on a stream that is open at a process.
    pub(crate) fn ask_stream(
        &mut self,
        id: u64,
        life: u16,
        handle: &Rc<WatchHandle>,
        requests: Vec<StreamRequest>,
    ) {
        let handle = Rc::clone(handle);
        if let Some(process) = self.process_mut(id, life) {
            process.tasks.push(async move {
                // A stream that has ended is found out by whoever reads it.
                handle.ask(requests).await;
                Done::Nothing
            });
        }
        self.wake(id);
    }

    /// So much earlier than promised may a lease end: a clock that is too fast, and what
    /// it has leapt ahead.
    pub(crate) fn lease_tolerance(&self) -> Nanos {
        let leapt_ms = self.members.values().map(|member| member.clock.counted_ms).max();
        let drift = self.weather.drift_ppm.unsigned_abs() * LEASE_TIME_MAX / 1_000_000;
        leapt_ms.unwrap_or(0) * MS + 2 * drift + 5 * MS
    }

    /// A member that leads, as far as it knows; the one of the latest term.
    pub(crate) fn leader(&self) -> Option<u64> {
        let raft = self.members.iter().filter_map(|(id, member)| {
            let status = member.process.as_ref()?.company.raft();
            status.is_leader.then_some((status.term, *id))
        });
        raft.max().map(|(_, id)| id)
    }

    /// A member's disk is lost with all that was on it: the member is down for good.
    pub(crate) fn lose_disk(&mut self, id: u64) {
        self.story.tell(self.now, || format!("== m{id} loses its disk"));
        self.watchman.count("disk lost");
        self.end(id, Ending::PowerCut);
        if let Some(member) = self.members.get_mut(&id) {
            member.removed = true;
        }
    }

    /// The state of the member that has applied the most.
    pub(crate) fn furthest_view(&self) -> Option<Arc<View>> {
        let processes = self.members.values().filter_map(|member| member.process.as_ref());
        processes.map(|process| process.company.view()).max_by_key(|view| view.applied_index())
    }

    /// What clients still wait for, for people.
    pub(crate) fn describe_clients(&self) -> String {
        let restless = self.clients.iter().enumerate().filter_map(|(number, client)| {
            let client = client.as_ref().filter(|client| !client.is_content(self))?;
            Some(format!("\n    client {number}: {}", client.describe()))
        });
        restless.collect()
    }
}
