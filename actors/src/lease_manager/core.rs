//! LeaseManager's decisions about time: a table of ends, ordered by time. Time
//! is given in milliseconds of a clock that only goes forward.
//!
//! Ends are of one era: the time since this member's role changed last. What was
//! written down in an era before means nothing, so a new leader has nothing to
//! undo. A lease that has no end of this era has its full time from the era's
//! beginning; a leader's [`LeaseCore::step`] writes that down, a few leases at a
//! time, and until it has come to a lease, that lease does not end.

use std::collections::BTreeMap;
use std::ops::Bound::{Excluded, Unbounded};

use super::Remaining;
use super::calendar::{Calendar, Remains, Timing};
use super::clock::LeaseClock;
use super::promotion::Promotion;
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
    /// Leases that one [`LeaseCore::step`] is about.
    pub leases_per_step: usize,
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
            leases_per_step: 2048,
            checkpoint_every_ms: 300_000,
            checkpoints_per_tick: 1000,
            stall_ms: 1500,
        }
    }
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
    /// Of this era.
    calendar: Calendar,
    era: u64,
    began_ms: u64,
    /// What of the leases has no end in the calendar yet; none when all have.
    promotion: Option<Promotion>,
    /// Of earlier eras.
    remains: Remains,
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
            calendar: Calendar::default(),
            era: 0,
            began_ms: now_ms,
            promotion: None,
            remains: Remains::default(),
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
        self.in_flight = 0;
        let timed = |(id, granted_ttl_s, checkpointed_s)| {
            (id, Timing { granted_ttl_s, checkpointed_s, ..Timing::default() })
        };
        let leases = leases.into_iter().map(timed).collect();
        self.remains.add_leases(std::mem::replace(&mut self.leases, leases));
        let now_ms = self.clock.at(now_ms);
        self.begin_era(now_ms);
    }

    /// Takes in a change of the state machine.
    pub fn change(&mut self, change: LeaseChange, now_ms: u64) {
        let now_ms = self.clock.at(now_ms);
        match change {
            LeaseChange::Granted { id, ttl_s } => {
                self.leases.insert(id, Timing { granted_ttl_s: ttl_s, ..Timing::default() });
                self.set_end(id, now_ms.saturating_add(millis(ttl_s)), now_ms);
            }
            LeaseChange::Revoked { id } => {
                if let Some(timing) = self.leases.remove(&id) {
                    self.calendar.forget(id, &timing, self.era);
                    self.in_flight -= usize::from(timing.revoking);
                }
            }
            LeaseChange::Remaining { id, remaining_s } => {
                self.settle(id);
                let Some(timing) = self.leases.get_mut(&id) else { return };
                timing.checkpointed_s = remaining_s;
                timing.checkpointing = false;
                let ends_ms = now_ms.saturating_add(millis(timing.granted_ttl_s));
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
        let checkpointing = timing.checkpointing && timing.era == self.era;
        if timing.checkpointed_s > 0 || checkpointing {
            return KeepAlive::Checkpointed;
        }
        let ttl_s = timing.granted_ttl_s;
        self.set_end(id, now_ms.saturating_add(millis(ttl_s)), now_ms);
        KeepAlive::Renewed(ttl_s)
    }

    /// The log says by now that this lease has its full time, whatever was
    /// noted of it before.
    pub fn uncheckpointed(&mut self, id: i64) {
        self.settle(id);
        if let Some(timing) = self.leases.get_mut(&id) {
            timing.checkpointed_s = 0;
            timing.checkpointing = false;
        }
    }

    /// How long a lease has.
    pub fn time_to_live(&mut self, id: i64, now_ms: u64) -> Option<Remaining> {
        let now_ms = self.clock.at(now_ms);
        let timing = self.leases.get(&id)?;
        let left_ms = self.end_of(timing).saturating_sub(now_ms);
        let ttl_s = i64::try_from(left_ms / 1000).unwrap_or(i64::MAX);
        Some(Remaining { granted_ttl_s: timing.granted_ttl_s, ttl_s })
    }

    /// The leases with ids above `after` (`None`: all), in order of their ids, but
    /// no more than `most`: for each, when it ends by the table's own clock, and
    /// its id. Only a leader knows the ends for sure.
    pub fn list(&self, after: Option<i64>, most: usize) -> Vec<(u64, i64)> {
        let rest = (after.map_or(Unbounded, Excluded), Unbounded);
        let leases = self.leases.range::<i64, _>(rest).take(most);
        leases.map(|(id, timing)| (self.end_of(timing), *id)).collect()
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
            _ => self.begin_era(now_ms),
        }
    }

    /// From now on, all leases have their full time, and the calendar is empty.
    fn begin_era(&mut self, now_ms: u64) {
        self.era += 1;
        self.began_ms = now_ms;
        self.remains.add_calendar(std::mem::take(&mut self.calendar));
        let a_second = self.settings.revokes_per_tick * TICKS_PER_SECOND * 3 / 4;
        self.promotion = self.keeps_ends().then(|| Promotion::new(a_second));
        self.step();
    }

    /// Whether something waits for [`LeaseCore::step`].
    pub fn has_work(&self) -> bool {
        self.promotion.is_some() || !self.remains.is_empty()
    }

    /// Goes on with what an era begins with, for a bounded time: some more leases
    /// have an end in the calendar, and something more of earlier eras is gone.
    pub fn step(&mut self) {
        self.promote();
        self.remains.take_apart(self.settings.leases_per_step.max(1));
    }

    /// What would end together is spread.
    fn promote(&mut self) {
        let Some(mut promotion) = self.promotion.take() else { return };
        let (era, leads) = (self.era, self.term.is_some());
        let from_ms = self.began_ms + self.settings.promotion_grace_ms;
        let checkpoint_ms = self.began_ms + self.settings.checkpoint_every_ms;
        let mut room = self.settings.leases_per_step.max(1);
        for (id, timing) in self.leases.range_mut(promotion.rest()).take(room) {
            promotion.came_to(*id);
            room -= 1;
            if timing.era != era {
                let second = promotion.spread.take(timing.start_s());
                let ends_ms = from_ms.saturating_add(second.saturating_mul(1000));
                self.calendar.set_end(*id, timing, era, ends_ms);
                self.calendar.schedule(*id, timing, leads.then_some(checkpoint_ms));
            }
        }
        if room == 0 {
            self.promotion = Some(promotion);
        }
    }

    /// Whether ends are written down: they mean nothing to a follower.
    fn keeps_ends(&self) -> bool {
        self.term.is_some()
            || is_planted(Planted::LeaseEndedByFollower)
            || is_planted(Planted::LeaseNotRenewedByLeader)
    }

    /// When a lease ends.
    fn end_of(&self, timing: &Timing) -> u64 {
        if timing.era == self.era {
            return timing.ends_ms;
        }
        let from_ms = self.began_ms + self.settings.promotion_grace_ms;
        from_ms.saturating_add(timing.start_s().saturating_mul(1000))
    }

    /// Writes down when a lease ends, before what follows from is changed.
    fn settle(&mut self, id: i64) {
        let Some(timing) = self.leases.get(&id) else { return };
        if timing.era != self.era {
            self.set_end(id, self.end_of(timing), self.began_ms);
        }
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
            .calendar
            .ends
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
            .calendar
            .checkpoints
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
        if !self.keeps_ends() {
            return;
        }
        if let Some(timing) = self.leases.get_mut(&id) {
            self.calendar.set_end(id, timing, self.era, ends_ms);
        }
        self.schedule(id, now_ms);
    }

    /// Has the remaining time of a lease noted, if this member leads and the
    /// lease has long.
    fn schedule(&mut self, id: i64, now_ms: u64) {
        let Some(timing) = self.leases.get_mut(&id) else { return };
        let at_ms = now_ms + self.settings.checkpoint_every_ms;
        self.calendar.schedule(id, timing, self.term.map(|_| at_ms));
    }
}

fn millis(seconds: i64) -> u64 {
    u64::try_from(seconds).unwrap_or(0).saturating_mul(1000)
}
