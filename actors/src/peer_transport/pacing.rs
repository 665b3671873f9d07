//! When something may be done again: pauses between attempts, the rate of a snapshot,
//! and how often a loss is told. Plain arithmetic over given times.

use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};

/// Pauses between attempts: twice as long each time, up to a limit, and each a random
/// part of it, so that members that lost each other together do not return together.
#[derive(Debug)]
pub(super) struct Backoff {
    shortest: Duration,
    longest: Duration,
    next: Duration,
    chance: SmallRng,
}

impl Backoff {
    pub(super) fn new((shortest, longest): (Duration, Duration), seed: u64) -> Self {
        Self { shortest, longest, next: shortest, chance: SmallRng::seed_from_u64(seed) }
    }

    /// The pause before the next attempt: between half and all of the step.
    pub(super) fn pause(&mut self) -> Duration {
        let step = self.next;
        self.next = (step * 2).min(self.longest);
        step.mul_f64(self.chance.random_range(0.5..=1.0))
    }

    /// An attempt succeeded: the next pause is short again.
    pub(super) fn reset(&mut self) {
        self.next = self.shortest;
    }
}

/// A token bucket that holds a fifth of a second's tokens.
#[derive(Debug)]
pub(super) struct TokenBucket {
    per_second: f64,
    tokens: f64,
    at: Instant,
}

impl TokenBucket {
    /// A full bucket at `now`.
    pub(super) fn new(per_second: u64, now: Instant) -> Self {
        let per_second = per_second.max(1) as f64;
        Self { per_second, tokens: per_second / 5.0, at: now }
    }

    /// Takes `tokens`, into debt if need be; how long to wait until the debt is paid.
    pub(super) fn take(&mut self, tokens: usize, now: Instant) -> Duration {
        let earned = now.saturating_duration_since(self.at).as_secs_f64() * self.per_second;
        self.at = now;
        self.tokens = (self.tokens + earned).min(self.per_second / 5.0) - tokens as f64;
        Duration::from_secs_f64((-self.tokens / self.per_second).max(0.0))
    }
}

/// A rate that several share.
#[derive(Clone, Debug)]
pub(super) struct SharedRate(Arc<Mutex<TokenBucket>>);

impl SharedRate {
    pub(super) fn new(per_second: u64) -> Self {
        Self(Arc::new(Mutex::new(TokenBucket::new(per_second, Instant::now()))))
    }

    /// Takes `tokens`; how long to wait before they may be used.
    pub(super) fn take(&self, tokens: usize) -> Duration {
        self.0.lock().take(tokens, Instant::now())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    #[test]
    fn pauses_grow_to_the_limit_and_start_over() {
        let mut backoff = Backoff::new((50 * MS, 400 * MS), 1);
        let steps = [50, 100, 200, 400, 400];
        for step in steps {
            let pause = backoff.pause();
            assert!(pause >= step * MS / 2 && pause <= step * MS, "{pause:?} of {step} ms");
        }
        backoff.reset();
        assert!(backoff.pause() <= 50 * MS);
    }

    #[test]
    fn a_bucket_lets_its_rate_through() {
        let start = Instant::now();
        let mut now = start;
        let mut bucket = TokenBucket::new(1000, now);
        for _ in 0..100 {
            now += bucket.take(100, now);
        }
        // 10,000 tokens less the 200 it began with.
        let took = now - start;
        assert!(took >= 9790 * MS && took <= 9810 * MS, "{took:?}");
    }
}
