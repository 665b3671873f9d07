//! Leases: early, late, in parts, for ever.

use std::time::Duration;

use super::*;

const SECOND: Moment = 1_000_000_000;
const ONE: Key = LEASE_KEYS + 1;
const TWO: Key = LEASE_KEYS + 2;

/// A lease of five seconds, renewed at ten and left alone at eleven.
fn lease() -> LeaseRecord {
    LeaseRecord {
        id: 7,
        keys: vec![ONE],
        ttl: Duration::from_secs(5),
        renewed: vec![(0, 1), (10 * SECOND, 10 * SECOND + 1)],
        left: Some(11 * SECOND),
        revoked: None,
        denied: None,
    }
}

/// A lease whose key was put and deleted, seen to go at a moment.
fn ended_at(moment: Moment) -> Evidence {
    let mut store = Store::new();
    store.write(ONE, Some(1));
    store.write(ONE, None);
    let mut evidence = store.evidence();
    evidence.leases = vec![lease()];
    evidence.sightings.lease_ends = [(ONE, moment)].into();
    evidence
}

#[test]
fn leases_live_their_time() {
    assert_eq!(promises(&ended_at(15 * SECOND)), NONE);
    let mut evidence = ended_at(14 * SECOND);
    assert_eq!(promises(&evidence), ["a lease lives its time"]);
    evidence.early_tolerance = SECOND;
    assert_eq!(promises(&evidence), NONE);
    evidence.early_tolerance = SECOND - 1;
    assert_eq!(promises(&evidence), ["a lease lives its time"]);
    let mut evidence = ended_at(12 * SECOND);
    evidence.leases[0].revoked = Some(11 * SECOND);
    assert_eq!(promises(&evidence), NONE);
    let mut evidence = ended_at(15 * SECOND);
    evidence.leases[0].denied = Some(13 * SECOND);
    assert_eq!(promises(&evidence), ["a lease lives its time"]);
}

#[test]
fn leases_do_not_live_for_ever() {
    let mut evidence = ended_at(15 * SECOND);
    for events in &mut evidence.stored {
        events.pop();
    }
    evidence.sightings.lease_ends.clear();
    assert_eq!(promises(&evidence), ["a lease that is left alone ends"]);
    evidence.leases_over = None;
    assert_eq!(promises(&evidence), NONE);
}

#[test]
fn leases_end_in_time() {
    // Left at 11 seconds, it may live to 16, and one more.
    let bounded = |moment| Evidence { late_bound: Some(SECOND), ..ended_at(moment) };
    assert_eq!(promises(&bounded(17 * SECOND)), NONE);
    let mut evidence = bounded(17 * SECOND + 1);
    assert_eq!(promises(&evidence), ["a lease that is left alone ends"]);
    evidence.calm_since = 12 * SECOND;
    assert_eq!(promises(&evidence), NONE);
    evidence.leases[0].left = None;
    evidence.calm_since = 0;
    assert_eq!(promises(&evidence), NONE);

    // It is still there when the history ends, which may be before its time is over.
    let mut evidence = bounded(NEVER);
    for events in &mut evidence.stored {
        events.pop();
    }
    evidence.sightings.lease_ends.clear();
    evidence.leases_over = Some(17 * SECOND);
    assert_eq!(promises(&evidence), NONE);
    evidence.leases_over = Some(18 * SECOND);
    assert_eq!(promises(&evidence), ["a lease that is left alone ends"]);
}

#[test]
fn leases_end_with_all_their_keys_at_once() {
    let whole = "a lease ends with all its keys at once";
    let end = |apart: bool, both: bool| {
        let mut store = Store::new();
        store.write(ONE, Some(1));
        store.write(TWO, Some(2));
        store.write(ONE, None);
        if both {
            store.revision -= i64::from(!apart);
            store.write(TWO, None);
        }
        let mut evidence = store.evidence();
        evidence.leases = vec![LeaseRecord { keys: vec![ONE, TWO], ..lease() }];
        evidence.leases_over = None;
        promises(&evidence)
    };
    assert_eq!(end(false, true), NONE);
    assert_eq!(end(true, true), [whole]);
    assert_eq!(end(false, false), [whole]);
}
