//! A member of the simulated cluster: its disk and its clock, which outlive its
//! processes, and the process that runs now.

mod hub;
mod process;
mod waits;

use castd_actors::Identity;
use castd_actors::company::Begin;
use castd_actors::lease_manager::LeaseSettings;
use castd_actors::sim::SimDisk;

pub use process::Part;
pub(crate) use process::{Death, HEARTBEAT, MemberConfig, Process, WATCH_PROGRESS};

use crate::time::{MS, Nanos};

/// A member.
pub(crate) struct Member {
    pub(crate) identity: Identity,
    /// How it begins when its disk is empty.
    pub(crate) begin: Begin,
    pub(crate) disk: SimDisk,
    pub(crate) process: Option<Process>,
    /// Processes it has had.
    pub(crate) lives: u16,
    pub(crate) clock: MemberClock,
    /// It stands still, with everything it has.
    pub(crate) paused: bool,
    /// Its disk answers nothing before this.
    pub(crate) stalled_until: Nanos,
    /// Its disk is so many times slower than a good one.
    pub(crate) slowness: u64,
    /// An actor whose turns take so many times longer.
    pub(crate) sluggish: (Part, u64),
    /// The file of its checkpoint in which a bit has turned, and its disk as it was before.
    pub(crate) rotten: Option<(String, SimDisk)>,
    /// Its disk takes little more.
    pub(crate) full: bool,
    /// It was removed from the cluster and has stopped for good.
    pub(crate) removed: bool,
    /// The newest revision that was looked at.
    pub(crate) noted: i64,
}

impl Member {
    pub(crate) fn new(identity: Identity, begin: Begin, clock: MemberClock) -> Self {
        Self {
            identity,
            begin,
            disk: SimDisk::new(),
            process: None,
            lives: 0,
            clock,
            paused: false,
            stalled_until: 0,
            slowness: 1,
            sluggish: (Part::Raft, 1),
            rotten: None,
            full: false,
            removed: false,
            noted: 0,
        }
    }

    /// Whether its disk is full or fails, so that its process may end by itself.
    pub(crate) fn disk_ails(&self) -> bool {
        self.full || self.disk.is_failing()
    }

    /// Whether a process runs and is not paused.
    pub(crate) fn is_up(&self) -> bool {
        self.process.is_some() && !self.paused
    }
}

/// A member's monotonic clock: it may run fast or slow, and jump ahead.
#[derive(Clone, Copy, Debug)]
pub(crate) struct MemberClock {
    /// Parts in a million that it is too fast; may be negative.
    pub(crate) drift_ppm: i64,
    /// How far it has jumped.
    pub(crate) jumped_ms: u64,
    /// How far it has jumped in leaps so small that leases count them as time.
    pub(crate) counted_ms: u64,
}

impl MemberClock {
    /// It jumps ahead.
    pub(crate) fn jump(&mut self, ms: u64) {
        self.jumped_ms += ms;
        // A greater leap is a standstill of the member, which leases do not count.
        if ms <= LeaseSettings::default().stall_ms {
            self.counted_ms += ms;
        }
    }

    /// What it shows, in milliseconds.
    pub(crate) fn show(&self, now: Nanos) -> u64 {
        let drift = i128::from(now) * i128::from(self.drift_ppm) / 1_000_000;
        let shown = (i128::from(now) + drift) / i128::from(MS);
        u64::try_from(shown).unwrap_or(0) + self.jumped_ms
    }

    /// How long the world goes on until this clock has gone on so far.
    pub(crate) fn span(&self, local: Nanos) -> Nanos {
        let scaled = i128::from(local) * 1_000_000 / i128::from(1_000_000 + self.drift_ppm);
        u64::try_from(scaled).unwrap_or(local)
    }
}
