//! What the table of leases costs the thread that carries consensus, which does nothing else
//! meanwhile: `cargo run --release -p castd-actors --example lease_cost -- LEASES`.
//!
//! The leases were granted ten minutes each, and are renewed once by the leader.

use std::time::{Duration, Instant};

use castd_actors::lease_manager::{KeepAlive, LIST_PIECE, LeaseCore, LeaseSettings};

const TTL_S: i64 = 600;

fn timed<T>(what: &str, step: impl FnOnce() -> T) -> T {
    let start = Instant::now();
    let outcome = step();
    tell(what, start.elapsed());
    outcome
}

fn tell(what: &str, took: Duration) {
    println!("{what}: {:.2} ms", took.as_secs_f64() * 1000.0);
}

/// What is left to do, in its steps; tells the longest, too.
fn finish(core: &mut LeaseCore) {
    let (mut steps, mut longest, mut all) = (0, Duration::ZERO, Duration::ZERO);
    while core.has_work() {
        let start = Instant::now();
        core.step();
        let took = start.elapsed();
        (steps, longest, all) = (steps + 1, longest.max(took), all + took);
    }
    tell(&format!("  its {steps} steps"), all);
    tell("  the longest of them", longest);
}

/// All leases, in pieces, sorted by who asks.
fn list(core: &LeaseCore) -> usize {
    let mut leases: Vec<(u64, i64)> = Vec::new();
    let (mut longest, mut all) = (Duration::ZERO, Duration::ZERO);
    loop {
        let start = Instant::now();
        let piece = core.list(leases.last().map(|(_, id)| *id), LIST_PIECE);
        let took = start.elapsed();
        (longest, all) = (longest.max(took), all + took);
        if piece.is_empty() {
            break;
        }
        leases.extend(piece);
    }
    tell("list", all);
    tell("  the longest of its pieces", longest);
    timed("  sorting, for who asks", || leases.sort_unstable());
    leases.len()
}

fn main() {
    let leases = std::env::args().nth(1).and_then(|text| text.parse().ok()).unwrap_or(1_000_000);
    let settings = LeaseSettings { stall_ms: u64::MAX, ..LeaseSettings::default() };
    let state = || (1..=leases).map(|id: i64| (id, TTL_S, 0)).collect::<Vec<_>>();
    let first = state();
    let mut core = timed("new", || LeaseCore::new(settings, first, 0));
    timed("lead in term 1", || core.lead(Some(1), 1));
    finish(&mut core);
    let renewed = timed("renew all", || {
        (1..=leases).filter(|id| matches!(core.keep_alive(*id, 2), KeepAlive::Renewed(_))).count()
    });
    assert_eq!(renewed as i64, leases, "all are there");
    timed("lead in term 3", || core.lead(Some(3), 3));
    finish(&mut core);
    assert_eq!(list(&core) as i64, leases, "all are there");
    timed("lead no more", || core.lead(None, 4));
    finish(&mut core);
    let second = state();
    timed("reset as a follower", || core.reset(second, 5));
    finish(&mut core);
    timed("lead in term 5", || core.lead(Some(5), 6));
    finish(&mut core);
    let third = state();
    timed("reset as a leader", || core.reset(third, 7));
    finish(&mut core);
}
