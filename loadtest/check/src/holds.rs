//! Locks: nobody holds one while somebody else does.

use std::time::Duration;

use serde::Serialize;

use super::Problems;
use crate::history::{Key, Moment};

/// A time during which somebody could rely on holding a lock, whose key went with a lease.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Hold {
    /// The lock's key.
    pub lock: Key,
    /// The holder.
    pub holder: u16,
    /// The holder's lease.
    pub lease: i64,
    /// When the holder was told that it holds the lock.
    pub from: Moment,
    /// Until when the lease lives at least: its time from when its last renewal that was
    /// confirmed was sent.
    pub promised: Moment,
    /// When the holder began to give the lock back, or heard that it is gone.
    pub released: Moment,
}

impl Hold {
    /// The end of what the holder could rely on.
    fn until(&self, tolerance: Moment) -> Moment {
        self.released.min(self.promised.saturating_sub(tolerance))
    }
}

/// No two holds of a lock overlap. Leases may end so much early.
pub(super) fn check(holds: &[Hold], tolerance: Moment, problems: &mut Problems) {
    let mut holds: Vec<&Hold> = holds.iter().collect();
    holds.sort_by_key(|hold| (hold.lock, hold.from, hold.holder));
    let mut longest: Option<&Hold> = None;
    for hold in holds {
        let before = longest.filter(|before| before.lock == hold.lock);
        if let Some(before) = before
            && hold.from < before.until(tolerance)
        {
            let text = format!("\n    {}\n    {}", describe(before), describe(hold));
            problems.add("a lock has one holder", text);
        }
        let later = |before: &&Hold| before.until(tolerance) > hold.until(tolerance);
        longest = Some(before.filter(later).unwrap_or(hold));
    }
}

fn describe(hold: &Hold) -> String {
    let seconds = |moment: Moment| Duration::from_nanos(moment).as_secs_f64();
    let Hold { lock, holder, lease, from, promised, released } = hold;
    format!(
        "lock {lock}: client {holder} with lease {lease:x} from {:.3} s, promised until {:.3}, \
         released at {:.3}",
        seconds(*from),
        seconds(*promised),
        seconds(*released)
    )
}
