//! The clock that shells read for their cores.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Instant;

/// Milliseconds since some zero, which never go back. Clones read the same clock.
#[derive(Clone, Debug)]
pub struct Clock(Source);

#[derive(Clone, Debug)]
enum Source {
    Real(Instant),
    Given(Arc<AtomicU64>),
}

impl Clock {
    /// The system's monotonic clock, with its zero now.
    pub fn real() -> Self {
        Self(Source::Real(Instant::now()))
    }

    /// A clock that shows what somebody else puts there.
    pub fn given(ms: Arc<AtomicU64>) -> Self {
        Self(Source::Given(ms))
    }

    /// The time in milliseconds.
    pub fn now_ms(&self) -> u64 {
        match &self.0 {
            Source::Real(zero) => u64::try_from(zero.elapsed().as_millis()).unwrap_or(u64::MAX),
            Source::Given(ms) => ms.load(Relaxed),
        }
    }
}
