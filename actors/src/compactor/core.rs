//! When to compact, and to which revision. Time is given in milliseconds.

use std::collections::VecDeque;

/// Automatic compaction as `--auto-compaction-mode` and `-retention` say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AutoCompaction {
    /// Never.
    Off,
    /// Keep what is younger than this.
    Periodic {
        /// The retention in milliseconds.
        retention_ms: u64,
    },
    /// Keep this many revisions.
    Revision {
        /// The retention in revisions.
        retention: i64,
    },
}

const MINUTE_MS: u64 = 60_000;
const HOUR_MS: u64 = 60 * MINUTE_MS;
/// How often the revision mode looks.
const REVISION_INTERVAL_MS: u64 = 5 * MINUTE_MS;
/// How many samples the periodic mode takes in an hour or a shorter retention.
const SAMPLES: u64 = 10;

/// The schedule. In periodic mode, as etcd does it: revisions are sampled at a
/// tenth of the retention (of an hour, when that is less); once a whole
/// retention has been seen, every hour (or retention, when that is less) the
/// store is compacted to the revision of one retention ago.
#[derive(Debug)]
pub struct Schedule {
    mode: AutoCompaction,
    samples: VecDeque<(u64, i64)>,
    next_sample_ms: u64,
    next_compaction_ms: u64,
    last: i64,
    leading: bool,
}

impl Schedule {
    /// A schedule that begins at `now_ms`.
    pub fn new(mode: AutoCompaction, now_ms: u64) -> Self {
        let mut schedule = Self {
            mode,
            samples: VecDeque::new(),
            next_sample_ms: now_ms,
            next_compaction_ms: now_ms,
            last: 0,
            leading: false,
        };
        schedule.restart(now_ms);
        schedule
    }

    /// Whether there is anything to do at all.
    pub fn is_on(&self) -> bool {
        self.mode != AutoCompaction::Off
    }

    /// Looks at the newest revision; gives the revision to compact to when it is
    /// time. Only a leader compacts, and one that has just become leader starts
    /// counting anew.
    pub fn look(&mut self, now_ms: u64, revision: i64, leading: bool) -> Option<i64> {
        if !leading || !self.leading {
            self.leading = leading;
            self.restart(now_ms);
        }
        if !leading {
            return None;
        }
        let target = match self.mode {
            AutoCompaction::Off => return None,
            AutoCompaction::Revision { retention } => self.by_revision(now_ms, revision, retention),
            AutoCompaction::Periodic { retention_ms } => {
                self.by_time(now_ms, revision, retention_ms)
            }
        }?;
        (target > self.last && target > 0).then(|| {
            self.last = target;
            target
        })
    }

    fn restart(&mut self, now_ms: u64) {
        self.samples.clear();
        self.next_sample_ms = now_ms;
        self.next_compaction_ms = now_ms
            + match self.mode {
                AutoCompaction::Off => 0,
                AutoCompaction::Periodic { retention_ms } => retention_ms,
                AutoCompaction::Revision { .. } => REVISION_INTERVAL_MS,
            };
    }

    fn by_revision(&mut self, now_ms: u64, revision: i64, retention: i64) -> Option<i64> {
        if now_ms < self.next_compaction_ms {
            return None;
        }
        self.next_compaction_ms = now_ms + REVISION_INTERVAL_MS;
        Some(revision - retention)
    }

    fn by_time(&mut self, now_ms: u64, revision: i64, retention_ms: u64) -> Option<i64> {
        if now_ms >= self.next_sample_ms {
            self.samples.push_back((now_ms, revision));
            self.next_sample_ms = now_ms + (retention_ms.min(HOUR_MS) / SAMPLES).max(1);
        }
        if now_ms < self.next_compaction_ms {
            return None;
        }
        self.next_compaction_ms = now_ms + retention_ms.min(HOUR_MS);
        let mut target = None;
        while let Some((at_ms, revision)) = self.samples.front()
            && at_ms + retention_ms <= now_ms
        {
            target = Some(*revision);
            self.samples.pop_front();
        }
        target
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Runs for `hours`, a revision a second, looking each second.
    fn run(mode: AutoCompaction, hours: u64) -> Vec<(u64, i64)> {
        let mut schedule = Schedule::new(mode, 0);
        let seconds = 0..=hours * 3600;
        let look = |s: u64| schedule.look(s * 1000, s as i64, true).map(|target| (s, target));
        seconds.filter_map(look).collect()
    }

    #[test]
    fn a_short_retention_compacts_once_a_retention() {
        // The first sample is of revision 0, to which nothing can be compacted.
        let done = run(AutoCompaction::Periodic { retention_ms: 300_000 }, 1);
        assert_eq!((done.len(), done[0].0), (11, 600));
        for (at, target) in done {
            assert!((300..=331).contains(&(at as i64 - target)), "at {at} to {target}");
        }
    }

    #[test]
    fn a_long_retention_compacts_every_hour() {
        let done = run(AutoCompaction::Periodic { retention_ms: 3 * HOUR_MS }, 6);
        assert_eq!(done.iter().map(|(at, _)| at / 3600).collect::<Vec<_>>(), [4, 5, 6]);
    }

    #[test]
    fn revisions_are_kept_by_number() {
        let done = run(AutoCompaction::Revision { retention: 1000 }, 1);
        assert_eq!(done[0], (1200, 200));
        assert_eq!(done[1], (1500, 500));
    }

    #[test]
    fn a_follower_does_nothing_and_a_new_leader_waits() {
        let mut schedule = Schedule::new(AutoCompaction::Periodic { retention_ms: 60_000 }, 0);
        for second in 0..600 {
            assert_eq!(schedule.look(second * 1000, 5, false), None);
        }
        assert_eq!(schedule.look(600_000, 7, true), None);
        assert_eq!(schedule.look(659_000, 8, true), None);
        assert_eq!(schedule.look(660_000, 9, true), Some(7));
    }
}
