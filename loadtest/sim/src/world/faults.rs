//! What faults do to the world.

use castd_actors::raft_node::LogStore;
use castd_actors::sim::{self, SimDisk};
use raft::Storage;
use rand::Rng;

use super::World;
use super::events::Event;
use super::lives::Ending;
use crate::panics;
use crate::weather::Fault;

impl World {
    /// A fault begins, or ends.
    pub(crate) fn fault(&mut self, fault: Fault) {
        self.story.tell(self.now, || format!("== {fault:?}"));
        match fault {
            Fault::Cut(ways) => {
                self.watchman.count("network cut");
                self.network.cut.add(&ways);
            }
            Fault::Mend(ways) => self.network.cut.take(&ways),
            Fault::CutOff(id) => {
                self.watchman.count("clients cut off");
                self.network.cut_off.insert(id);
            }
            Fault::Rejoin(id) => {
                self.network.cut_off.remove(&id);
            }
            Fault::Kill(id, down) => self.end_for(id, Ending::Kill, "process killed", down),
            Fault::PowerCut(id, down) => self.end_for(id, Ending::PowerCut, "power cut", down),
            Fault::Pause(id) => self.pause(id),
            Fault::Resume(id) => self.resume(id),
            Fault::Stall(id, span) => {
                let until = self.now + span;
                self.on_disk(id, "disk stalled", |member| member.stalled_until = until);
            }
            Fault::Slow(id, 1) => {
                if let Some(member) = self.members.get_mut(&id) {
                    member.slowness = 1;
                }
            }
            Fault::Slow(id, times) => {
                self.on_disk(id, "disk slow", |member| member.slowness = times.max(1));
            }
            Fault::Full(id, bytes) => self.on_disk(id, "disk full", |member| {
                member.full = true;
                member.disk.limit_bytes(bytes);
            }),
            Fault::Room(id) => {
                if let Some(member) = self.members.get_mut(&id) {
                    member.full = false;
                    member.disk.lift_limit();
                }
            }
            Fault::Fail(id, operations) => self.on_disk(id, "disk failed", |member| {
                member.disk.fail_after(operations);
            }),
            Fault::Rot(id, down) => self.rot(id, down),
            Fault::Sluggish(id, part, times) => {
                self.on_disk(id, "actor sluggish", |member| member.sluggish = (part, times.max(1)));
            }
            Fault::Ambush(down) => self.lie_in_wait(down),
            Fault::Depose(span) => self.depose(span),
            Fault::Disperse => self.disperse(),
            Fault::Jump(id, ms) => {
                self.on_disk(id, "clock jumped", |member| member.clock.jump(ms));
            }
        }
    }

    fn on_disk(
        &mut self,
        id: u64,
        what: &'static str,
        act: impl FnOnce(&mut crate::member::Member),
    ) {
        if let Some(member) = self.members.get_mut(&id) {
            act(member);
            self.watchman.count(what);
        }
    }

    pub(super) fn end_for(&mut self, id: u64, ending: Ending, what: &'static str, down: u64) {
        let running = self.members.get(&id).is_some_and(|member| member.process.is_some());
        if running {
            self.watchman.count(what);
            self.end(id, ending);
            self.after(down, Event::Start { member: id });
        }
    }

    /// A bit turns on the disk of a member that is down. In a checkpoint it must be
    /// found when the member starts. In the log it may look like the torn end of a write,
    /// as the log's own text says; then the start must only not stumble over it.
    fn rot(&mut self, id: u64, down: u64) {
        let seed = self.chance.random();
        let segment_bytes = self.config.segment_bytes;
        self.end_for(id, Ending::Kill, "process killed", down);
        let Some(member) = self.members.get_mut(&id).filter(|member| {
            // One that is down already may have had its turn; a copy of a full disk is not full.
            member.process.is_none() && member.rotten.is_none() && !member.full
        }) else {
            return;
        };
        let whole = member.disk.fork();
        let Some(place) = member.disk.flip_bit(seed) else { return };
        self.watchman.count("bit turned");
        self.story.tell(self.now, || format!("m{id}: {place}"));
        if place.starts_with("/member/snap") {
            let file = place.split(':').next().unwrap_or_default().to_owned();
            member.rotten = Some((file, whole));
            return;
        }
        let rotten = std::mem::replace(&mut member.disk, whole.fork());
        let open = |disk: &SimDisk| {
            panics::caught(|| {
                sim::open(disk, segment_bytes, member.identity, &member.begin, false)
                    .map(|opened| opened.log)
                    .map_err(|error| error.to_string())
            })
        };
        match (open(&rotten), open(&whole)) {
            (Ok(Err(_)), _) => self.watchman.count("damage found"),
            // A torn end may be cut; what is left must be what was there.
            (Ok(Ok(rotten)), Ok(Ok(whole))) if begins_as(&rotten, &whole) => {}
            (found, _) => {
                let text = format!("m{id} reads over {place}: {:?}", found.map(drop));
                self.watchman.problem("damage is found or harmless", text);
            }
        }
    }

    /// Cuts whoever leads off from the others: it leads on for a while, with clients that
    /// do not know better.
    fn depose(&mut self, span: u64) {
        let Some(leader) = self.leader() else { return };
        let others = self.members.keys().copied().filter(|id| *id != leader);
        let ways: Vec<(u64, u64)> =
            others.flat_map(|other| [(leader, other), (other, leader)]).collect();
        if ways.is_empty() {
            return;
        }
        self.watchman.count("leader deposed");
        self.network.cut.add(&ways);
        self.after(span, Event::Fault(Fault::Mend(ways)));
    }

    fn pause(&mut self, id: u64) {
        if let Some(member) = self.members.get_mut(&id).filter(|member| member.is_up()) {
            member.paused = true;
            self.watchman.count("process paused");
        }
    }

    /// A member that stands still goes on.
    pub(super) fn resume(&mut self, id: u64) {
        if let Some(member) = self.members.get_mut(&id) {
            member.paused = false;
            self.release(id);
            self.wake(id);
        }
    }
}

/// Whether a log holds nothing but the beginning of another one.
fn begins_as(log: &LogStore, whole: &LogStore) -> bool {
    let same = |index| log.term(index).ok() == whole.term(index).ok();
    log.first() == whole.first()
        && log.last() <= whole.last()
        && (log.first()..=log.last()).all(same)
}
