//! What happens to packets, for every directed pair of nodes.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Parts of a loss of 100 %.
pub(crate) const LOSS_WHOLE: u32 = 1000;

const CUT_BIT: u64 = 1 << 63;
const LOSS_SHIFT: u32 = 40;
const LOSS_MASK: u64 = 0x7ff;
const DELAY_MASK: u64 = (1 << LOSS_SHIFT) - 1;

/// What happens to packets from one node to another.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Rule {
    /// Nothing passes.
    pub(crate) cut: bool,
    /// How many of [`LOSS_WHOLE`] packets are lost, at random.
    pub(crate) loss: u32,
    /// How much later each packet arrives. Order is kept.
    pub(crate) delay: Duration,
}

impl Rule {
    fn pack(self) -> u64 {
        let micros = u64::try_from(self.delay.as_micros()).unwrap_or(u64::MAX).min(DELAY_MASK);
        let loss = u64::from(self.loss.min(LOSS_WHOLE)) << LOSS_SHIFT;
        (u64::from(self.cut) * CUT_BIT) | loss | micros
    }

    fn unpack(bits: u64) -> Self {
        Self {
            cut: bits & CUT_BIT != 0,
            loss: ((bits >> LOSS_SHIFT) & LOSS_MASK) as u32,
            delay: Duration::from_micros(bits & DELAY_MASK),
        }
    }
}

/// The rules of all pairs. Who injects faults writes them, the switch reads them for every
/// packet: each is one word, so neither ever waits.
#[derive(Debug)]
pub(crate) struct Rules {
    nodes: usize,
    pairs: Vec<AtomicU64>,
}

impl Rules {
    /// No faults between `nodes` nodes.
    pub(crate) fn new(nodes: usize) -> Self {
        Self { nodes, pairs: (0..nodes * nodes).map(|_| AtomicU64::new(0)).collect() }
    }

    /// Number of nodes.
    pub(crate) fn nodes(&self) -> usize {
        self.nodes
    }

    /// What applies from one node to another.
    pub(crate) fn get(&self, from: usize, to: usize) -> Rule {
        Rule::unpack(self.pairs[from * self.nodes + to].load(Ordering::Relaxed))
    }

    /// Changes what applies from one node to another.
    pub(crate) fn change(&self, from: usize, to: usize, change: impl FnOnce(&mut Rule)) {
        let mut rule = self.get(from, to);
        change(&mut rule);
        self.pairs[from * self.nodes + to].store(rule.pack(), Ordering::Relaxed);
    }

    /// Ends all faults.
    pub(crate) fn heal(&self) {
        for pair in &self.pairs {
            pair.store(0, Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rules_are_kept_by_directed_pair() {
        let rules = Rules::new(3);
        rules.change(0, 2, |rule| rule.cut = true);
        rules.change(0, 2, |rule| rule.loss = 300);
        rules.change(1, 2, |rule| rule.delay = Duration::from_millis(200));
        assert_eq!(rules.get(0, 2), Rule { cut: true, loss: 300, delay: Duration::ZERO });
        assert_eq!(rules.get(2, 0), Rule::default());
        assert_eq!(rules.get(1, 2).delay, Duration::from_millis(200));
        rules.heal();
        assert_eq!(rules.get(0, 2), Rule::default());
    }

    #[test]
    fn values_beyond_their_bounds_are_cut_down() {
        let rule = Rule { cut: false, loss: 5000, delay: Duration::from_secs(u64::MAX) };
        let unpacked = Rule::unpack(rule.pack());
        assert_eq!((unpacked.cut, unpacked.loss), (false, LOSS_WHOLE));
        assert!(unpacked.delay > Duration::from_secs(3600));
    }
}
