//! One seed: a world is made, lives for a while, is mended, and is judged.

use std::collections::{BTreeMap, BTreeSet};

use castd_actors::compactor::AutoCompaction;
use castd_actors::mvcc::SealPolicy;
use castd_check::{Evidence, Judgement, Problem, Tally, judge};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use crate::chance::Chance;
use crate::clients::{
    Historian, Holder, KeyClient, LEASES_LATE, Locker, Operator, Steward, Watcher,
};
use crate::member::{MemberConfig, Part};
use crate::plan::{Plan, Planned, Profile};
use crate::story::Story;
use crate::time::{MS, Nanos, SECOND, seconds};
use crate::world::{Event, World};

/// Virtual time within which a mended cluster serves, and its members agree.
const RECOVERY: Nanos = 80 * SECOND;

/// What to run.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Decides everything.
    pub seed: u64,
    /// What kind of trouble there is.
    pub profile: Profile,
    /// How long faults and clients go on, in virtual time.
    pub span: Nanos,
    /// Faults that are left out, by their number in the plan: what a failure does not
    /// need is found by leaving it out.
    pub without: BTreeSet<usize>,
    /// Whether the story is told.
    pub verbose: bool,
    /// A bug that the members have.
    #[cfg(feature = "planted")]
    pub planted: Option<castd_actors::shared::Planted>,
}

impl Settings {
    /// The usual life of a world.
    pub fn new(seed: u64, profile: Profile) -> Self {
        Self {
            seed,
            profile,
            span: 20 * SECOND,
            without: BTreeSet::new(),
            verbose: false,
            #[cfg(feature = "planted")]
            planted: None,
        }
    }
}

/// What came of it.
#[derive(Debug)]
pub struct Outcome {
    /// The seed.
    pub seed: u64,
    /// What must not be; empty when all was well.
    pub problems: Vec<Problem>,
    /// How much there was to judge; its problems are among the others.
    pub judged: Judgement,
    /// When the first problem was seen, or the world ended.
    pub ended: Nanos,
    /// Events that happened.
    pub steps: u64,
    /// What became of the clients' calls.
    pub calls: Tally,
    /// The plan: what was to go wrong, and when, in words; those left out included.
    pub plan: Vec<String>,
    /// How often things of a kind happened: faults, elections, snapshots...
    pub counts: BTreeMap<&'static str, u64>,
    /// Messages of each kind that arrived.
    pub messages: BTreeMap<&'static str, u64>,
    /// Turns of each actor.
    pub turns: BTreeMap<Part, u64>,
    /// Everything the clients were told, line by line, if the story was wished.
    pub history: String,
    /// A number that differs when anything differed that happened.
    pub digest: u64,
    /// What happened, line by line, if that was wished.
    pub story: Vec<String>,
}

/// Runs a seed.
pub fn run(settings: &Settings) -> Outcome {
    #[cfg(feature = "planted")]
    castd_actors::shared::plant(settings.planted);
    let mut chance = StdRng::seed_from_u64(settings.seed);
    let config = config(&mut chance);
    let members = members(settings.profile, &mut chance);
    // Streams of their own: a fault less leaves the plan and the clients as they are.
    let mut plan_chance = StdRng::seed_from_u64(chance.random());
    let plan = Plan::draw(settings.profile, &mut plan_chance, settings.span, members);
    let story = Story::new(settings.verbose);
    let mut world =
        World::new(Chance::seeded(chance.random()), config, plan.weather.clone(), story);
    world.found(members);
    arrange(&mut world, &plan.faults, &settings.without);
    add_clients(&mut world, &mut chance, settings.profile, members);
    world.run_until(settings.span);
    if world.watchman.problems.is_empty() {
        recover(&mut world);
    }
    conclude(settings, world, &plan.faults)
}

fn members(profile: Profile, chance: &mut StdRng) -> u64 {
    match chance.random_range(0..10) {
        0 if profile != Profile::Membership => 1,
        0..8 => 3,
        _ => 5,
    }
}

/// Those who use the cluster.
fn add_clients(world: &mut World, chance: &mut StdRng, profile: Profile, members: u64) {
    let keys = chance.random_range(2..12);
    for client in 0..6 {
        let pause = chance.random_range(5 * MS..200 * MS);
        world.add_client(Box::new(KeyClient::new(keys, pause, client % members + 1)));
    }
    for watcher in 0..chance.random_range(1..4) {
        let pause = chance.random_range(4 * MS..40 * MS);
        world.add_client(Box::new(Watcher::new(keys, pause, watcher * 1_000_000)));
    }
    for holder in 0..chance.random_range(2..6) {
        world.add_client(Box::new(Holder::new(holder % members + 1)));
    }
    for locker in 0..chance.random_range(2..6) {
        // Two locks at most, so that there is something to wait for.
        world.add_client(Box::new(Locker::new(locker % 2, u64::from(locker) % members + 1)));
    }
    world.add_client(Box::new(Historian::new(keys, 1)));
    if chance.random_bool(0.8) {
        world.add_client(Box::new(Operator::new()));
    }
    if profile == Profile::Membership {
        world.add_client(Box::new(Steward::new(members)));
    }
}

fn arrange(world: &mut World, faults: &[Planned], without: &BTreeSet<usize>) {
    let faults = faults.iter().enumerate().filter(|(number, _)| !without.contains(number));
    for (_, Planned { at, fault, end }) in faults {
        world.after(*at, Event::Fault(fault.clone()));
        if let Some((at, fault)) = end {
            world.after(*at, Event::Fault(fault.clone()));
        }
    }
}

/// Mends everything and waits until the cluster is well again.
fn recover(world: &mut World) {
    world.mend();
    world.retire_clients();
    let deadline = world.now + RECOVERY;
    while world.watchman.problems.is_empty() {
        if world.is_well() {
            return world.take_all_fingerprints();
        }
        let next = world.now + 100 * MS;
        if next > deadline {
            let state = world.describe() + &world.describe_clients();
            let text = format!("not well {} after all was mended:{state}", seconds(RECOVERY));
            return world.watchman.problem("a mended cluster serves again", text);
        }
        world.run_until(next);
    }
}

fn conclude(settings: &Settings, mut world: World, faults: &[Planned]) -> Outcome {
    let recovered = world.watchman.problems.is_empty();
    let mut clients = world.take_clients();
    let mut evidence = Evidence {
        stored: vec![world.watchman.changes()],
        fingerprints: std::mem::take(&mut world.watchman.fingerprints),
        compacted: world.watchman.compacted,
        early_tolerance: world.lease_tolerance(),
        late_bound: Some(LEASES_LATE),
        calm_since: world.calm_since.unwrap_or(0),
        leases_over: recovered.then_some(world.now),
        ..Evidence::default()
    };
    evidence.sightings.lease_ends = std::mem::take(&mut world.watchman.lease_ends);
    clients.iter_mut().for_each(|client| client.testify(&mut evidence));
    let held = [
        ("lease held", evidence.leases.len()),
        ("lock held", evidence.holds.len()),
        ("watch judged", evidence.sightings.stretches.len()),
    ];
    world.watchman.counts.extend(held.map(|(what, count)| (what, count as u64)));
    let mut problems = std::mem::take(&mut world.watchman.problems);
    let mut judged = judge(&evidence);
    problems.append(&mut judged.problems);
    if judged.undecided > 0 {
        let text = format!("the search was given up for {} keys", judged.undecided);
        problems.push(Problem::new("the judge decides", text));
    }
    let history = if settings.verbose { history(&evidence) } else { String::new() };
    Outcome {
        seed: settings.seed,
        problems,
        judged,
        ended: world.now,
        steps: world.steps,
        calls: evidence.records.tally,
        plan: faults.iter().map(ToString::to_string).collect(),
        counts: std::mem::take(&mut world.watchman.counts),
        messages: std::mem::take(&mut world.watchman.messages),
        turns: std::mem::take(&mut world.watchman.turns),
        history,
        digest: world.story.digest(),
        story: std::mem::take(&mut world.story.lines),
    }
}

/// All that the clients were told, a line for each call, watch, lease and lock.
fn history(evidence: &Evidence) -> String {
    let Evidence { records, sightings, leases, holds, .. } = evidence;
    let operations = records.operations.iter().map(ToString::to_string);
    let ranges = records.range_reads.iter().map(|read| format!("{read} {:?}", read.pairs));
    let watches = sightings.stretches.iter().map(|stretch| format!("{stretch:?}"));
    let leases = leases.iter().map(|lease| format!("{lease:?}"));
    let holds = holds.iter().map(|hold| format!("{hold:?}"));
    let lines: Vec<String> =
        operations.chain(ranges).chain(watches).chain(leases).chain(holds).collect();
    lines.join("\n")
}

fn config(chance: &mut StdRng) -> MemberConfig {
    MemberConfig {
        pre_vote: chance.random_bool(0.9),
        snapshot_count: chance.random_range(20..400),
        backlog_bytes_max: chance.random_range(1..32) << 10,
        seal: SealPolicy {
            log_bytes: chance.random_range(8..64) << 10,
            entries: chance.random_range(20..300),
        },
        segment_bytes: chance.random_range(4..16) * 4096,
        scrub_records: chance.random_range(10..200),
        compaction: compaction(chance),
        fragment_bytes: chance.random_range(1..32) << 10,
    }
}

fn compaction(chance: &mut StdRng) -> AutoCompaction {
    match chance.random_range(0..10) {
        0..6 => AutoCompaction::Off,
        6..9 => AutoCompaction::Revision { retention: chance.random_range(20..500) },
        _ => AutoCompaction::Periodic { retention_ms: chance.random_range(1000..5000) },
    }
}
