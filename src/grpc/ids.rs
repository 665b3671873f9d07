//! Ids for leases whose client chose none.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

/// Hands out positive ids that no member hands out twice: 16 bits of the member's id,
/// 40 bits of the time of its start in milliseconds, then a count. As long as fewer than
/// 256 ids a millisecond are needed over the life of the process, a later start begins
/// above all of them.
pub(super) struct LeaseIds(AtomicU64);

impl LeaseIds {
    pub(super) fn new(member_id: u64, now: SystemTime) -> Self {
        let ms = now.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis());
        let ms = u64::try_from(ms & 0xff_ffff_ffff).unwrap_or_default();
        Self(AtomicU64::new(member_id << 48 | ms << 8))
    }

    pub(super) fn next(&self) -> i64 {
        loop {
            let id = self.0.fetch_add(1, Ordering::Relaxed) & (i64::MAX as u64);
            // Zero stands for no lease.
            if id != 0 {
                return id as i64;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn ids_are_positive_and_differ_between_members_and_starts() {
        let now = UNIX_EPOCH + Duration::from_secs(1_800_000_000);
        let first = LeaseIds::new(u64::MAX, now);
        let again = LeaseIds::new(u64::MAX, now + Duration::from_millis(1));
        let other = LeaseIds::new(2, now);
        let mut ids: Vec<i64> =
            (0..200).flat_map(|_| [first.next(), again.next(), other.next()]).collect();
        assert!(ids.iter().all(|id| *id > 0));
        ids.sort_unstable();
        ids.dedup();
        assert_eq!(ids.len(), 600);
    }
}
