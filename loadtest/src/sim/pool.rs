//! Threads that take one seed after the other; each world is whole in one thread.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::mpsc::{SyncSender, sync_channel};
use std::thread::{Builder, scope};
use std::time::Instant;

use castd_sim::{Outcome, Settings};

use super::work::Work;
use crate::error::LoadError;

/// As a program's first thread has it.
const STACK_BYTES: usize = 8 << 20;

/// A seed that was run.
#[derive(Debug)]
pub(super) struct Finished {
    /// What was run.
    pub(super) settings: Settings,
    /// What came of it; or what the simulator itself said when it panicked.
    pub(super) outcome: Result<Outcome, String>,
}

impl Finished {
    /// Runs a seed.
    pub(super) fn run(settings: Settings) -> Self {
        let outcome = catch_unwind(AssertUnwindSafe(|| castd_sim::run(&settings)));
        Self { settings, outcome: outcome.map_err(said) }
    }

    /// Whether something was as it must not be.
    pub(super) fn fails(&self) -> bool {
        self.outcome.as_ref().map_or(true, |outcome| !outcome.problems.is_empty())
    }
}

fn said(payload: Box<dyn Any + Send>) -> String {
    let text = payload.downcast::<String>().map(|text| *text);
    let text = text.or_else(|payload| payload.downcast::<&str>().map(|text| (*text).to_owned()));
    text.unwrap_or_else(|_| "a panic without words".to_owned())
}

/// Runs the seeds, and hands over each that is done; no other is begun once that is told
/// `false`, or when the time is over.
///
/// # Errors
/// When there are no threads to be had.
pub(super) fn run(
    work: &Work,
    begun: Instant,
    mut done: impl FnMut(Finished) -> bool,
) -> Result<(), LoadError> {
    let (sender, receiver) = sync_channel(work.jobs);
    let next = AtomicU64::new(work.seeds.start);
    let stop = AtomicBool::new(false);
    scope(|scope| {
        for job in 0..work.jobs {
            let (sender, next, stop) = (sender.clone(), &next, &stop);
            let thread = Builder::new().name(format!("world {job}")).stack_size(STACK_BYTES);
            let spawned = thread.spawn_scoped(scope, move || {
                let is_over = || {
                    let late = work.time_limit.is_some_and(|limit| begun.elapsed() >= limit);
                    late || stop.load(Relaxed)
                };
                take_seeds(work, next, is_over, &sender);
            });
            if let Err(error) = spawned {
                stop.store(true, Relaxed);
                return Err(LoadError::Runtime(error));
            }
        }
        drop(sender);
        for finished in receiver {
            if !done(finished) {
                stop.store(true, Relaxed);
            }
        }
        Ok(())
    })
}

fn take_seeds(
    work: &Work,
    next: &AtomicU64,
    is_over: impl Fn() -> bool,
    sender: &SyncSender<Finished>,
) {
    while !is_over() {
        let seed = next.fetch_add(1, Relaxed);
        if !work.seeds.contains(&seed) {
            return;
        }
        if sender.send(Finished::run(work.settings(seed))).is_err() {
            return;
        }
    }
}
