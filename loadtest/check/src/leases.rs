//! What lease holders were promised: a lease lives its time, ends when nobody keeps it, and
//! takes all its keys with it at once.

use std::time::Duration;

use serde::Serialize;

use super::ledger::Ledger;
use super::{Evidence, Problems};
use crate::history::{Key, Moment, NEVER};

/// What a lease was promised.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct LeaseRecord {
    /// Its number.
    pub id: i64,
    /// The keys attached to it, from [`LEASE_KEYS`](crate::LEASE_KEYS) on. Nobody deletes them
    /// but the lease's end.
    pub keys: Vec<Key>,
    /// Its time to live, as granted.
    pub ttl: Duration,
    /// When the grant and each renewal that was confirmed was sent, and confirmed: it lives at
    /// least its time from the former.
    pub renewed: Vec<(Moment, Moment)>,
    /// Since when nobody keeps it any more. Nothing sent before can renew it later.
    pub left: Option<Moment>,
    /// Since when it may go at once: a revocation was sent.
    pub revoked: Option<Moment>,
    /// When a renewal was answered with: no such lease.
    pub denied: Option<Moment>,
}

impl LeaseRecord {
    fn ttl(&self) -> Moment {
        Moment::try_from(self.ttl.as_nanos()).unwrap_or(NEVER)
    }

    /// When all time somebody may have given it is over, in a world that was calm since a
    /// moment: a new leader gives leases their whole time again.
    fn expected_end(&self, calm_since: Moment) -> Option<Moment> {
        let confirmed = self.renewed.last().map_or(0, |(_, confirmed)| *confirmed);
        Some(self.left?.max(confirmed).max(calm_since).saturating_add(self.ttl()))
    }
}

/// No lease ended before its time, late, or in parts, and none that was left alone is still
/// there.
pub(super) fn check(evidence: &Evidence, ledger: &Ledger<'_>, problems: &mut Problems) {
    for lease in &evidence.leases {
        check_end(evidence, lease, ledger, problems);
        check_parts(lease, ledger, problems);
    }
}

fn check_end(
    evidence: &Evidence,
    lease: &LeaseRecord,
    ledger: &Ledger<'_>,
    problems: &mut Problems,
) {
    let ends = &evidence.sightings.lease_ends;
    let first_gone = lease.keys.iter().filter_map(|key| ends.get(key).copied()).min();
    let ended = first_gone.unwrap_or(NEVER).min(lease.denied.unwrap_or(NEVER));
    if let Some(text) = early_end(lease, ended, evidence.early_tolerance) {
        problems.add("a lease lives its time", text);
    }
    let Some(over) = evidence.leases_over else { return };
    let left_behind = lease.keys.iter().find(|key| ledger.last(**key).is_some());
    let expected = lease.expected_end(evidence.calm_since);
    match (evidence.late_bound, expected) {
        (Some(bound), Some(expected)) => {
            let latest = expected.saturating_add(bound);
            let gone = if left_behind.is_some() { over } else { first_gone.unwrap_or(0) };
            if gone > latest {
                let there = if left_behind.is_some() { "still there" } else { "gone" };
                let text = format!(
                    "{}: its time was over at {:.3} s, {there} at {:.3}",
                    name(lease),
                    seconds(expected),
                    seconds(gone)
                );
                problems.add("a lease that is left alone ends", text);
            }
        }
        (None, _) if left_behind.is_some() => {
            let text = format!("{} is still there", name(lease));
            problems.add("a lease that is left alone ends", text);
        }
        _ => {}
    }
}

/// All keys go at one revision.
fn check_parts(lease: &LeaseRecord, ledger: &Ledger<'_>, problems: &mut Problems) {
    let deletions = lease.keys.iter().flat_map(|key| ledger.deletions(*key));
    let mut deletions = deletions.map(|event| (event.revision, event.key));
    let Some((revision, first)) = deletions.next() else { return };
    if let Some((other, key)) = deletions.find(|(other, _)| *other != revision) {
        let text = format!(
            "{}: key {first} went at revision {revision}, key {key} at {other}",
            name(lease)
        );
        problems.add("a lease ends with all its keys at once", text);
    } else if let Some(key) = lease.keys.iter().find(|key| ledger.last(**key).is_some()) {
        let text =
            format!("{}: key {first} went at revision {revision}, key {key} stays", name(lease));
        problems.add("a lease ends with all its keys at once", text);
    }
}

/// What is wrong about a lease that had ended by a moment.
fn early_end(lease: &LeaseRecord, ended: Moment, tolerance: Moment) -> Option<String> {
    if lease.revoked.is_some_and(|revoked| revoked <= ended) {
        return None;
    }
    let (sent, confirmed) = lease.renewed.iter().rfind(|(_, confirmed)| *confirmed < ended)?;
    let promised = sent.saturating_add(lease.ttl());
    (ended.saturating_add(tolerance) < promised).then(|| {
        format!(
            "{}: renewed for {:?} at {:.3} s (confirmed at {:.3}), gone at {:.3}",
            name(lease),
            lease.ttl,
            seconds(*sent),
            seconds(*confirmed),
            seconds(ended)
        )
    })
}

fn name(lease: &LeaseRecord) -> String {
    format!("lease {:x} (keys {:?})", lease.id, lease.keys)
}

fn seconds(moment: Moment) -> f64 {
    Duration::from_nanos(moment).as_secs_f64()
}
