//! Callers that are in no list of members that was applied here. This member may be
//! behind, and the caller the leader that has joined meanwhile; or it is somebody who has
//! read the cluster's id somewhere. So a stranger stays as long as it calls, or raft has
//! something to say to it; where one was that went is remembered for a while, since a
//! stream that stands brings no new call. Plain arithmetic over given times.

use std::collections::{BTreeMap, VecDeque};
use std::time::{Duration, Instant};

/// Strangers at a time.
const MOST: usize = 16;
/// Strangers that have gone and are remembered.
const REMEMBERED: usize = 64;

/// The strangers.
#[derive(Debug)]
pub(super) struct Strangers {
    patience: Duration,
    /// When there was reason last to have a link to each.
    seen: BTreeMap<u64, Instant>,
    /// Where those are reached who have gone, the last one behind.
    gone: VecDeque<(u64, Vec<String>)>,
}

impl Strangers {
    /// Nobody yet. Who is quiet for longer than `patience`, goes.
    pub(super) fn new(patience: Duration) -> Self {
        Self { patience, seen: BTreeMap::new(), gone: VecDeque::new() }
    }

    pub(super) fn contains(&self, id: u64) -> bool {
        self.seen.contains_key(&id)
    }

    pub(super) fn ids(&self) -> impl Iterator<Item = u64> {
        self.seen.keys().copied()
    }

    /// Takes in who calls. When there are too many, the one goes that has been quiet for
    /// longest, and is given back.
    pub(super) fn admit(&mut self, id: u64, now: Instant) -> Option<u64> {
        let is_full = self.seen.len() >= MOST && !self.contains(id);
        let longest = || self.seen.iter().min_by_key(|(_, seen)| **seen).map(|(id, _)| *id);
        let displaced = if is_full { longest() } else { None };
        displaced.map(|id| self.seen.remove(&id));
        self.seen.insert(id, now);
        displaced
    }

    /// One of the strangers, if it is one, gives reason to keep it.
    pub(super) fn keep(&mut self, id: u64, now: Instant) {
        if let Some(seen) = self.seen.get_mut(&id) {
            *seen = now;
        }
    }

    /// Lets those go who have been quiet for too long.
    pub(super) fn expire(&mut self, now: Instant) -> Vec<u64> {
        let quiet = |seen: &Instant| now.saturating_duration_since(*seen) > self.patience;
        self.seen.extract_if(.., |_, seen| quiet(seen)).map(|(id, _)| id).collect()
    }

    /// One that has gone was reached here.
    pub(super) fn remember(&mut self, id: u64, urls: Vec<String>) {
        self.gone.push_back((id, urls));
        if self.gone.len() > REMEMBERED {
            self.gone.pop_front();
        }
    }

    /// Where one is reached that has gone; it is remembered no longer.
    pub(super) fn recall(&mut self, id: u64) -> Option<Vec<String>> {
        let at = self.gone.iter().position(|(gone, _)| *gone == id)?;
        self.gone.remove(at).map(|(_, urls)| urls)
    }

    /// Those who are members now, or were removed, are no strangers.
    pub(super) fn retain(&mut self, is_stranger: impl Fn(u64) -> bool) {
        self.seen.retain(|id, _| is_stranger(*id));
    }

    pub(super) fn clear(&mut self) {
        self.seen.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn who_is_quiet_goes() {
        let start = Instant::now();
        let mut strangers = Strangers::new(6 * SECOND);
        (1..=3).for_each(|id| assert_eq!(strangers.admit(id, start), None));
        strangers.keep(1, start + 4 * SECOND);
        strangers.admit(2, start + 5 * SECOND);
        strangers.keep(9, start + 5 * SECOND);
        assert_eq!(strangers.expire(start + 6 * SECOND), [0; 0]);
        assert_eq!(strangers.expire(start + 7 * SECOND), [3]);
        assert_eq!(strangers.ids().collect::<Vec<_>>(), [1, 2]);
        assert_eq!(strangers.expire(start + 11 * SECOND), [1]);
        assert_eq!(strangers.expire(start + 3600 * SECOND), [2]);
    }

    #[test]
    fn the_last_that_went_are_remembered() {
        let mut strangers = Strangers::new(SECOND);
        (0..70).for_each(|id| strangers.remember(id, vec![id.to_string()]));
        assert_eq!(strangers.recall(5), None);
        assert_eq!(strangers.recall(6), Some(vec!["6".to_owned()]));
        assert_eq!(strangers.recall(6), None);
        assert_eq!(strangers.recall(69), Some(vec!["69".to_owned()]));
    }

    #[test]
    fn there_is_room_for_the_next_one() {
        let start = Instant::now();
        let mut strangers = Strangers::new(6 * SECOND);
        (0..16).for_each(|id| assert_eq!(strangers.admit(id, start), None));
        strangers.keep(0, start + SECOND);
        assert_eq!(strangers.admit(7, start + SECOND), None, "it is one already");
        assert_eq!(strangers.admit(16, start + SECOND), Some(1));
        assert_eq!(strangers.admit(17, start + 2 * SECOND), Some(2));
        assert!(strangers.contains(0) && strangers.contains(7) && !strangers.contains(1));
        assert_eq!(strangers.ids().count(), 16);
    }
}
