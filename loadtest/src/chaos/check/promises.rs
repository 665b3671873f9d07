//! What watchers and lease holders were promised.

use std::time::Duration;

use super::Problems;
use crate::chaos::history::{Moment, NEVER};
use crate::chaos::leases::LeaseRecord;
use crate::chaos::watchers::{Sightings, Stretch, digest};
use crate::chaos::wire::Event;

/// Every stretch delivered exactly the stored events between its ends, in their order.
pub(super) fn check_watches(stretches: &[Stretch], events: &[Event], problems: &mut Problems) {
    let stored: Vec<(i64, u64)> =
        events.iter().map(|event| (event.revision, digest(event))).collect();
    for stretch in stretches {
        let place = |revision: i64| stored.partition_point(|(stored, _)| *stored < revision);
        let expected = &stored[place(stretch.first)..place(stretch.reached + 1)];
        if expected == stretch.events {
            continue;
        }
        let pairs = expected.iter().zip(&stretch.events);
        let apart = pairs.take_while(|(stored, seen)| stored == seen).count();
        let what = match (expected.get(apart), stretch.events.get(apart)) {
            (Some((stored, _)), Some((seen, _))) if stored < seen => "an event is missing",
            (Some((stored, _)), Some((seen, _))) if stored == seen => "an event differs",
            (Some(_), None) => "an event is missing",
            _ => "an event that is not stored",
        };
        let text = format!(
            "({:?}) on m{} from revision {} to {}: {what}: stored {:?}, seen {:?}",
            stretch.habit,
            stretch.member + 1,
            stretch.first,
            stretch.reached,
            events.get(place(stretch.first) + apart),
            stretch.events.get(apart).map(|(revision, _)| revision)
        );
        problems.add("watch", text);
    }
}

/// No lease ended before its time, and none that was left alone is still there.
pub(super) fn check_leases(
    leases: &[LeaseRecord],
    sightings: &Sightings,
    events: &[Event],
    over: Moment,
    problems: &mut Problems,
) {
    for lease in leases {
        let seen = sightings.lease_ends.get(&lease.key).copied();
        let ended = seen.unwrap_or(NEVER).min(lease.denied.unwrap_or(NEVER));
        if let Some(text) = early_end(lease, ended) {
            problems.add("a lease lives its time", text);
        }
        let last = events.iter().rev().find(|event| event.key == lease.key);
        let still_there = last.is_some_and(|event| event.now.is_some());
        if still_there && over != NEVER {
            let text = format!("lease {:x} (key {}) is still there", lease.id, lease.key);
            problems.add("a lease that is left alone ends", text);
        }
    }
}

/// What is wrong about a lease that had ended by a moment.
fn early_end(lease: &LeaseRecord, ended: Moment) -> Option<String> {
    if lease.revoked.is_some_and(|revoked| revoked <= ended) {
        return None;
    }
    let ttl = Moment::try_from(lease.ttl.as_nanos()).unwrap_or(NEVER);
    let (sent, confirmed) = lease.renewed.iter().rfind(|(_, confirmed)| *confirmed < ended)?;
    let promised = sent.saturating_add(ttl);
    let seconds = |moment: Moment| Duration::from_nanos(moment).as_secs_f64();
    (ended < promised).then(|| {
        format!(
            "lease {:x} (key {}): renewed for {:?} at {:.3} s (confirmed at {:.3}), gone at {:.3}",
            lease.id,
            lease.key,
            lease.ttl,
            seconds(*sent),
            seconds(*confirmed),
            seconds(ended)
        )
    })
}
