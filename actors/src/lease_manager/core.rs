//! LeaseManager's decisions: a table of ends, ordered by time. Time is given
//! in milliseconds of a clock that only goes forward.

use std::collections::{BTreeMap, BTreeSet};

use super::Remaining;
use crate::mvcc::LeaseChange;

/// How leases are ended.
#[derive(Clone, Copy, Debug)]
pub struct LeaseSettings {
    /// Revocations under way at a time.
    pub revokes_in_flight: usize,
    /// Revocations begun in one tick.
    pub revokes_per_tick: usize,
    /// A new leader gives every lease this much on top of its full time.
    pub promotion_grace_ms: u64,
}

impl Default for LeaseSettings {
    /// etcd's: 16 at a time, 1000 a second at two ticks a second.
    fn default() -> Self {
        Self { revokes_in_flight: 16, revokes_per_tick: 500, promotion_grace_ms: 1000 }
    }
}

#[derive(Clone, Copy, Debug)]
struct Timing {
    granted_ttl_s: i64,
    remaining_s: i64,
    ends_ms: u64,
    revoking: bool,
}

/// The table; see the module's text.
#[derive(Debug)]
pub struct LeaseCore {
    settings: LeaseSettings,
    leases: BTreeMap<i64, Timing>,
    by_end: BTreeSet<(u64, i64)>,
    in_flight: usize,
    leader: bool,
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
            leases: BTreeMap::new(),
            by_end: BTreeSet::new(),
            in_flight: 0,
            leader: false,
        };
        core.reset(leases, now_ms);
        core
    }

    /// Forgets every lease and goes on with these, as [`LeaseCore::new`] does.
    pub fn reset(&mut self, leases: impl IntoIterator<Item = (i64, i64, i64)>, now_ms: u64) {
        self.leases.clear();
        self.by_end.clear();
        self.in_flight = 0;
        for (id, ttl_s, remaining_s) in leases {
            self.change(LeaseChange::Granted { id, ttl_s }, now_ms);
            self.change(LeaseChange::Remaining { id, remaining_s }, now_ms);
        }
    }

    /// Takes in a change of the state machine.
    pub fn change(&mut self, change: LeaseChange, now_ms: u64) {
        match change {
            LeaseChange::Granted { id, ttl_s } => {
                let ends_ms = now_ms + millis(ttl_s);
                let timing =
                    Timing { granted_ttl_s: ttl_s, remaining_s: 0, ends_ms, revoking: false };
                self.leases.insert(id, timing);
                self.by_end.insert((ends_ms, id));
            }
            LeaseChange::Revoked { id } => {
                if let Some(timing) = self.leases.remove(&id) {
                    self.by_end.remove(&(timing.ends_ms, id));
                    self.in_flight -= usize::from(timing.revoking);
                }
            }
            LeaseChange::Remaining { id, remaining_s } => {
                if let Some(timing) = self.leases.get_mut(&id) {
                    timing.remaining_s = remaining_s;
                }
            }
        }
    }

    /// Gives a lease its full time again; `None` when there is no such lease or
    /// it has ended already.
    pub fn keep_alive(&mut self, id: i64, now_ms: u64) -> Option<i64> {
        let timing = self.leases.get(&id)?;
        if timing.revoking || timing.ends_ms <= now_ms {
            return None;
        }
        let ttl_s = timing.granted_ttl_s;
        self.set_end(id, now_ms + millis(ttl_s));
        Some(ttl_s)
    }

    /// How long a lease has.
    pub fn time_to_live(&self, id: i64, now_ms: u64) -> Option<Remaining> {
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

    /// Whether this member leads.
    pub fn is_leader(&self) -> bool {
        self.leader
    }

    /// Takes note of whether this member leads. A new leader starts every lease
    /// anew, with what its last checkpoint left if there is one.
    pub fn lead(&mut self, leader: bool, now_ms: u64) {
        if leader && !self.leader {
            let ids: Vec<(i64, u64)> =
                self.leases.iter().map(|(id, timing)| (*id, millis(timing.start_s()))).collect();
            for (id, left_ms) in ids {
                self.set_end(id, now_ms + left_ms + self.settings.promotion_grace_ms);
            }
        }
        self.leader = leader;
    }

    /// The leases to revoke now. Each must be answered: by the change that
    /// tells of its end, or by [`LeaseCore::revoke_failed`].
    pub fn expired(&mut self, now_ms: u64) -> Vec<i64> {
        if !self.leader {
            return Vec::new();
        }
        let room = self.settings.revokes_in_flight.saturating_sub(self.in_flight);
        let most = room.min(self.settings.revokes_per_tick);
        let due: Vec<i64> = self
            .by_end
            .iter()
            .take_while(|(ends_ms, _)| *ends_ms <= now_ms)
            .map(|(_, id)| *id)
            .filter(|id| !self.leases.get(id).is_some_and(|timing| timing.revoking))
            .take(most)
            .collect();
        for id in &due {
            if let Some(timing) = self.leases.get_mut(id) {
                timing.revoking = true;
            }
        }
        self.in_flight += due.len();
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

    fn set_end(&mut self, id: i64, ends_ms: u64) {
        if let Some(timing) = self.leases.get_mut(&id) {
            self.by_end.remove(&(timing.ends_ms, id));
            timing.ends_ms = ends_ms;
            timing.remaining_s = 0;
            self.by_end.insert((ends_ms, id));
        }
    }
}

impl Timing {
    fn start_s(&self) -> i64 {
        if self.remaining_s > 0 { self.remaining_s } else { self.granted_ttl_s }
    }
}

fn millis(seconds: i64) -> u64 {
    u64::try_from(seconds).unwrap_or(0).saturating_mul(1000)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn granted(id: i64, ttl_s: i64) -> LeaseChange {
        LeaseChange::Granted { id, ttl_s }
    }

    fn leader() -> LeaseCore {
        let mut core = LeaseCore::new(LeaseSettings::default(), [], 0);
        core.lead(true, 0);
        core
    }

    #[test]
    fn a_lease_ends_when_it_was_not_kept_alive() {
        let mut core = leader();
        core.change(granted(1, 10), 0);
        assert_eq!(core.keep_alive(1, 9_000), Some(10));
        assert_eq!(core.expired(18_999), [] as [i64; 0]);
        assert_eq!(core.time_to_live(1, 17_500).map(|left| left.ttl_s), Some(1));
        assert_eq!(core.expired(19_000), [1]);
        assert_eq!(core.keep_alive(1, 19_000), None, "it is on its way out");
        assert_eq!(core.expired(19_500), [] as [i64; 0], "once is enough");
        core.change(LeaseChange::Revoked { id: 1 }, 19_600);
        assert_eq!((core.len(), core.in_flight), (0, 0));
    }

    #[test]
    fn a_failed_revocation_is_tried_again() {
        let mut core = leader();
        core.change(granted(1, 1), 0);
        assert_eq!(core.expired(1_000), [1]);
        core.revoke_failed(1);
        assert_eq!(core.expired(1_500), [1]);
    }

    #[test]
    fn only_a_leader_ends_leases_and_a_new_one_gives_them_time() {
        let mut core = LeaseCore::new(LeaseSettings::default(), [(1, 10, 0), (2, 10, 3)], 0);
        assert_eq!(core.expired(60_000), [] as [i64; 0]);
        core.lead(true, 60_000);
        assert_eq!(core.expired(63_999), [] as [i64; 0]);
        assert_eq!(core.expired(64_000), [2], "three seconds were left, and the grace");
        assert_eq!(core.expired(71_000), [1]);
    }

    #[test]
    fn a_reset_forgets_everything_but_who_leads() {
        let mut core = leader();
        core.change(granted(1, 1), 0);
        core.change(granted(2, 100), 0);
        assert_eq!(core.expired(1_000), [1], "its end is under way");
        core.reset([(2, 50, 0), (3, 2, 1)], 10_000);
        core.revoke_failed(1);
        assert_eq!((core.list(), core.in_flight), (vec![3, 2], 0));
        assert_eq!(core.keep_alive(1, 10_000), None);
        assert_eq!(core.expired(12_000), [3]);
    }

    #[test]
    fn a_storm_is_paced() {
        let mut core = leader();
        (0..100).for_each(|id| core.change(granted(id, 1), 0));
        assert_eq!(core.expired(5_000).len(), 16);
        assert_eq!(core.expired(5_500).len(), 0, "sixteen are under way");
        (0..16).for_each(|id| core.change(LeaseChange::Revoked { id }, 6_000));
        assert_eq!(core.expired(6_000).len(), 16);
    }

    proptest! {
        #[test]
        fn nothing_ends_early_and_everything_ends(
            steps in prop::collection::vec((0i64..8, 1i64..20, 0u8..3), 1..200),
        ) {
            let mut core = leader();
            let mut ends = BTreeMap::new();
            let mut now = 0;
            for (id, ttl_s, what) in steps {
                now += 700;
                match what {
                    0 if !ends.contains_key(&id) => {
                        core.change(granted(id, ttl_s), now);
                        ends.insert(id, (now + millis(ttl_s), ttl_s));
                    }
                    1 => if let Some(ttl_s) = core.keep_alive(id, now) {
                        ends.insert(id, (now + millis(ttl_s), ttl_s));
                    },
                    _ => {}
                }
                for id in core.expired(now) {
                    let (end, _) = ends.remove(&id).expect("it was there");
                    prop_assert!(end <= now, "lease {} ended early", id);
                    core.change(LeaseChange::Revoked { id }, now);
                }
            }
            while core.len() > 0 {
                now += 1000;
                prop_assert!(now < 1_000_000);
                for id in core.expired(now) {
                    core.change(LeaseChange::Revoked { id }, now);
                }
            }
        }
    }
}
