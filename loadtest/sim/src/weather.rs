//! How bad it gets: what the network does to every message, and the faults that come
//! and go.

use rand::Rng;

use crate::member::Part;
use crate::time::{MS, Nanos, US};

/// What happens to messages and clocks, all the time.
#[derive(Clone, Debug)]
pub(crate) struct Weather {
    /// The share of parcels that are lost.
    pub(crate) lost: f64,
    /// The share that arrive twice.
    pub(crate) doubled: f64,
    /// The share that may overtake others.
    pub(crate) reordered: f64,
    /// The longest delay of most.
    pub(crate) delay_max: Nanos,
    /// The share that take ten times as long.
    pub(crate) delayed: f64,
    /// How much too fast or slow a clock may be, in parts of a million.
    pub(crate) drift_ppm: i64,
}

impl Weather {
    /// Nothing is lost, and clocks are right.
    pub(crate) fn calm() -> Self {
        Self { lost: 0.0, doubled: 0.0, reordered: 0.0, delay_max: MS, delayed: 0.0, drift_ppm: 0 }
    }

    /// The same world, without losses and delays.
    pub(crate) fn mended(&self) -> Self {
        Self { drift_ppm: self.drift_ppm, ..Self::calm() }
    }

    /// How long a parcel is on its way.
    pub(crate) fn delay(&self, chance: &mut impl Rng) -> Nanos {
        let delay = chance.random_range(50 * US..self.delay_max.max(100 * US));
        if self.delayed > 0.0 && chance.random_bool(self.delayed) { 10 * delay } else { delay }
    }
}

/// Something that breaks, or is mended. Numbers are members' ids.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// Nothing arrives from the first at the second.
    Cut(Vec<(u64, u64)>),
    /// It arrives again.
    Mend(Vec<(u64, u64)>),
    /// Clients do not reach the member.
    CutOff(u64),
    /// They do again.
    Rejoin(u64),
    /// The process is killed and starts again after a time.
    Kill(u64, Nanos),
    /// The machine loses power and comes up after a time.
    PowerCut(u64, Nanos),
    /// The process stands still.
    Pause(u64),
    /// It goes on.
    Resume(u64),
    /// The disk answers nothing for a time.
    Stall(u64, Nanos),
    /// The disk is so many times slower.
    Slow(u64, u64),
    /// Only so many bytes fit onto the disk any more.
    Full(u64, u64),
    /// There is room again.
    Room(u64),
    /// The disk's next operation but so many fails, and the process with it.
    Fail(u64, u64),
    /// The process is killed, and while it is down for a time, a bit on its disk turns.
    Rot(u64, Nanos),
    /// An actor's turns take so many times longer.
    Sluggish(u64, Part, u64),
    /// The leader's process is killed and starts again after a time, and whoever gives
    /// another one its vote is killed right after; who got it is cut off.
    Ambush(Nanos),
    /// Whoever leads is cut off from the other members for a time, and not from clients.
    Depose(Nanos),
    /// Nobody lies in wait any more, and who was cut off for it is heard again.
    Disperse,
    /// The clock jumps ahead by so many milliseconds.
    Jump(u64, u64),
}
