//! Long histories of many clients at once: right ones are found right, falsified ones are not,
//! and neither takes long.

mod world;

use std::time::{Duration, Instant};

use castd_check::{Evidence, Input, Judgement, Output, Response, Seen, judge};
use world::{Scale, World};

const SMALL: Scale = Scale { calls: 300, clients: 8, keys: 4 };

/// Judges a history of which it is known how many operations it has at least.
fn timed(name: &str, evidence: &Evidence) -> (Judgement, Duration) {
    let start = Instant::now();
    let judgement = judge(evidence);
    let took = start.elapsed();
    eprintln!(
        "{name}: {} operations on {} keys, {} range reads, {} events, {} watched: {took:.1?}",
        judgement.operations,
        judgement.keys,
        judgement.range_reads,
        judgement.events,
        judgement.watched
    );
    (judgement, took)
}

#[test]
fn many_right_histories_are_found_right() {
    for seed in 0..100 {
        let judgement = judge(&World::run(seed, SMALL));
        assert_eq!((judgement.problems.as_slice(), judgement.undecided), (&[][..], 0), "{seed}");
        assert!(judgement.operations > 200 && judgement.watched > 100);
    }
}

#[test]
fn what_is_told_is_enough_where_few_answers_are_lost() {
    for seed in 0..20 {
        let mut evidence = World::run(seed, Scale { calls: 60, clients: 4, keys: 4 });
        evidence.stored.clear();
        let judgement = judge(&evidence);
        assert_eq!((judgement.problems.as_slice(), judgement.undecided), (&[][..], 0), "{seed}");
    }
}

#[test]
fn the_same_evidence_gets_the_same_words() {
    let mut evidence = World::run(7, SMALL);
    for operation in evidence.records.operations.iter_mut().step_by(9) {
        operation.returned = operation.returned.min(operation.called + 1);
        if let Output::Done { seen: Seen::Kv(Some(kv)), .. } = &mut operation.output {
            kv.version += 1;
        }
    }
    evidence.stored[0].truncate(100);
    let judgement = judge(&evidence);
    assert!(judgement.problems.len() > 10, "{judgement:?}");
    for _ in 0..5 {
        assert_eq!(judge(&evidence), judgement);
    }
}

/// Falsifies a history in one place of many; answers how often that was found.
fn found(falsify: impl Fn(&mut Evidence, usize) -> bool) -> (usize, usize) {
    let (mut done, mut found) = (0, 0);
    for seed in 0..40 {
        let mut evidence = World::run(seed, SMALL);
        if falsify(&mut evidence, 100 + seed as usize) {
            done += 1;
            found += usize::from(!judge(&evidence).problems.is_empty());
        }
    }
    (done, found)
}

#[test]
fn histories_falsified_in_one_place_are_found() {
    let old_read = found(|evidence, place| {
        let mut reads = evidence.records.operations[place..].iter_mut();
        let read = reads.find(|operation| operation.input == Input::Get);
        read.is_some_and(|read| {
            let Output::Done { revision, .. } = &mut read.output else { return false };
            *revision -= 60;
            true
        })
    });
    assert_eq!(old_read, (40, 40));
    let lost_write = found(|evidence, place| {
        let made = evidence.records.operations[place..].iter().find_map(|one| one.made());
        evidence.stored[0].retain(|event| Some(event.revision) != made);
        made.is_some()
    });
    assert_eq!(lost_write, (40, 40));
    let skipped = found(|evidence, place| {
        let responses = &mut evidence.sightings.stretches[place % 12].responses;
        let events = |response: &Response| matches!(response, Response::Events { .. });
        let place = responses.iter().position(events);
        place.is_some_and(|place| {
            responses.remove(place);
            true
        })
    });
    assert_eq!(skipped.0, skipped.1);
    assert!(skipped.0 > 20);
    let stale_key = found(|evidence, place| {
        let reads = &mut evidence.records.range_reads;
        let place = place % reads.len();
        reads[place].pairs.pop().is_some()
    });
    assert_eq!(stale_key.0, stale_key.1);
    assert!(stale_key.0 > 30);
}

#[test]
fn long_histories_are_judged_in_time() {
    for scale in [
        Scale { calls: 10_000, clients: 10, keys: 10 },
        Scale { calls: 10_000, clients: 40, keys: 50 },
        Scale { calls: 20_000, clients: 100, keys: 10 },
        Scale { calls: 20_000, clients: 20, keys: 2 },
    ] {
        let (judgement, took) = timed(&format!("{scale:?}"), &World::run(1, scale));
        assert_eq!((judgement.problems.as_slice(), judgement.undecided), (&[][..], 0));
        assert!(took < Duration::from_secs(20), "{took:?}");
    }
}

#[test]
fn long_falsified_histories_are_judged_in_time() {
    let mut evidence = World::run(1, Scale { calls: 10_000, clients: 40, keys: 10 });
    let mut reads = evidence.records.operations[5000..].iter_mut();
    let read = reads.find(|operation| operation.input == Input::Get).unwrap();
    if let Output::Done { revision, .. } = &mut read.output {
        *revision -= 1000;
    }
    let (judgement, took) = timed("falsified", &evidence);
    let linearizable = |problem: &castd_check::Problem| problem.promise == "linearizable";
    assert!(judgement.problems.iter().any(linearizable), "{judgement:?}");
    assert!(took < Duration::from_secs(20), "{took:?}");
}
