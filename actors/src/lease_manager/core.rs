//! LeaseManager's decisions about time: a table of ends, ordered by time. Time
//! is given in milliseconds of a clock that only goes forward.

use std::collections::{BTreeMap, BTreeSet};

use super::Remaining;
use super::clock::LeaseClock;
use crate::mvcc::LeaseChange;
use crate::shared::{Planted, is_planted};

/// How often in a second the owner of the table looks for what is due.
pub(super) const TICKS_PER_SECOND: usize = 2;

/// How leases are ended.
#[derive(Clone, Copy, Debug)]
pub struct LeaseSettings {
    /// Revocations under way at a time.
    pub revokes_in_flight: usize,
    /// Revocations begun from one tick to the next.
    pub revokes_per_tick: usize,
    /// A new leader gives every lease this much on top of its time: as long as
    /// the one before it may have gone on renewing.
    pub promotion_grace_ms: u64,
    /// A lease with more time left than this has its remaining time noted in
    /// the log so often.
    pub checkpoint_every_ms: u64,
    /// Leases noted in one tick.
    pub checkpoints_per_tick: usize,
    /// When nothing was heard of the clock for longer than this, the member
    /// stood still, and the time does not count.
    pub stall_ms: u64,
}

impl Default for LeaseSettings {
    /// etcd's: 16 at a time, 1000 a second; checkpoints of 1000 leases every
    /// five minutes.
    fn default() -> Self {
        Self {
            revokes_in_flight: 16,
            revokes_per_tick: 500,
            promotion_grace_ms: 1000,
            checkpoint_every_ms: 300_000,
            checkpoints_per_tick: 1000,
            stall_ms: 1500,
        }
    }
}

#[derive(Clone, Copy, Debug, Default)]
struct Timing {
    granted_ttl_s: i64,
    /// What the log says is left; 0 for all of it.
    checkpointed_s: i64,
    /// A checkpoint was proposed, and the log has not shown it yet.
    checkpointing: bool,
    ends_ms: u64,
    /// When its remaining time is to be noted; 0 for never.
    checkpoint_ms: u64,
    revoking: bool,
}

/// What becomes of a keep-alive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeepAlive {
    /// The lease has its full time again: so many seconds.
    Renewed(i64),
    /// The log must say first that the lease has its full time again: a new
    /// leader would believe the last checkpoint.
    Checkpointed,
    /// Its end is proposed; what comes of that is not known yet.
    Ending,
    /// There is no such lease.
    Unknown,
}

/// The table; see the module's text.
#[derive(Debug)]
pub struct LeaseCore {
    settings: LeaseSettings,
    clock: LeaseClock,
    leases: BTreeMap<i64, Timing>,
    by_end: BTreeSet<(u64, i64)>,
    by_checkpoint: BTreeSet<(u64, i64)>,
    in_flight: usize,
    /// Revocations that may still be begun before the next tick.
    budget: usize,
    /// The term in which this member leads.
    term: Option<u64>,
}

impl LeaseCore {
    /// A table with the leases of a loaded state: id, granted seconds and the
    /// seconds left at the last checkpoint of the lease (0 for none).
    pub fn new(
        settings: LeaseSettings,
        leases: impl IntoIterator<Item = (i64, i64, i64)>,
        now_ms: u64,
    ) -> Self {
        let mut core = Self {
            settings,
            clock: LeaseClock::new(settings.stall_ms, now_ms),
            leases: BTreeMap::new(),
            by_end: BTreeSet::new(),
            by_checkpoint: BTreeSet::new(),
            in_flight: 0,
            budget: settings.revokes_per_tick,
            term: None,
        };
        core.reset(leases, now_ms);
        core
    }

    /// Forgets everything and starts over from another state, given as to
    /// [`LeaseCore::new`].
    pub fn reset(&mut self, leases: impl IntoIterator<Item = (i64, i64, i64)>, now_ms: u64) {
        self.leases.clear();
        self.by_end.clear();
        self.by_checkpoint.clear();
        self.in_flight = 0;
        for (id, ttl_s, remaining_s) in leases {
            self.change(LeaseChange::Granted { id, ttl_s }, now_ms);
            self.change(LeaseChange::Remaining { id, remaining_s }, now_ms);
        }
        if self.term.is_some() {
            let now_ms = self.clock.at(now_ms);
            self.promote(now_ms);
        }
    }

    /// Takes in a change of the state machine.
    pub fn change(&mut self, change: LeaseChange, now_ms: u64) {
        let now_ms = self.clock.at(now_ms);
        match change {
            LeaseChange::Granted { id, ttl_s } => {
                self.leases.insert(id, Timing { granted_ttl_s: ttl_s, ..Timing::default() });
                self.set_end(id, now_ms + millis(ttl_s), now_ms);
            }
            LeaseChange::Revoked { id } => {
                if let Some(timing) = self.leases.remove(&id) {
                    self.by_end.remove(&(timing.ends_ms, id));
                    self.by_checkpoint.remove(&(timing.checkpoint_ms, id));
                    self.in_flight -= usize::from(timing.revoking);
                }
            }
            LeaseChange::Remaining { id, remaining_s } => {
                let Some(timing) = self.leases.get_mut(&id) else { return };
                timing.checkpointed_s = remaining_s;
                timing.checkpointing = false;
                let ends_ms = now_ms + millis(timing.granted_ttl_s);
                // A leader may come to lead before it has applied that the one
                // before it was about to renew this lease.
                if remaining_s == 0 && self.term.is_some() && ends_ms > timing.ends_ms {
                    self.set_end(id, ends_ms, now_ms);
                }
            }
        }
    }

    /// Gives a lease its full time again, if that is all it takes. Must be
    /// asked of a leader only. A lease whose end has come is renewed as long as
    /// nobody has proposed to revoke it.
    pub fn keep_alive(&mut self, id: i64, now_ms: u64) -> KeepAlive {
        let now_ms = self.clock.at(now_ms);
        let Some(timing) = self.leases.get(&id) else { return KeepAlive::Unknown };
        if timing.revoking {
            return KeepAlive::Ending;
        }
        if timing.checkpointed_s > 0 || timing.checkpointing {
            return KeepAlive::Checkpointed;
        }
        let ttl_s = timing.granted_ttl_s;
        self.set_end(id, now_ms + millis(ttl_s), now_ms);
        KeepAlive::Renewed(ttl_s)
    }

    /// The log says by now that this lease has its full time, whatever was
    /// noted of it before.
    pub fn uncheckpointed(&mut self, id: i64) {
        if let Some(timing) = self.leases.get_mut(&id) {
            timing.checkpointed_s = 0;
            timing.checkpointing = false;
        }
    }

    /// How long a lease has.
    pub fn time_to_live(&mut self, id: i64, now_ms: u64) -> Option<Remaining> {
        let now_ms = self.clock.at(now_ms);
        let timing = self.leases.get(&id)?;
        let left_ms = timing.ends_ms.saturating_sub(now_ms);
        let ttl_s = i64::try_from(left_ms / 1000).unwrap_or(i64::MAX);
        Some(Remaining { granted_ttl_s: timing.granted_ttl_s, ttl_s })
    }

    /// All leases, the one that ends first in front.
    pub fn list(&self) -> Vec<i64> {
        self.by_end.iter().map(|(_, id)| *id).collect()
    }

    /// Number of leases.
    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.leases.len()
    }

    /// Revocations under way.
    #[cfg(test)]
    pub(super) fn in_flight(&self) -> usize {
        self.in_flight
    }

    /// The term in which this member leads; `None` when it does not.
    pub fn term(&self) -> Option<u64> {
        self.term
    }

    /// Takes note of whether this member leads, and in which term. A new leader
    /// starts every lease anew, with what its last checkpoint left if there is
    /// one: nobody knows what the leader before it promised. That is so also
    /// for a member that led before, if another one did meanwhile.
    pub fn lead(&mut self, term: Option<u64>, now_ms: u64) {
        if self.term == term {
            return;
        }
        self.term = term;
        let now_ms = self.clock.at(now_ms);
        match term {
            Some(_) if is_planted(Planted::LeaseNotRenewedByLeader) => {}
            Some(_) => self.promote(now_ms),
            None => self.demote(),
        }
    }

    fn promote(&mut self, now_ms: u64) {
        let from_ms = now_ms + self.settings.promotion_grace_ms;
        let mut ends: Vec<(u64, i64)> = self
            .leases
            .iter()
            .map(|(id, timing)| (from_ms + millis(timing.start_s()), *id))
            .collect();
        ends.sort_unstable();
        // What would end together is spread, so that there is room for others.
        let a_second = (self.settings.revokes_per_tick * TICKS_PER_SECOND * 3 / 4).max(1);
        for later in a_second..ends.len() {
            ends[later].0 = ends[later].0.max(ends[later - a_second].0 + 1000);
        }
        for (ends_ms, id) in ends {
            if let Some(timing) = self.leases.get_mut(&id) {
                timing.checkpointing = false;
            }
            self.set_end(id, ends_ms, now_ms);
        }
    }

    fn demote(&mut self) {
        self.by_checkpoint.clear();
        self.leases.values_mut().for_each(|timing| timing.checkpoint_ms = 0);
    }

    /// A beat of the clock: there may be more revocations now.
    pub fn tick(&mut self) {
        self.budget = self.settings.revokes_per_tick;
    }

    /// The leases to revoke now, which this member leads to do. Each must be
    /// answered: by the change that tells of its end, or by
    /// [`LeaseCore::revoke_failed`].
    pub fn expired(&mut self, now_ms: u64) -> Vec<i64> {
        let now_ms = self.clock.at(now_ms);
        if self.term.is_none() && !is_planted(Planted::LeaseEndedByFollower) {
            return Vec::new();
        }
        let room = self.settings.revokes_in_flight.saturating_sub(self.in_flight);
        let due: Vec<i64> = self
            .by_end
            .iter()
            .take_while(|(ends_ms, _)| *ends_ms <= now_ms)
            .map(|(_, id)| *id)
            .filter(|id| !self.leases.get(id).is_some_and(|timing| timing.revoking))
            .take(room.min(self.budget))
            .collect();
        for id in &due {
            if let Some(timing) = self.leases.get_mut(id) {
                timing.revoking = true;
            }
        }
        self.in_flight += due.len();
        self.budget -= due.len();
        due
    }

    /// A revocation did not come through: it will be tried again.
    pub fn revoke_failed(&mut self, id: i64) {
        if let Some(timing) = self.leases.get_mut(&id)
            && timing.revoking
        {
            timing.revoking = false;
            self.in_flight -= 1;
        }
    }

    /// The leases whose remaining time is to be noted in the log now, with what
    /// they have left in seconds.
    pub fn checkpoints(&mut self, now_ms: u64) -> Vec<(i64, i64)> {
        let now_ms = self.clock.at(now_ms);
        let due: Vec<(u64, i64)> = self
            .by_checkpoint
            .iter()
            .take_while(|(at_ms, _)| *at_ms <= now_ms)
            .take(self.settings.checkpoints_per_tick)
            .copied()
            .collect();
        let mut notes = Vec::with_capacity(due.len());
        for (_, id) in due {
            self.schedule(id, now_ms);
            let Some(timing) = self.leases.get_mut(&id) else { continue };
            let left_s = timing.ends_ms.saturating_sub(now_ms).div_ceil(1000);
            let left_s = i64::try_from(left_s).unwrap_or(i64::MAX);
            // With grace it may have more than it was granted.
            if left_s < timing.granted_ttl_s && !timing.revoking {
                timing.checkpointing = true;
                notes.push((id, left_s));
            }
        }
        notes
    }

    fn set_end(&mut self, id: i64, ends_ms: u64, now_ms: u64) {
        if let Some(timing) = self.leases.get_mut(&id) {
            self.by_end.remove(&(timing.ends_ms, id));
            timing.ends_ms = ends_ms;
            self.by_end.insert((ends_ms, id));
        }
        self.schedule(id, now_ms);
    }

    /// Has the remaining time of a lease noted, if this member leads and the
    /// lease has long.
    fn schedule(&mut self, id: i64, now_ms: u64) {
        let Some(timing) = self.leases.get_mut(&id) else { return };
        if timing.checkpoint_ms > 0 {
            self.by_checkpoint.remove(&(timing.checkpoint_ms, id));
            timing.checkpoint_ms = 0;
        }
        let at_ms = now_ms + self.settings.checkpoint_every_ms;
        if self.term.is_some() && timing.ends_ms > at_ms {
            timing.checkpoint_ms = at_ms;
            self.by_checkpoint.insert((at_ms, id));
        }
    }
}

impl Timing {
    fn start_s(&self) -> i64 {
        if self.checkpointed_s > 0 { self.checkpointed_s } else { self.granted_ttl_s }
    }
}

fn millis(seconds: i64) -> u64 {
    u64::try_from(seconds).unwrap_or(0).saturating_mul(1000)
}
