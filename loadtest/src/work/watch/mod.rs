//! Watchers, and puts for them to see.
//!
//! Every put carries its key, its number on that key and the moment it was sent in its value.
//! Each watcher keeps account of what it saw: afterwards every acknowledged put that a watcher
//! missed is known, every event that came twice, every one that came out of order, and every
//! revision that came in pieces.
//!
//! | module | what it is for |
//! |---|---|
//! | [`run`] | the course of a run: history, watchers, puts, sums |
//! | [`interest`] | the scenarios: who watches what |
//! | [`putter`], [`history`] | the puts |
//! | [`stream`] | a thread's streams: opened, read, stopped, cut |
//! | [`skim`] | reads responses straight from the wire |
//! | [`desk`], [`ledger`] | what a thread's watchers saw, and each one's account |
//! | [`timing`] | the common clock |
//! | [`report`] | the result |

mod desk;
mod history;
mod interest;
mod ledger;
mod putter;
mod report;
mod run;
mod skim;
mod stream;
mod timing;

pub(crate) use interest::Scenario;
pub(crate) use report::WatchReport;
pub(crate) use run::{WatchOptions, run};
