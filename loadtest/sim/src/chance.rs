//! Where a world's draws come from.

use rand::rngs::StdRng;
use rand::{Rng, RngCore, SeedableRng};

/// What an even chance draws: the middle of every range, and no fault that is less than
/// certain.
const EVEN: u64 = 1 << 63;
/// What falls into the first half of every range, and says yes to whatever is as likely
/// as not.
const LOW: u64 = 1 << 62;

/// The source of everything that is drawn in a world.
#[derive(Debug)]
pub(crate) enum Chance {
    /// Numbers that follow from a seed.
    Seeded(Box<StdRng>),
    /// Always the same one: nothing is left to chance, so that what happens in a world
    /// does not depend on what was drawn before.
    Even(u64),
}

impl Chance {
    /// Numbers that follow from a seed.
    pub(crate) fn seeded(seed: u64) -> Self {
        Self::Seeded(Box::new(StdRng::seed_from_u64(seed)))
    }

    /// No chance at all.
    pub(crate) fn even() -> Self {
        Self::Even(EVEN)
    }

    /// Where nothing is left to chance: lets what happens until it is set back be cut
    /// short in its middle.
    pub(crate) fn cut_short(&mut self, cut_short: bool) {
        if let Self::Even(draw) = self {
            *draw = if cut_short { LOW } else { EVEN };
        }
    }

    /// A seed for a member's process.
    pub(crate) fn seed_of_life(&mut self, member: u64, life: u16) -> u64 {
        match self {
            Self::Seeded(chance) => chance.random(),
            Self::Even(_) => member << 16 | u64::from(life),
        }
    }
}

impl RngCore for Chance {
    fn next_u32(&mut self) -> u32 {
        match self {
            Self::Seeded(chance) => chance.next_u32(),
            Self::Even(draw) => (*draw >> 32) as u32,
        }
    }

    fn next_u64(&mut self) -> u64 {
        match self {
            Self::Seeded(chance) => chance.next_u64(),
            Self::Even(draw) => *draw,
        }
    }

    fn fill_bytes(&mut self, to: &mut [u8]) {
        match self {
            Self::Seeded(chance) => chance.fill_bytes(to),
            Self::Even(draw) => to.fill((*draw >> 56) as u8),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_even_chance_draws_the_middle() {
        let mut chance = Chance::even();
        assert_eq!(chance.random_range(0..100u64), 50);
        assert_eq!(chance.random_range(0..100usize), 50);
        assert!(!chance.random_bool(0.5));
        chance.cut_short(true);
        assert!(chance.random_bool(0.5));
        assert_eq!(chance.random_range(0..6u64), 1);
    }

    #[test]
    fn a_seeded_chance_draws_what_its_seed_draws() {
        let (mut chance, mut draws) = (Chance::seeded(7), StdRng::seed_from_u64(7));
        assert_eq!(chance.random_range(0..1_000_000u64), draws.random_range(0..1_000_000));
        assert_eq!(chance.next_u32(), draws.next_u32());
    }
}
