//! What goes wrong in a world, and when: drawn from the seed before the world begins.

use std::fmt;
use std::str::FromStr;

use rand::Rng;
use rand::rngs::StdRng;

use crate::member::Part;
use crate::time::{MS, Nanos, SECOND, seconds};
use crate::weather::{Fault, Weather};

/// What kind of trouble there is to be.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Profile {
    /// Nothing breaks; messages take their time.
    Quiet,
    /// Everything breaks: network, processes, machines, clocks, disks.
    #[default]
    Wild,
    /// Disks stall, are slow, fill up, tear writes; machines lose power.
    Disk,
    /// Members come and go while this and that breaks.
    Membership,
}

impl Profile {
    /// Every profile.
    pub const ALL: [Self; 4] = [Self::Quiet, Self::Wild, Self::Disk, Self::Membership];

    fn name(self) -> &'static str {
        match self {
            Self::Quiet => "quiet",
            Self::Wild => "wild",
            Self::Disk => "disk",
            Self::Membership => "membership",
        }
    }
}

impl fmt::Display for Profile {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(self.name())
    }
}

impl FromStr for Profile {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let found = Self::ALL.into_iter().find(|profile| profile.name() == text);
        found.ok_or_else(|| format!("there is no profile {text:?}: quiet, wild, disk, membership"))
    }
}

/// A fault with its end, if it does not end by itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Planned {
    /// When it begins.
    pub(crate) at: Nanos,
    pub(crate) fault: Fault,
    /// When it is mended, and how.
    pub(crate) end: Option<(Nanos, Fault)>,
}

impl fmt::Display for Planned {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{} {:?}", seconds(self.at), self.fault)?;
        match &self.end {
            Some((at, _)) => write!(out, " until {}", seconds(*at)),
            None => Ok(()),
        }
    }
}

/// Everything that is planned for a world.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    pub(crate) weather: Weather,
    pub(crate) faults: Vec<Planned>,
}

/// How often faults of a kind begin, in thousandths of a second's chance.
#[derive(Clone, Copy, Debug, Default)]
struct Rates {
    cut: u32,
    cut_off: u32,
    kill: u32,
    power: u32,
    pause: u32,
    stall: u32,
    slow: u32,
    full: u32,
    jump: u32,
    fail: u32,
    rot: u32,
    sluggish: u32,
    ambush: u32,
    depose: u32,
}

impl Plan {
    /// Draws a plan for a world of `members` that lives for `span`.
    pub(crate) fn draw(profile: Profile, chance: &mut StdRng, span: Nanos, members: u64) -> Self {
        let weather = weather(profile, chance);
        let rates = rates(profile, chance);
        let mut faults = Vec::new();
        let mut at = SECOND;
        while at + SECOND < span {
            faults.extend(rates.draw(chance, at, span, members));
            at += 100 * MS;
        }
        Self { weather, faults }
    }
}

fn weather(profile: Profile, chance: &mut StdRng) -> Weather {
    let bad = match profile {
        Profile::Quiet => 0.0,
        // Quiet and wild networks both occur.
        Profile::Wild => chance.random_range(0.0..1.0),
        Profile::Disk | Profile::Membership => chance.random_range(0.0..0.3),
    };
    let mut share = |most: f64| bad * most * chance.random_range(0.0..1.0);
    let (lost, doubled, reordered, delayed) = (share(0.1), share(0.1), share(0.2), share(0.1));
    let delay = share(100.0);
    Weather {
        lost,
        doubled,
        reordered,
        delayed,
        delay_max: MS + (delay * MS as f64) as Nanos,
        drift_ppm: chance.random_range(0..5_000),
    }
}

fn rates(profile: Profile, chance: &mut StdRng) -> Rates {
    let mut rate =
        |most: u32| if chance.random_bool(0.6) { chance.random_range(0..=most) } else { 0 };
    match profile {
        Profile::Quiet => Rates::default(),
        Profile::Wild => Rates {
            cut: rate(300),
            cut_off: rate(50),
            kill: rate(150),
            power: rate(100),
            pause: rate(100),
            stall: rate(100),
            slow: rate(50),
            full: rate(30),
            jump: rate(50),
            fail: rate(30),
            rot: rate(20),
            sluggish: rate(50),
            ambush: rate(100),
            depose: rate(200),
        },
        Profile::Disk => Rates {
            kill: rate(100),
            power: rate(400),
            stall: rate(300),
            slow: rate(200),
            full: rate(200),
            fail: rate(100),
            rot: rate(100),
            ..Rates::default()
        },
        Profile::Membership => Rates {
            cut: rate(100),
            kill: rate(150),
            power: rate(50),
            pause: rate(50),
            sluggish: rate(50),
            ..Rates::default()
        },
    }
}

impl Rates {
    /// The faults that begin in the tenth of a second at `at`.
    fn draw(self, chance: &mut StdRng, at: Nanos, span: Nanos, members: u64) -> Vec<Planned> {
        let kinds = [
            self.cut,
            self.cut_off,
            self.kill,
            self.power,
            self.pause,
            self.stall,
            self.slow,
            self.full,
            self.jump,
            self.fail,
            self.rot,
            self.sluggish,
            self.ambush,
            self.depose,
        ];
        let mut faults = Vec::new();
        for (kind, rate) in kinds.into_iter().enumerate() {
            if rate > 0 && chance.random_ratio(rate, 10_000) {
                faults.push(fault(kind, chance, at, span, members));
            }
        }
        faults
    }
}

fn fault(kind: usize, chance: &mut StdRng, at: Nanos, span: Nanos, members: u64) -> Planned {
    let id = chance.random_range(1..=members);
    let length = match chance.random_range(0..10) {
        0..4 => chance.random_range(50 * MS..SECOND),
        4..8 => chance.random_range(SECOND..5 * SECOND),
        _ => chance.random_range(5 * SECOND..15 * SECOND),
    };
    let end = (at + length).min(span);
    let until = |fault| Some((end, fault));
    let (fault, end) = match kind {
        0 => {
            let mut ways = ways(chance, id, members);
            // A member alone has nobody to be cut off from.
            ways.retain(|(from, to)| from != to);
            (Fault::Cut(ways.clone()), until(Fault::Mend(ways)))
        }
        1 => (Fault::CutOff(id), until(Fault::Rejoin(id))),
        2 => (Fault::Kill(id, length), None),
        3 => (Fault::PowerCut(id, length), None),
        4 => (Fault::Pause(id), until(Fault::Resume(id))),
        5 => (Fault::Stall(id, length), None),
        6 => (Fault::Slow(id, chance.random_range(2..200)), until(Fault::Slow(id, 1))),
        7 => (Fault::Full(id, chance.random_range(0..64 << 10)), until(Fault::Room(id))),
        8 => (Fault::Jump(id, chance.random_range(1..5_000)), None),
        9 => (Fault::Fail(id, chance.random_range(0..20)), None),
        10 => (Fault::Rot(id, length), None),
        12 => (Fault::Ambush(chance.random_range(SECOND..4 * SECOND)), until(Fault::Disperse)),
        13 => (Fault::Depose(length), None),
        _ => {
            let part = Part::ALL[chance.random_range(0..Part::ALL.len())];
            let times = chance.random_range(10..10_000);
            (Fault::Sluggish(id, part, times), until(Fault::Sluggish(id, part, 1)))
        }
    };
    Planned { at, fault, end }
}

/// A member alone, one way only, or one member between two that do not hear each other.
fn ways(chance: &mut StdRng, id: u64, members: u64) -> Vec<(u64, u64)> {
    let others = || (1..=members).filter(move |other| *other != id);
    let other = id % members + 1;
    match chance.random_range(0..5) {
        0 | 1 => others().flat_map(|other| [(id, other), (other, id)]).collect(),
        2 => others().map(|other| (id, other)).collect(),
        3 => others().map(|other| (other, id)).collect(),
        _ => vec![(id, other), (other, id)],
    }
}
