//! The company as a whole: its start, its placement on threads, and its door.
//!
//! ```text
//!  faces ── Proposer, read_index ──▶ RaftNode ──▶ WalWriter (own thread)
//!    ▲                                  │  ▲ Persisted, Applied, Sealed
//!    │ view (immutable)                 ▼  │
//!    │                              ApplyLoop ──▶ Mvcc (own thread) ──▶ Checkpointer (own thread)
//!    │                                  │            │ events     │ lease changes
//!    └── watch ◀── WatchHub ◀───────────┼────────────┘            ▼
//!                                   Compactor              LeaseManager
//! ```
//! One arbiter (a thread of actix) carries RaftNode, ApplyLoop, LeaseManager,
//! Compactor and PeerTransport, another one WatchHub: hops inside an arbiter
//! cost no wake-up, and a burst of events does not delay consensus.

mod assemble;
mod config;
mod data_dir;
mod desk;
mod door;
mod force_new;
mod leases;
mod mailboxes;
mod members;
mod open;
#[cfg(test)]
mod open_tests;
mod questions;
mod start;

pub use assemble::{Assembled, HubParts, Life, PeerParts, StartError, WalToRaft, assemble};
pub use config::{CompanyConfig, WatchThreads};
#[cfg(any(test, feature = "sim"))]
pub(crate) use data_dir::DataDir;
pub use desk::Desk;
pub use door::Company;
pub use leases::LeaseInfo;
pub use members::MembershipRules;
#[cfg(any(test, feature = "sim"))]
pub(crate) use open::open_in;
pub use open::{Begin, OpenError, Opened, open};
pub use start::{Running, start};
