//! What happens when an actor panics or meets a fault it must not survive.
//!
//! Actors that hold state (raft node, WAL, apply loop, MVCC, lease manager)
//! are *fail-stop*: their memory may no longer agree with the log, so the
//! process ends and the next start rebuilds it from disk. Actors without state
//! are started again by whoever owns them.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::thread::JoinHandle;

/// Called with the actor's name and what happened; must not return.
pub type FatalReport = Arc<dyn Fn(&'static str, String) + Send + Sync>;

/// Runs one step of the stateful actor `actor`; a panic inside becomes a fatal
/// report, after which the process is over.
pub fn fail_stop<R>(actor: &'static str, fatal: &FatalReport, step: impl FnOnce() -> R) -> R {
    match catch_unwind(AssertUnwindSafe(step)) {
        Ok(value) => value,
        Err(panic) => {
            fatal(actor, panic_text(panic.as_ref()));
            // A report that returns would let damaged state live on.
            std::process::abort()
        }
    }
}

/// Starts a named OS thread for the stateful actor `actor`; a panic on it ends
/// the process through `fatal`.
///
/// # Errors
/// When the operating system refuses another thread.
pub fn spawn_thread(
    actor: &'static str,
    fatal: FatalReport,
    body: impl FnOnce() + Send + 'static,
) -> std::io::Result<JoinHandle<()>> {
    std::thread::Builder::new().name(actor.to_owned()).spawn(move || fail_stop(actor, &fatal, body))
}

/// What a panic said.
pub fn panic_text(panic: &(dyn std::any::Any + Send)) -> String {
    if let Some(text) = panic.downcast_ref::<&str>() {
        return (*text).to_owned();
    }
    match panic.downcast_ref::<String>() {
        Some(text) => text.clone(),
        None => "panic without a message".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_step_that_ends_well_gives_its_value() {
        let fatal: FatalReport = Arc::new(|_, _| unreachable!("nothing went wrong"));
        assert_eq!(fail_stop("test", &fatal, || 7), 7);
    }

    #[test]
    fn panic_texts_are_kept() {
        let caught = catch_unwind(|| panic!("revision went back: {}", 3)).unwrap_err();
        assert_eq!(panic_text(caught.as_ref()), "revision went back: 3");
    }
}
