//! PeerTransport: the way to the other members, and the way in for them.
//!
//! Owns the links: one [actor](PeerTransport) hands each raft message to the link of the
//! member it is for. A link is an actor too; it has three lanes, each with a queue of
//! bounded size and a connection of its own, so that the large never delays the urgent:
//! heartbeats, elections and read indexes; entries and their acknowledgements; snapshots.
//! What waits in a lane goes out as one parcel. A message that finds its queue full, or
//! its lane down, is dropped and counted, and raft is told that the member cannot be
//! reached: raft sends again, and the transport sends nothing twice.
//!
//! Receives raft messages from RaftNode, the list of members from ApplyLoop, and
//! questions for other members from anyone. Sends to RaftNode what came from other
//! members, through [`PeerService`], the gRPC service that they call; a RaftNode that
//! falls behind makes them wait. Shows in [`PeerStatus`] who can be reached.
//!
//! Who calls and is no member that this one knows of has a link, too, for a while: it may
//! have joined meanwhile, and lead.
//!
//! Never decides anything about the cluster, and keeps nothing: a link that ends by
//! itself is started again, and so are all of them when the actor stumbles.

mod actor;
mod deliver;
mod dial;
mod intake;
mod link;
mod messages;
mod metrics;
mod pacing;
mod queue;
mod service;
mod settings;
mod snapshot_lane;
mod strangers;
#[cfg(test)]
mod tests;
mod wire;

pub use actor::{PeerEdges, PeerTransport};
pub use messages::{Notice, PeerMessage, PeerStatus};
pub use metrics::PeerMetrics;
pub use queue::Lane;
pub use service::{PeerService, Questions, ServiceEdges};
pub use settings::PeerSettings;
pub use snapshot_lane::SnapshotSource;
pub use wire::Refusal;
