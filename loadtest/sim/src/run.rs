//! One seed: a world is made, lives for a while, is mended, and is judged.

use std::collections::BTreeMap;

use castd_actors::compactor::AutoCompaction;
use castd_actors::mvcc::SealPolicy;
use castd_check::{Evidence, Problem, judge};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use crate::clients::KeyClient;
use crate::member::MemberConfig;
use crate::story::Story;
use crate::time::{MS, Nanos, SECOND};
use crate::weather::Weather;
use crate::world::World;

/// What to run.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Decides everything.
    pub seed: u64,
    /// How long faults and clients go on, in virtual time.
    pub span: Nanos,
    /// Whether the story is told.
    pub verbose: bool,
}

/// What came of it.
#[derive(Debug)]
pub struct Outcome {
    /// The seed.
    pub seed: u64,
    /// What must not be; empty when all was well.
    pub problems: Vec<Problem>,
    /// Virtual time that went by.
    pub span: Nanos,
    /// Events that happened.
    pub steps: u64,
    /// Calls that clients made.
    pub calls: u64,
    /// How often things of a kind happened.
    pub counts: BTreeMap<&'static str, u64>,
    /// The story and its digest.
    pub story: Story,
}

/// Runs a seed.
pub fn run(settings: &Settings) -> Outcome {
    let mut chance = StdRng::seed_from_u64(settings.seed);
    let story = Story::new(settings.verbose);
    let mut world = World::new(chance.random(), config(&mut chance), Weather::fair(), story);
    world.found(3);
    for client in 0..6 {
        world.add_client(Box::new(KeyClient::new(8, 50 * MS, client % 3 + 1)));
    }
    world.run_until(settings.span);
    let mut clients = world.take_clients();
    let mut evidence = Evidence {
        stored: vec![world.watchman.changes()],
        fingerprints: std::mem::take(&mut world.watchman.fingerprints),
        compacted: world.watchman.compacted,
        ..Evidence::default()
    };
    clients.iter_mut().for_each(|client| client.testify(&mut evidence));
    let mut problems = std::mem::take(&mut world.watchman.problems);
    problems.extend(judge(&evidence).problems);
    Outcome {
        seed: settings.seed,
        problems,
        span: world.now,
        steps: world.steps,
        calls: world.watchman.calls,
        counts: std::mem::take(&mut world.watchman.counts),
        story: std::mem::take(&mut world.story),
    }
}

fn config(chance: &mut StdRng) -> MemberConfig {
    MemberConfig {
        pre_vote: chance.random_bool(0.9),
        snapshot_count: chance.random_range(20..400),
        seal: SealPolicy {
            log_bytes: chance.random_range(8..64) << 10,
            entries: chance.random_range(20..300),
        },
        segment_bytes: chance.random_range(4..16) * 4096,
        scrub_records: chance.random_range(10..200),
        compaction: AutoCompaction::Off,
    }
}

const _: Nanos = SECOND;
