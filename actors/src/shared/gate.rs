//! What is to happen now and then only, such as the same line in the log.

use std::time::{Duration, Instant};

/// Lets something through once in an interval.
#[derive(Debug)]
pub struct Gate {
    interval: Duration,
    last: Option<Instant>,
}

impl Gate {
    /// A gate that opens at once, and again after each interval.
    pub fn new(interval: Duration) -> Self {
        Self { interval, last: None }
    }

    /// Whether it may pass at `now`.
    pub fn pass(&mut self, now: Instant) -> bool {
        let open = self.last.is_none_or(|last| now.duration_since(last) >= self.interval);
        if open {
            self.last = Some(now);
        }
        open
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    #[test]
    fn a_gate_opens_once_in_its_interval() {
        let start = Instant::now();
        let mut gate = Gate::new(100 * MS);
        assert!(gate.pass(start));
        assert!(!gate.pass(start + 99 * MS));
        assert!(gate.pass(start + 100 * MS));
    }
}
