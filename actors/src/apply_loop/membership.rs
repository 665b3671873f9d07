//! What a committed change of the membership means: for the list of members,
//! and for raft.

use castd_proto::castdpb::MemberChange;
use castd_proto::castdpb::member_change::Kind;
use prost::Message;
use raft::eraftpb::{ConfChange, ConfChangeType, Entry, EntryType};

use crate::cluster::ClusterState;
use crate::mvcc::OperationName;
use crate::shared::{Error, Planted, is_planted};

/// A decided change.
#[derive(Debug)]
pub(super) struct Decision {
    /// The operation's name, for figures.
    pub name: OperationName,
    /// What raft has to do; `node_id` is 0 when nothing.
    pub step: ConfChange,
    /// What the proposer hears.
    pub outcome: Result<(), Error>,
}

/// What a change of the membership in the log says: the data of its entry, read.
///
/// # Errors
/// When it cannot be read, or is of a kind that this version does not know.
pub fn member_change(data: &[u8]) -> Result<(ConfChange, MemberChange), String> {
    let wish = ConfChange::decode(data).map_err(|error| error.to_string())?;
    let change = MemberChange::decode(&wish.context[..]).map_err(|error| error.to_string())?;
    if Kind::try_from(change.kind).is_err() {
        return Err(format!(
            "it changes the membership in a way that this version does not know: kind {}",
            change.kind
        ));
    }
    Ok((wish, change))
}

/// Carries out the membership change in `entry`.
///
/// # Errors
/// When the entry cannot be read.
pub(super) fn decide(cluster: &mut ClusterState, entry: &Entry) -> Result<Decision, String> {
    if entry.entry_type() != EntryType::EntryConfChange {
        return Err("it is a joint membership change, which nobody proposes".to_owned());
    }
    let (_, change) = member_change(&entry.data)?;
    let mut step = conf_change(&change).map_err(|error| error.to_string())?;
    let outcome = cluster.change(&change);
    match outcome {
        Ok(()) => tracing::info!(
            { "member-id" = format!("{:x}", change.member_id),
              kind = change.kind().as_str_name(),
              learner = change.is_learner,
              peer_urls = ?change.peer_urls },
            "changed the membership"
        ),
        Err(error) => tracing::warn!(
            { "member-id" = format!("{:x}", change.member_id),
              kind = change.kind().as_str_name(),
              %error },
            "refused a change of the membership"
        ),
    }
    let name = match change.kind() {
        Kind::Add => OperationName::ClusterMemberAdd,
        Kind::Promote => OperationName::ClusterMemberPromote,
        Kind::Remove => OperationName::ClusterMemberRemove,
    };
    if outcome.is_err() {
        step.node_id = raft::INVALID_ID;
    }
    Ok(Decision { name, step, outcome })
}

/// A change in raft's form.
///
/// # Errors
/// [`Error::NotCapable`] when it is of a kind that this version does not know.
pub fn conf_change(change: &MemberChange) -> Result<ConfChange, Error> {
    let change_type = match Kind::try_from(change.kind).map_err(|_| Error::NotCapable)? {
        Kind::Add if change.is_learner && !is_planted(Planted::LearnerCounts) => {
            ConfChangeType::AddLearnerNode
        }
        Kind::Add | Kind::Promote => ConfChangeType::AddNode,
        Kind::Remove => ConfChangeType::RemoveNode,
    };
    Ok(ConfChange {
        change_type: change_type.into(),
        node_id: change.member_id,
        context: change.encode_to_vec().into(),
        ..ConfChange::default()
    })
}
