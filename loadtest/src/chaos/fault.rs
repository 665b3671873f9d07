//! The kinds of faults, and the plan of a round: which ones, when, for how long.

use std::time::Duration;

use rand::rngs::SmallRng;
use rand::seq::SliceRandom;
use rand::{Rng, RngCore, SeedableRng};

use crate::error::LoadError;

/// Before the first fault, and behind the last: time for the cluster to be a cluster.
const QUIET: Duration = Duration::from_secs(2);
/// Rounds shorter than this have faults that are over sooner, so that there are enough.
const USUAL_ROUND: Duration = Duration::from_secs(60);
/// A round this long also has the faults that take long.
const LONG_ROUND: Duration = Duration::from_secs(120);

/// What is done to a cluster.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum FaultKind {
    /// One member and the others do not hear each other.
    PartitionOne,
    /// The same, and it is the leader.
    PartitionLeader,
    /// A minority and the majority do not hear each other.
    PartitionSplit,
    /// One member hears nobody and nobody hears it, clients included.
    Isolate,
    /// One member does not hear the others, who hear it.
    CutIn,
    /// The others do not hear one member, who hears them.
    CutOut,
    /// Two halves hear one member in the middle, and not each other.
    Bridge,
    /// Packets get lost, on the links of one member or on all.
    Loss,
    /// Packets arrive late, on the links of one member or on all.
    Delay,
    /// SIGKILL for one member.
    KillOne,
    /// SIGKILL for the leader.
    KillLeader,
    /// SIGKILL for more than half, at once.
    KillMajority,
    /// SIGKILL for all, at once.
    KillAll,
    /// SIGSTOP for one member, shorter than an election takes to begin.
    PauseShort,
    /// SIGSTOP for one member, longer than that.
    PauseLong,
    /// SIGSTOP for the leader, longer than that.
    PauseLeader,
    /// SIGTERM for one member.
    TermOne,
    /// SIGTERM for the leader.
    TermLeader,
    /// SIGTERM and a new start for every member, one after the other.
    RollingRestart,
    /// The leader is asked to hand over to another member.
    MoveLeader,
    /// One member's disk is full.
    DiskFull,
    /// One member's disk hangs.
    DiskStall,
    /// A member is removed, wiped, added as a learner and promoted.
    ReplaceMember,
    /// All members are set back to an earlier state of their disks, which no cluster survives:
    /// a run with this one has to fail, or it could not find anything else either.
    Sabotage,
}

use FaultKind::*;

/// Every kind with its name.
const NAMES: [(&str, FaultKind); 24] = [
    ("partition-one", PartitionOne),
    ("partition-leader", PartitionLeader),
    ("partition-split", PartitionSplit),
    ("isolate", Isolate),
    ("cut-in", CutIn),
    ("cut-out", CutOut),
    ("bridge", Bridge),
    ("loss", Loss),
    ("delay", Delay),
    ("kill-one", KillOne),
    ("kill-leader", KillLeader),
    ("kill-majority", KillMajority),
    ("kill-all", KillAll),
    ("pause-short", PauseShort),
    ("pause-long", PauseLong),
    ("pause-leader", PauseLeader),
    ("term-one", TermOne),
    ("term-leader", TermLeader),
    ("rolling-restart", RollingRestart),
    ("move-leader", MoveLeader),
    ("disk-full", DiskFull),
    ("disk-stall", DiskStall),
    ("replace-member", ReplaceMember),
    ("sabotage", Sabotage),
];

impl FaultKind {
    /// Its name, as in `--faults`.
    pub(crate) fn name(self) -> &'static str {
        NAMES.iter().find(|(_, kind)| *kind == self).map_or("", |(name, _)| name)
    }

    /// Whether it needs a network of namespaces.
    pub(crate) fn needs_network(self) -> bool {
        self <= Delay
    }

    /// Whether it needs members with a disk of their own.
    pub(crate) fn needs_disk(self) -> bool {
        matches!(self, DiskFull | DiskStall)
    }

    fn is_slow(self) -> bool {
        matches!(self, RollingRestart | DiskFull | DiskStall | ReplaceMember)
    }

    fn group(self) -> &'static str {
        match self {
            kind if kind.needs_network() => "network",
            kind if kind.needs_disk() => "disk",
            MoveLeader | ReplaceMember => "membership",
            Sabotage => "sabotage",
            _ => "process",
        }
    }

    /// From the shortest to the longest time it is kept up, in milliseconds.
    fn lasts(self, election: Duration) -> (u64, u64) {
        let election = u64::try_from(election.as_millis()).unwrap_or(1000).max(10);
        match self {
            PartitionOne | PartitionLeader | PartitionSplit | Isolate | CutIn | CutOut | Bridge => {
                (2 * election, 7 * election)
            }
            Loss | Delay => (3000, 8000),
            Sabotage => (2000, 4000),
            KillOne | KillLeader | KillMajority | KillAll => (200, 4000),
            PauseShort => (election / 10, election * 6 / 10),
            PauseLong | PauseLeader => (2 * election, 6 * election),
            TermOne | TermLeader => (100, 2000),
            DiskFull => (3000, 8000),
            DiskStall => (2 * election, 6 * election),
            // Over when their steps are.
            MoveLeader | RollingRestart | ReplaceMember => (0, 1),
        }
    }
}

/// The faults of a list of names and groups.
///
/// # Errors
/// When a name is none.
pub(crate) fn parse(names: &[String], duration: Duration) -> Result<Vec<FaultKind>, LoadError> {
    let mut kinds = Vec::new();
    for name in names {
        let is_meant = |known: &str, kind: FaultKind| match name.as_str() {
            "all" => kind != Sabotage,
            "auto" => kind != Sabotage && (duration >= LONG_ROUND || !kind.is_slow()),
            name => name == known || name == kind.group(),
        };
        let before = kinds.len();
        kinds.extend(NAMES.iter().filter(|(known, kind)| is_meant(known, *kind)).map(|of| of.1));
        if kinds.len() == before && name != "none" {
            let known: Vec<&str> = NAMES.iter().map(|(known, _)| *known).collect();
            let text = format!(
                "no fault {name:?}: auto, all, none, network, process, disk, membership, {}",
                known.join(", ")
            );
            return Err(LoadError::Usage(text));
        }
    }
    kinds.sort_unstable();
    kinds.dedup();
    Ok(kinds)
}

/// One fault of a round.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Planned {
    /// How long nothing happens before it.
    pub(crate) quiet: Duration,
    /// What happens.
    pub(crate) kind: FaultKind,
    /// For how long.
    pub(crate) lasts: Duration,
    /// Decides whom it meets, and how hard.
    pub(crate) dice: u64,
}

/// Draws the plan of a round from its seed. Kinds come in a random order, each once, then all
/// again in another. The steps of some take longer than is known here: a round ends when its
/// time is over, whatever is left of the plan.
pub(crate) fn plan(
    seed: u64,
    kinds: &[FaultKind],
    duration: Duration,
    election: Duration,
) -> Vec<Planned> {
    let mut random = SmallRng::seed_from_u64(seed);
    let (mut plan, mut deck) = (Vec::new(), Vec::new());
    let mut time = QUIET;
    loop {
        if deck.is_empty() {
            deck = kinds.to_vec();
            deck.shuffle(&mut random);
        }
        let Some(kind) = deck.pop() else { return plan };
        let (shortest, mut longest) = kind.lasts(election);
        if duration < USUAL_ROUND {
            longest = shortest + (longest - shortest) / 3;
        }
        let lasts = Duration::from_millis(random.random_range(shortest..=longest));
        let quiet = Duration::from_millis(random.random_range(1000..3000));
        let dice = random.next_u64();
        time += quiet + lasts;
        if time + QUIET > duration {
            return plan;
        }
        plan.push(Planned { quiet, kind, lasts, dice });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ELECTION: Duration = Duration::from_secs(1);

    fn parsed(names: &[&str], seconds: u64) -> Result<Vec<FaultKind>, LoadError> {
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        parse(&names, Duration::from_secs(seconds))
    }

    #[test]
    fn names_and_groups_are_read() {
        assert_eq!(parsed(&["all"], 10).unwrap().len(), NAMES.len() - 1, "sabotage is not meant");
        assert_eq!(
            parsed(&["kill-one", "disk", "kill-one"], 10).unwrap(),
            [KillOne, DiskFull, DiskStall]
        );
        assert!(parsed(&["network"], 10).unwrap().iter().all(|kind| kind.needs_network()));
        assert!(!parsed(&["auto"], 60).unwrap().contains(&ReplaceMember));
        assert!(parsed(&["auto"], 600).unwrap().contains(&ReplaceMember));
        assert_eq!(parsed(&["none"], 10).unwrap(), []);
        assert!(parsed(&["earthquake"], 10).is_err());
    }

    #[test]
    fn every_kind_has_one_name() {
        for (name, kind) in NAMES {
            assert_eq!(kind.name(), name);
            assert_eq!(parsed(&[name], 10).unwrap(), [kind]);
        }
    }

    #[test]
    fn the_same_seed_gives_the_same_plan_and_it_fits() {
        let kinds = parsed(&["all"], 600).unwrap();
        let duration = Duration::from_secs(600);
        let one = plan(7, &kinds, duration, ELECTION);
        assert_eq!(one, plan(7, &kinds, duration, ELECTION));
        assert_ne!(one, plan(8, &kinds, duration, ELECTION));
        let total: Duration = one.iter().map(|planned| planned.quiet + planned.lasts).sum();
        assert!(total < duration);
        let met = |kind| one.iter().any(|planned| planned.kind == kind);
        assert!(kinds.iter().all(|kind| met(*kind)));
    }

    #[test]
    fn no_faults_is_a_plan_too() {
        assert_eq!(plan(1, &[], Duration::from_secs(60), ELECTION), []);
    }
}
