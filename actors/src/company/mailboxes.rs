//! The mailboxes of the company, each as large as the windows that give back to it, or
//! with senders that wait.

use crate::apply_loop::ApplyMessage;
use crate::compactor::CompactorMessage;
use crate::lease_manager::LeaseMessage;
use crate::mvcc::MvccMessage;
use crate::peer_transport::PeerMessage;
use crate::raft_node::{RaftCompletion, RaftInbound, RaftMessage};
use crate::shared::{Inlet, Outlet, Switchboard, ThreadInlet, ThreadOutlet};
use crate::watch_hub::HubMessage;

/// Completions on their way to RaftNode: its windows and one seal.
const COMPLETIONS: usize = 256;
/// Messages for a shard of the watch hub.
const HUB_MESSAGES: usize = 128;
/// Messages for Mvcc: the commit window, and questions from elsewhere.
const MVCC_MESSAGES: usize = 256;
/// Messages for RaftNode from clients: proposals are counted by credits, and
/// reads wait for room.
const RAFT_REQUESTS: usize = 16_384;
/// Parcels from other members on their way to RaftNode; their senders wait for
/// room.
const RAFT_INBOUND: usize = 256;

/// The sending ends of all mailboxes.
pub(super) struct Inlets {
    pub(super) raft_requests: Inlet<RaftMessage>,
    pub(super) raft_inbound: Inlet<RaftInbound>,
    pub(super) completed: Inlet<RaftCompletion>,
    pub(super) apply: Inlet<ApplyMessage>,
    pub(super) mvcc: ThreadInlet<MvccMessage>,
    pub(super) leases: Inlet<LeaseMessage>,
    pub(super) hub: Vec<Inlet<HubMessage>>,
    pub(super) watches: Vec<Inlet<HubMessage>>,
    pub(super) compactor: Inlet<CompactorMessage>,
    pub(super) peers: Inlet<PeerMessage>,
}

/// Their receiving ends.
pub(super) struct Outlets {
    pub(super) raft_requests: Outlet<RaftMessage>,
    pub(super) raft_inbound: Outlet<RaftInbound>,
    pub(super) completed: Outlet<RaftCompletion>,
    pub(super) apply: Outlet<ApplyMessage>,
    pub(super) mvcc: ThreadOutlet<MvccMessage>,
    pub(super) leases: Outlet<LeaseMessage>,
    pub(super) hub: Vec<(Outlet<HubMessage>, Outlet<HubMessage>)>,
    pub(super) compactor: Outlet<CompactorMessage>,
    pub(super) peers: Outlet<PeerMessage>,
}

/// All mailboxes, with so many shards of the watch hub.
pub(super) fn mailboxes(board: &Switchboard, shards: usize) -> (Inlets, Outlets) {
    let (raft_requests, requests) = board.mailbox("raft_requests", RAFT_REQUESTS);
    let (raft_inbound, inbound) = board.mailbox("raft_inbound", RAFT_INBOUND);
    let (completed, completions) = board.mailbox("raft_completions", COMPLETIONS);
    let (apply, committed) = board.mailbox("apply_loop", 2 * crate::raft_node::COMMIT_WINDOW);
    let (mvcc, mvcc_messages) = board.thread_mailbox("mvcc", MVCC_MESSAGES);
    let (leases, lease_messages) = board.mailbox("lease_manager", 4096);
    let shard_mailboxes = |of: &str| -> (Vec<_>, Vec<_>) {
        let name = |shard| format!("watch_hub_{shard}_{of}");
        (0..shards).map(|shard| board.mailbox(name(shard), HUB_MESSAGES)).unzip()
    };
    let (hub, hub_events) = shard_mailboxes("events");
    let (watches, watch_requests) = shard_mailboxes("requests");
    let (compactor, compactor_messages) = board.mailbox("compactor", 4);
    let (peers, peer_messages) = board.mailbox("peer_transport", 1024);
    let inlets = Inlets {
        raft_requests,
        raft_inbound,
        completed,
        apply,
        mvcc,
        leases,
        hub,
        watches,
        compactor,
        peers,
    };
    let outlets = Outlets {
        raft_requests: requests,
        raft_inbound: inbound,
        completed: completions,
        apply: committed,
        mvcc: mvcc_messages,
        leases: lease_messages,
        hub: hub_events.into_iter().zip(watch_requests).collect(),
        compactor: compactor_messages,
        peers: peer_messages,
    };
    (inlets, outlets)
}
