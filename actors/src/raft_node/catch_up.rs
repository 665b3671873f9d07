//! Members that fell behind: how long the log is kept for others, and how a
//! snapshot from another takes the place of this member's state.

use std::collections::BTreeMap;

use prost::Message as _;
use raft::eraftpb::{ConfState, Message, MessageType, Snapshot};
use raft::{ProgressState, SnapshotStatus};

use super::core::RaftCore;
use super::messages::SnapshotHold;
use super::settings::{Accepted, Effects};
use crate::shared::{Planted, is_planted};
use crate::wal_writer::{Append, SnapshotMarker};

/// Bytes of entries in memory from which on applied ones are given up early.
const LOG_BYTES_MAX: u64 = 64 << 20;
/// Bytes of entries that are kept for members to which a snapshot is on its
/// way; they need what follows it.
const CATCH_UP_BYTES_MAX: u64 = 512 << 20;

/// Snapshots that arrive.
#[derive(Debug)]
pub(super) struct Installing<S> {
    /// A state that raft has accepted, until its ready is taken.
    arrived: Option<(S, SnapshotHold)>,
    /// The snapshot that takes the state's place right now.
    current: Option<SnapshotMarker>,
    /// Appends that must not overtake it on the way to the WAL.
    held: Vec<Append>,
    /// The index of a snapshot that is installed, until the log behind it is
    /// durable. To raft there is a hole in the log before that.
    unsaved: Option<u64>,
    /// The sender waits until all of this is done.
    hold: Option<SnapshotHold>,
}

impl<S> Default for Installing<S> {
    fn default() -> Self {
        Self { arrived: None, current: None, held: Vec::new(), unsaved: None, hold: None }
    }
}

impl<S> Installing<S> {
    /// Whether a snapshot is being installed or about to be.
    pub(super) fn is_busy(&self) -> bool {
        self.arrived.is_some() || self.current.is_some() || self.unsaved.is_some()
    }

    /// Whether appends wait for a snapshot.
    pub(super) fn holds_appends(&self) -> bool {
        self.current.is_some()
    }

    /// Holds an append back if it has to wait; gives it back otherwise.
    pub(super) fn hold(&mut self, append: Append) -> Option<Append> {
        if !self.holds_appends() {
            return Some(append);
        }
        self.held.push(append);
        None
    }
}

/// Snapshots that this leader has sent: the last index each covers, by member.
pub(super) type Sent = BTreeMap<u64, u64>;

/// A member to which a snapshot could not be sent.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct FailedSnapshot {
    /// Ticks between the failure and the next attempt; more each time.
    pause: u64,
    /// When raft is told.
    report_at: Option<u64>,
}

/// Remembers the snapshots among messages that leave.
pub(super) fn note_snapshots(sent: &mut Sent, messages: &[Message]) {
    for message in messages.iter().filter(|m| m.msg_type() == MessageType::MsgSnapshot) {
        sent.insert(message.to, message.get_snapshot().get_metadata().index);
    }
}

impl<S> RaftCore<S> {
    /// A snapshot message whose state is there. When raft does not want it, the
    /// state and its hold are dropped.
    pub(super) fn snapshot_arrived(
        &mut self,
        message: Message,
        arrived: (S, SnapshotHold),
        effects: &mut Effects<S>,
    ) {
        let index = message.get_snapshot().get_metadata().index;
        if self.installing.is_busy() {
            tracing::info!(index, "refused a snapshot: another one is being installed");
            return;
        }
        self.step(message, effects);
        let accepted = self.node.snap().is_some_and(|snap| snap.get_metadata().index == index);
        if accepted {
            self.installing.arrived = Some(arrived);
        } else {
            tracing::info!(index, "a snapshot was not needed");
        }
    }

    /// raft's ready replaces everything: so do the log in memory and, in due
    /// time, the state machine.
    pub(super) fn begin_install(&mut self, snapshot: &Snapshot, effects: &mut Effects<S>) {
        let metadata = snapshot.get_metadata();
        let (index, term) = (metadata.index, metadata.term);
        let conf_state = metadata.get_conf_state().clone();
        let Some((state, hold)) = self.installing.arrived.take() else {
            effects.fatal = Some(format!("raft installs a snapshot at {index} without a state"));
            return;
        };
        tracing::info!(index, term, "installing a snapshot");
        let marker = conf_state.encode_to_vec().into();
        self.installing.current = Some(SnapshotMarker { index, term, conf_state: marker });
        self.installing.hold = Some(hold);
        self.node.mut_store().reset((index, term), conf_state);
        // The snapshot covers what could not be handed out yet.
        self.held.clear();
        self.membership.forget();
        self.proposals.forget_displaced(index);
        effects.install = Some(Accepted { index, term, state });
    }

    /// The state machine is the snapshot's: the log goes on behind it.
    pub(super) fn installed(&mut self, index: u64, effects: &mut Effects<S>) {
        let Some(marker) = self.installing.current.take_if(|marker| marker.index == index) else {
            tracing::warn!(index, "a snapshot was installed that nobody waits for");
            return;
        };
        tracing::info!(index, "installed a snapshot");
        self.applied = self.applied.max(index);
        self.applying.clear();
        self.installing.unsaved = Some(index);
        effects.marker = Some(marker).filter(|_| !is_planted(Planted::SnapshotWithoutMarker));
        effects.appends.append(&mut self.installing.held);
        // The disk has not been asked for these before now.
        self.appending.iter_mut().for_each(|append| append.since = self.now);
    }

    /// Word of a snapshot that was to be sent. raft hears of a failure after a while only:
    /// it sends the next one as soon as it does.
    pub(super) fn snapshot_sent(&mut self, to: u64, arrived: bool) {
        if arrived {
            self.failed_snapshots.remove(&to);
            return self.node.report_snapshot(to, SnapshotStatus::Finish);
        }
        self.sent.remove(&to);
        let failed = self.failed_snapshots.entry(to).or_default();
        failed.pause = (2 * failed.pause).clamp(1, self.settings.election_ticks as u64);
        failed.report_at = Some(self.now + failed.pause);
    }

    /// Tells raft of snapshots that failed a while ago.
    pub(super) fn report_failed_snapshots(&mut self) {
        if self.node.raft.state != raft::StateRole::Leader {
            return self.failed_snapshots.clear();
        }
        let prs = self.node.raft.prs();
        self.failed_snapshots.retain(|id, _| prs.get(*id).is_some());
        for (id, failed) in &mut self.failed_snapshots {
            if failed.report_at.take_if(|at| *at <= self.now).is_some() {
                self.node.report_snapshot(*id, SnapshotStatus::Failure);
            }
        }
    }

    /// Tells raft what is applied, as far as it may know: a snapshot counts only
    /// when the log behind it is durable.
    pub(super) fn tell_applied(&mut self) {
        let log = &self.node.raft.raft_log;
        if self.installing.unsaved.take_if(|index| *index <= log.persisted).is_some() {
            self.installing.hold = None;
        }
        let applied = self.applied.min(log.committed).min(log.persisted);
        if applied <= log.applied {
            return;
        }
        self.node.advance_apply_to(applied);
        let conf_state: Option<ConfState> = self.membership.conf_state_at(applied);
        self.node.mut_store().set_applied(applied, conf_state);
        self.compact_log();
    }

    /// Gives up old entries in memory, now and then many at once.
    fn compact_log(&mut self) {
        let applied = self.node.raft.raft_log.applied;
        let store = self.node.store();
        let kept = applied.saturating_sub(store.first());
        let upto = if kept > self.settings.snapshot_count + self.settings.catchup_entries {
            applied.saturating_sub(self.settings.catchup_entries)
        } else if store.bytes() > LOG_BYTES_MAX {
            store.first() + kept / 2
        } else {
            return;
        };
        let upto = upto.min(self.needed_by_others());
        self.node.mut_store().compact(upto);
    }

    /// The last index that no follower needs any more, as long as keeping the
    /// rest does not take too much room.
    fn needed_by_others(&mut self) -> u64 {
        if self.node.raft.state != raft::StateRole::Leader {
            self.sent.clear();
            return u64::MAX;
        }
        let prs = self.node.raft.prs();
        self.sent.retain(|id, index| prs.get(*id).is_some_and(|pr| pr.matched < *index));
        let bytes = self.node.store().bytes();
        let me = self.settings.member_id;
        let followers = prs.iter().filter(|(id, _)| **id != me);
        let replicating = followers
            .filter(|(_, pr)| pr.state == ProgressState::Replicate && bytes <= LOG_BYTES_MAX)
            .map(|(_, pr)| pr.matched);
        let catching_up = self.sent.values().copied().filter(|_| bytes <= CATCH_UP_BYTES_MAX);
        replicating.chain(catching_up).min().unwrap_or(u64::MAX)
    }
}
