//! A whole cluster in one thread, under one seed.
//!
//! The members are the very company that production runs: [`castd_actors::company::assemble`]
//! makes its actors with their bounded mailboxes, and instead of threads a [world](world)
//! gives them their turns, in virtual time. Their disks, their network, their clocks and
//! their clients are played; everything that happens follows from the seed, and the same
//! seed gives the same world to the byte.

mod chance;
mod clients;
mod coverage;
mod door;
mod keys;
mod member;
mod panics;
mod plan;
mod run;
pub mod script;
mod shrink;
mod story;
mod time;
mod weather;
mod world;

#[cfg(feature = "planted")]
pub use castd_actors::shared::Planted;
pub use coverage::{Counts, Coverage};
pub use member::Part;
pub use plan::Profile;
pub use run::{Outcome, Settings, run};
pub use shrink::{Attempt, Verdict, shrink, shrink_with};
pub use time::{MS, Nanos, SECOND, US};
