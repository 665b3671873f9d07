//! Which volumes a seal writes: a pure decision over the manifest and the live bytes.
//!
//! The new revisions are always written. An old volume is dropped when nothing in it
//! lives, rewritten when most of it is dead, and merged with its neighbours when many
//! small ones lie side by side. What lies side by side among these is written together.

use super::{Reclaim, RevisionKey};

/// A volume as the plan sees it.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub(super) struct Extent {
    pub(super) from: RevisionKey,
    pub(super) to: RevisionKey,
    /// What it holds; for the new revisions, what it will hold.
    pub(super) bytes: u64,
    /// What of it still lives.
    pub(super) live_bytes: u64,
    /// It was written before the newest compaction.
    pub(super) stale: bool,
}

/// The limits a plan keeps to.
#[derive(Copy, Clone, Debug)]
pub(crate) struct Limits {
    /// A volume is not filled beyond this.
    pub(crate) volume_bytes: u64,
    /// At most this much of old, live content is rewritten in a paced seal because of
    /// dead bytes (but always at least one volume).
    pub(crate) rewrite_bytes: u64,
}

/// A range to be written anew, from the state in memory.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub(super) struct Span {
    pub(super) from: RevisionKey,
    pub(super) to: RevisionKey,
}

/// What is to be done with each old volume, and what is to be written.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Plan {
    /// The old volumes that stay, by their place in the list.
    pub(super) keep: Vec<usize>,
    /// Ascending, not overlapping each other nor the volumes that stay.
    pub(super) spans: Vec<Span>,
}

/// So many small volumes side by side are merged.
const MERGE_FAN_IN: usize = 8;
/// Volumes below these fractions of a full one are small; smallest first, so that the
/// least is rewritten: each byte about once for each class it grows through.
const SMALL_FRACTIONS: [u64; 4] = [1024, 128, 16, 2];

/// Plans a seal. `old` is ascending; `new` holds the revisions after the last of them.
pub(super) fn plan(old: &[Extent], new: Option<Extent>, reclaim: Reclaim, limits: Limits) -> Plan {
    let lives = |&index: &usize| old[index].live_bytes > 0;
    let alive: Vec<usize> = (0..old.len()).filter(lives).collect();
    let mut extents: Vec<Extent> = alive.iter().map(|&index| old[index]).collect();
    let mut write = mark_mostly_dead(&extents, reclaim, limits);
    if let Some(new) = new {
        extents.push(new);
        write.push(true);
    }
    mark_small_runs(&extents, &mut write, limits);
    let keep = alive.iter().zip(&write).filter(|(_, write)| !**write).map(|(i, _)| *i).collect();
    Plan { keep, spans: spans_of(&extents, &write) }
}

fn mark_mostly_dead(extents: &[Extent], reclaim: Reclaim, limits: Limits) -> Vec<bool> {
    // Dead bytes, in tenths of all, from which a rewrite pays.
    let (tenths_dead, mut budget) = match reclaim {
        Reclaim::Paced => (5, limits.rewrite_bytes),
        Reclaim::All | Reclaim::Replace => (1, u64::MAX),
    };
    let dead = |extent: &Extent| extent.bytes.saturating_sub(extent.live_bytes);
    let pays = |extent: &Extent| {
        let enough = dead(extent).saturating_mul(10) >= extent.bytes * tenths_dead;
        (dead(extent) > 0 && enough) || (extent.stale && reclaim == Reclaim::All)
    };
    let mut candidates: Vec<usize> = (0..extents.len()).filter(|&i| pays(&extents[i])).collect();
    candidates.sort_by_key(|&i| (extents[i].live_bytes, extents[i].from));
    let mut marked = vec![false; extents.len()];
    for (place, index) in candidates.into_iter().enumerate() {
        let live = extents[index].live_bytes;
        if place > 0 && live > budget {
            break;
        }
        budget = budget.saturating_sub(live);
        marked[index] = true;
    }
    marked
}

fn mark_small_runs(extents: &[Extent], write: &mut [bool], limits: Limits) {
    for fraction in SMALL_FRACTIONS {
        let bound = limits.volume_bytes / fraction;
        let small = |i: usize| extents[i].bytes <= bound;
        let mut start = 0;
        while start < extents.len() {
            let end = (start..extents.len()).find(|&i| !small(i)).unwrap_or(extents.len());
            if end - start >= MERGE_FAN_IN {
                write[start..end].fill(true);
            }
            start = end.max(start + 1);
        }
    }
}

fn spans_of(extents: &[Extent], write: &[bool]) -> Vec<Span> {
    let mut spans: Vec<Span> = Vec::new();
    let mut joins = false;
    for (extent, &write) in extents.iter().zip(write) {
        match spans.last_mut() {
            Some(span) if write && joins => span.to = extent.to,
            _ if write => spans.push(Span { from: extent.from, to: extent.to }),
            _ => {}
        }
        joins = write;
    }
    spans
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const LIMITS: Limits = Limits { volume_bytes: 1000, rewrite_bytes: 1000 };

    fn key(main: i64) -> RevisionKey {
        RevisionKey { main, sub: 0 }
    }

    /// Extents of (bytes, live bytes), ten revisions each.
    fn extents(sizes: &[(u64, u64)]) -> Vec<Extent> {
        let extent = |(i, &(bytes, live_bytes)): (usize, &(u64, u64))| {
            let from = i as i64 * 10;
            Extent { from: key(from), to: key(from + 9), bytes, live_bytes, stale: false }
        };
        sizes.iter().enumerate().map(extent).collect()
    }

    fn span(from: i64, to: i64) -> Span {
        Span { from: key(from), to: key(to) }
    }

    #[test]
    fn what_lives_stays_and_what_is_new_is_written() {
        let all = extents(&[(1000, 1000), (1000, 600), (900, 900)]);
        let plan = plan(&all[..2], Some(all[2]), Reclaim::Paced, LIMITS);
        assert_eq!(plan, Plan { keep: vec![0, 1], spans: vec![span(20, 29)] });
    }

    #[test]
    fn mostly_dead_volumes_are_rewritten_and_dead_ones_dropped() {
        let all = extents(&[(1000, 400), (1000, 0), (1000, 300), (1000, 900)]);
        let plan = plan(&all, None, Reclaim::Paced, LIMITS);
        assert_eq!(plan, Plan { keep: vec![3], spans: vec![span(0, 29)] });
    }

    #[test]
    fn a_paced_seal_keeps_to_its_budget_and_takes_the_deadest_first() {
        let all = extents(&[(4000, 900), (4000, 800), (9000, 4000), (4000, 100)]);
        let paced = plan(&all, None, Reclaim::Paced, LIMITS);
        assert_eq!(paced.keep, [0, 2]);
        let alone = plan(&all[2..3], None, Reclaim::Paced, LIMITS);
        assert_eq!(alone.keep, [0usize; 0], "one volume is always allowed");
        assert!(plan(&all, None, Reclaim::All, LIMITS).keep.is_empty());
    }

    #[test]
    fn small_neighbours_are_merged_once_there_are_many() {
        let few = extents(&[(60, 60); 7]);
        assert_eq!(plan(&few[..6], Some(few[6]), Reclaim::Paced, LIMITS).keep.len(), 6);
        let many = extents(&[(60, 60); 8]);
        let merged = plan(&many[..7], Some(many[7]), Reclaim::Paced, LIMITS);
        assert_eq!(merged, Plan { keep: vec![], spans: vec![span(0, 79)] });
    }

    proptest! {
        /// Everything that lives is kept or written, in order, once.
        #[test]
        fn nothing_alive_is_lost(
            sizes in proptest::collection::vec((0u64..1500, 0u64..1500), 0..40),
            new: bool, all: bool,
        ) {
            let sizes: Vec<_> = sizes.iter().map(|&(a, b)| (a.max(b), b)).collect();
            let extents = extents(&sizes);
            let reclaim = if all { Reclaim::All } else { Reclaim::Paced };
            let (old, new) = match extents.split_last() {
                Some((last, old)) if new => (old, Some(*last)),
                _ => (&extents[..], None),
            };
            let plan = plan(old, new, reclaim, LIMITS);
            for (index, extent) in old.iter().enumerate() {
                let kept = plan.keep.contains(&index);
                let overlaps = |s: &&Span| s.from <= extent.to && extent.from <= s.to;
                let covers = |s: &Span| s.from <= extent.from && extent.to <= s.to;
                let spans: Vec<_> = plan.spans.iter().filter(overlaps).collect();
                prop_assert!(!kept || spans.is_empty());
                prop_assert!(spans.iter().all(|s| covers(s)));
                prop_assert!(extent.live_bytes == 0 || kept || spans.len() == 1);
            }
            prop_assert!(plan.spans.windows(2).all(|w| w[0].to < w[1].from));
            let small = |e: &&Extent| e.bytes * 2 <= LIMITS.volume_bytes;
            let kept: Vec<_> = plan.keep.iter().map(|&i| &old[i]).collect();
            let runs = kept.windows(MERGE_FAN_IN).filter(|w| w.iter().all(small)).count();
            prop_assert!(runs == 0 || !plan.spans.is_empty(), "a run of small ones stayed");
        }
    }
}
