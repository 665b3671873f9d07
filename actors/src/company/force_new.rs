//! One member of a cluster whose others are lost becomes a cluster of its own.

use castd_proto::castdpb::MemberChange;
use castd_proto::castdpb::member_change::Kind;
use prost::Message;
use raft::eraftpb::{Entry, EntryType, HardState};

use super::open::{Log, OpenError};
use crate::apply_loop::{conf_change, member_change};
use crate::checkpointer::LoadedMeta;
use crate::cluster::ClusterState;
use crate::mvcc::StoreMeta;
use crate::wal_writer::{Append, Wal};

/// Appends to the log, as committed, what makes this member the only one.
/// Durable when it returns; done again it does nothing. `begin` says where the
/// member is reached, should the cluster not know it.
///
/// All writes in the log stay: the commit index on disk may be behind what was
/// acknowledged. Only a change of the membership that may not have come to pass
/// is cut off, with what follows it.
///
/// # Errors
/// When the member was removed from its cluster or has never been in it, or the
/// log cannot be read or written.
pub(super) fn force_new_cluster(
    wal: &mut Wal,
    log: &mut Log,
    sealed: &LoadedMeta,
    meta: &StoreMeta,
    begin: &ClusterState,
) -> Result<(), OpenError> {
    let commit = log.hard_state.commit.max(sealed.applied_index);
    if commit == 0 {
        return Err(OpenError::Mismatch(
            "this member has not joined its cluster yet: there is nothing to make a new one from"
                .to_owned(),
        ));
    }
    let in_doubt = |e: &Entry| e.index > commit && e.entry_type() != EntryType::EntryNormal;
    let kept = log.entries.iter().position(in_doubt).unwrap_or(log.entries.len());
    let last = log.entries[..kept].last().map_or(sealed.applied_index, |entry| entry.index);
    let cut = log.entries.len() - kept;
    log.entries.truncate(kept);
    let cluster = members_at(&meta.cluster, &log.entries)?;
    let changes = changes_to_stand_alone(cluster, meta.member_id, begin)?;
    let mut added: Vec<Entry> = changes.iter().map(entry_of).collect();
    if added.is_empty() && cut > 0 {
        // Something must take the place of what is cut.
        added.push(Entry::default());
    }
    let Some(count) = added.len().checked_sub(1) else { return Ok(()) };
    let term = log.hard_state.term;
    for (entry, index) in added.iter_mut().zip(last + 1..) {
        (entry.index, entry.term) = (index, term);
    }
    log.hard_state = HardState { commit: last + 1 + count as u64, ..log.hard_state };
    wal.append(&Append {
        entries: added.clone(),
        hard_state: Some(log.hard_state),
        must_sync: true,
        ..Append::default()
    })?;
    wal.write()?;
    wal.sync()?;
    log.entries.extend(added);
    tracing::warn!(
        members_changed = changes.len(),
        entries_cut = cut,
        commit_index = log.hard_state.commit,
        "made this member the only one of its cluster"
    );
    Ok(())
}

/// The members after `entries`.
fn members_at(cluster: &ClusterState, entries: &[Entry]) -> Result<ClusterState, OpenError> {
    let mut cluster = cluster.clone();
    let changes = entries.iter().filter(|e| e.entry_type() == EntryType::EntryConfChange);
    for entry in changes.filter(|entry| !entry.data.is_empty()) {
        let (_, change) = member_change(&entry.data).map_err(|error| {
            OpenError::Mismatch(format!("entry {} cannot be read: {error}", entry.index))
        })?;
        // A change that is refused changes nothing, here as when it was applied.
        let _ = cluster.change(&change);
    }
    Ok(cluster)
}

/// First this member gets a vote, then all others go: there is never no voter.
fn changes_to_stand_alone(
    mut cluster: ClusterState,
    own: u64,
    begin: &ClusterState,
) -> Result<Vec<MemberChange>, OpenError> {
    let change = |kind: Kind, member_id| MemberChange {
        kind: kind.into(),
        member_id,
        ..MemberChange::default()
    };
    if cluster.removed.contains(&own) {
        let reason =
            format!("member {own:x} was removed from its cluster: it cannot be its only one");
        return Err(OpenError::Mismatch(reason));
    }
    let mut changes = Vec::new();
    match cluster.members.get(&own) {
        Some(member) if !member.is_learner => {}
        Some(_) => changes.push(change(Kind::Promote, own)),
        None => {
            let peer_urls = begin.members.get(&own).map(|m| m.peer_urls.clone());
            let peer_urls = peer_urls.unwrap_or_default();
            changes.push(MemberChange { peer_urls, ..change(Kind::Add, own) });
        }
    }
    let others = cluster.members.keys().filter(|id| **id != own);
    changes.extend(others.map(|id| change(Kind::Remove, *id)));
    for change in &changes {
        cluster.change(change).map_err(|error| {
            OpenError::Mismatch(format!(
                "member {own:x} cannot become the only one of its cluster: {error}"
            ))
        })?;
    }
    Ok(changes)
}

fn entry_of(change: &MemberChange) -> Entry {
    let change = conf_change(change).expect("its kind is one of those known here");
    Entry {
        entry_type: EntryType::EntryConfChange.into(),
        data: change.encode_to_vec().into(),
        ..Entry::default()
    }
}
