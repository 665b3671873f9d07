//! Watchers, and puts for them to see.
//!
//! Every put carries its number and the moment it was sent in its value. Each watcher keeps
//! account of what it saw: afterwards every acknowledged put that a watcher missed is known,
//! every event that came twice, and every event that came out of order.

mod ledger;
mod putter;
mod run;
mod stream;

pub(crate) use run::{WatchOptions, WatchReport, run};
