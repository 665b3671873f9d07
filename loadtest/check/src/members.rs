//! Members against each other: what one state machine makes of a log, every one makes of it.

use serde::Serialize;

use super::Problems;
use crate::history::Event;

/// A look at a member's state machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Fingerprint {
    /// The member.
    pub member: u8,
    /// Which process of it.
    pub life: u16,
    /// The index of the last entry of the log it had applied.
    pub applied_index: u64,
    /// The store's revision there.
    pub revision: i64,
    /// A hash of all that must be equal.
    pub hash: u64,
}

/// At equal applied indices all looks show the same; at higher ones no lower revision.
/// Tells where that first fails.
pub(super) fn check_fingerprints(fingerprints: &[Fingerprint], problems: &mut Problems) {
    let mut looks: Vec<&Fingerprint> = fingerprints.iter().collect();
    looks.sort_by_key(|look| (look.applied_index, look.member, look.life));
    for pair in looks.windows(2) {
        let (one, other) = (pair[0], pair[1]);
        let agree = if one.applied_index == other.applied_index {
            (one.revision, one.hash) == (other.revision, other.hash)
        } else {
            one.revision <= other.revision
        };
        if !agree {
            let text = format!("\n    {}\n    {}", describe(one), describe(other));
            return problems.add("members agree", text);
        }
    }
}

fn describe(look: &Fingerprint) -> String {
    let Fingerprint { member, life, applied_index, revision, hash } = look;
    format!(
        "m{} (process {life}) at applied index {applied_index}: revision {revision}, hash \
         {hash:016x}",
        member + 1
    )
}

/// All members tell the same events.
pub(super) fn compare_events(stored: &[Vec<Event>], problems: &mut Problems) {
    let Some((first, others)) = stored.split_first() else { return };
    for (other, events) in others.iter().enumerate() {
        if events == first {
            continue;
        }
        let apart = first.iter().zip(events).position(|(one, other)| one != other);
        let place = apart.unwrap_or(first.len().min(events.len()));
        let text = format!(
            "m1 and m{} tell different events ({} and {}), first:\n    {:?}\n    {:?}",
            other + 2,
            first.len(),
            events.len(),
            first.get(place),
            events.get(place)
        );
        problems.add("members agree", text);
    }
}
