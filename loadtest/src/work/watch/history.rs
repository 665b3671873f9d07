//! Puts from before the watchers.

use std::time::Duration;

use super::putter::{Puts, WatchedPuts};
use crate::driver::{Pace, Plan, measure};
use crate::error::LoadError;

/// Clients that write a history: it need not be measured.
const HISTORY_CLIENTS: usize = 256;
/// The longest it may take.
const HISTORY_TIME_MAX: Duration = Duration::from_secs(3600);

/// Writes a history of so many puts, each with a revision of its own.
///
/// # Errors
/// When a put fails.
pub(super) fn write(work: &WatchedPuts, count: u64, plan: &Plan) -> Result<Puts, LoadError> {
    let plan = Plan {
        clients: HISTORY_CLIENTS,
        threads: 1,
        pace: Pace::Closed,
        warmup: Duration::ZERO,
        duration: HISTORY_TIME_MAX,
        total: Some(count),
        pids: Vec::new(),
        ..plan.clone()
    };
    let measured = measure(work, &plan)?;
    // Nobody has watched yet: what comes late of this is not to count.
    work.timing.forget();
    if let Some((text, times)) = measured.recorder.errors.first_key_value() {
        let text = format!("cannot write the history: {text} ({times} times)");
        return Err(LoadError::Usage(text));
    }
    measured.harvests.into_iter().next().ok_or(LoadError::Thread)
}
