//! What the actors share: mailboxes, supervision, the error table, published
//! snapshots, file operations. Nothing here makes a decision about data.

mod beats;
mod clock;
pub mod codec;
pub(crate) mod disk;
mod error;
mod gate;
mod mailbox;
mod planted;
mod priority;
mod published;
mod supervise;
mod waiting;

pub use beats::{Beat, beats};
pub use clock::Clock;
pub use error::{Code, Error};
pub use gate::Gate;
pub use mailbox::{
    Credits, Inlet, MailboxStats, Outlet, Permit, Refused, Switchboard, ThreadInlet, ThreadOutlet,
};
#[cfg(feature = "planted")]
pub use planted::plant;
pub use planted::{Planted, is_planted};
pub(crate) use priority::lower_priority;
pub use published::Published;
pub use supervise::{FatalReport, fail_stop, panic_text, spawn_thread};
pub use waiting::Waiting;

/// How long a request may take before its client hears of a timeout: five seconds
/// for queues and the disk, and two elections, as in etcd.
pub fn request_timeout(election: std::time::Duration) -> std::time::Duration {
    std::time::Duration::from_secs(5) + 2 * election
}
