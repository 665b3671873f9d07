//! When leases end, in order of time, and what is left of that when it counts no more.

use std::collections::{BTreeMap, BTreeSet};

/// What is known of one lease's time.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Timing {
    pub(super) granted_ttl_s: i64,
    /// What the log says is left; 0 for all of it.
    pub(super) checkpointed_s: i64,
    pub(super) revoking: bool,
    /// The era of what follows; in another one, it means nothing.
    pub(super) era: u64,
    /// A checkpoint was proposed, and the log has not shown it yet.
    pub(super) checkpointing: bool,
    pub(super) ends_ms: u64,
    /// When its remaining time is to be noted; 0 for never.
    pub(super) checkpoint_ms: u64,
}

/// What is to come, in order of time.
#[derive(Debug, Default)]
pub(super) struct Calendar {
    pub(super) ends: BTreeSet<(u64, i64)>,
    pub(super) checkpoints: BTreeSet<(u64, i64)>,
}

impl Calendar {
    /// Writes down an end; what is there of another era goes.
    pub(super) fn set_end(&mut self, id: i64, timing: &mut Timing, era: u64, ends_ms: u64) {
        if timing.era == era {
            self.ends.remove(&(timing.ends_ms, id));
        } else {
            (timing.era, timing.checkpointing, timing.checkpoint_ms) = (era, false, 0);
        }
        timing.ends_ms = ends_ms;
        self.ends.insert((ends_ms, id));
    }

    /// Has the remaining time of a lease noted at `at_ms`, if it lives longer. Its
    /// end must have been written down.
    pub(super) fn schedule(&mut self, id: i64, timing: &mut Timing, at_ms: Option<u64>) {
        if timing.checkpoint_ms > 0 {
            self.checkpoints.remove(&(timing.checkpoint_ms, id));
        }
        timing.checkpoint_ms = at_ms.filter(|at_ms| timing.ends_ms > *at_ms).unwrap_or(0);
        if timing.checkpoint_ms > 0 {
            self.checkpoints.insert((timing.checkpoint_ms, id));
        }
    }

    /// The lease is gone.
    pub(super) fn forget(&mut self, id: i64, timing: &Timing, era: u64) {
        if timing.era == era {
            self.ends.remove(&(timing.ends_ms, id));
            self.checkpoints.remove(&(timing.checkpoint_ms, id));
        }
    }
}

impl Timing {
    /// The seconds that a new leader gives the lease.
    pub(super) fn start_s(&self) -> u64 {
        let start_s =
            if self.checkpointed_s > 0 { self.checkpointed_s } else { self.granted_ttl_s };
        u64::try_from(start_s).unwrap_or(0)
    }
}

/// What counts no more. To take a million entries apart takes time, too.
#[derive(Debug, Default)]
pub(super) struct Remains {
    entries: Vec<BTreeSet<(u64, i64)>>,
    leases: Vec<BTreeMap<i64, Timing>>,
}

impl Remains {
    pub(super) fn is_empty(&self) -> bool {
        self.entries.is_empty() && self.leases.is_empty()
    }

    pub(super) fn add_calendar(&mut self, calendar: Calendar) {
        let parts = [calendar.ends, calendar.checkpoints];
        self.entries.extend(parts.into_iter().filter(|part| !part.is_empty()));
    }

    pub(super) fn add_leases(&mut self, leases: BTreeMap<i64, Timing>) {
        if !leases.is_empty() {
            self.leases.push(leases);
        }
    }

    /// Takes so much apart, or all there is.
    pub(super) fn take_apart(&mut self, most: usize) {
        for _ in 0..most {
            if let Some(entries) = self.entries.last_mut() {
                entries.pop_first();
                self.entries.pop_if(|entries| entries.is_empty());
            } else if let Some(leases) = self.leases.last_mut() {
                leases.pop_first();
                self.leases.pop_if(|leases| leases.is_empty());
            } else {
                return;
            }
        }
    }
}
