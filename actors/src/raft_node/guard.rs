//! What a message from another member must be like before raft sees it. raft
//! trusts its messages and panics on some that a stale, damaged or forgetful
//! member could send.

use raft::eraftpb::{ConfChange, Entry, EntryType, Message, MessageType, Snapshot};
use raft::{Raft, Storage};
use raft_proto::eraftpb::ConfState;

use super::log_store::LogStore;

/// What to do with a message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// raft may see it.
    Pass,
    /// It is as good as lost, for this reason.
    Drop(&'static str),
    /// It proves that this member has lost what it had stored.
    Lost(String),
}

use Verdict::{Drop, Lost, Pass};

/// Judges a message that claims to be for this member.
pub(super) fn judge(raft: &Raft<LogStore>, message: &Message) -> Verdict {
    if message.to != raft.id || message.from == raft.id || message.from == raft::INVALID_ID {
        return Drop("it is not from another member to this one");
    }
    let kind = message.msg_type();
    let without_term = matches!(kind, MessageType::MsgPropose | MessageType::MsgReadIndex);
    if without_term != (message.term == 0) {
        return Drop("its kind does not go with its term");
    }
    if !without_term && message.term < raft.term {
        // raft answers it or ignores it, whatever it says.
        return Pass;
    }
    match kind {
        MessageType::MsgAppend => judge_append(message),
        MessageType::MsgHeartbeat => judge_heartbeat(raft, message),
        MessageType::MsgSnapshot => judge_snapshot(message.get_snapshot()),
        MessageType::MsgAppendResponse => judge_response(raft, message),
        MessageType::MsgReadIndex | MessageType::MsgReadIndexResp => {
            pass_if(message.entries.len() == 1, "it has no context, or more than one")
        }
        MessageType::MsgPropose => judge_proposal(&message.entries),
        MessageType::MsgHeartbeatResponse
        | MessageType::MsgRequestVote
        | MessageType::MsgRequestVoteResponse
        | MessageType::MsgRequestPreVote
        | MessageType::MsgRequestPreVoteResponse
        | MessageType::MsgTimeoutNow => Pass,
        _ => Drop("members do not send such messages"),
    }
}

fn pass_if(fine: bool, otherwise: &'static str) -> Verdict {
    if fine { Pass } else { Drop(otherwise) }
}

/// Entries must follow what they claim to follow.
fn judge_append(message: &Message) -> Verdict {
    if (message.index == 0) != (message.log_term == 0) {
        return Drop("the entry it builds on has no term");
    }
    let mut last = (message.index, message.log_term);
    for Entry { index, term, .. } in &message.entries {
        let follows = *index == last.0.wrapping_add(1) && *term >= last.1 && *term <= message.term;
        if !follows || *term == 0 {
            return Drop("its entries do not follow each other");
        }
        last = (*index, *term);
    }
    Pass
}

/// A leader tells a follower to commit what the follower has acknowledged, and
/// that is on its disk for good.
fn judge_heartbeat(raft: &Raft<LogStore>, message: &Message) -> Verdict {
    let last = raft.raft_log.last_index();
    if message.commit <= last {
        return Pass;
    }
    Lost(format!(
        "member {:x}, which leads in term {}, knows that this member had stored the log up to {}, but it ends at {last}: the data directory has lost acknowledged writes; remove this member from the cluster and add it again with an empty data directory",
        message.from, message.term, message.commit
    ))
}

fn judge_snapshot(snapshot: &Snapshot) -> Verdict {
    let metadata = snapshot.get_metadata();
    if metadata.index == 0 || metadata.term == 0 {
        return Drop("its snapshot covers nothing");
    }
    let ConfState { voters, learners, voters_outgoing, learners_next, auto_leave } =
        metadata.get_conf_state();
    let mut all: Vec<u64> = voters.iter().chain(learners).copied().collect();
    all.sort_unstable();
    all.dedup();
    let plain = voters_outgoing.is_empty() && learners_next.is_empty() && !*auto_leave;
    let distinct = all.len() == voters.len() + learners.len() && !all.contains(&raft::INVALID_ID);
    pass_if(plain && distinct && !voters.is_empty(), "its snapshot has no proper members")
}

/// A follower cannot have what its leader has not.
fn judge_response(raft: &Raft<LogStore>, message: &Message) -> Verdict {
    let beyond = message.term == raft.term && message.index > raft.raft_log.last_index();
    pass_if(message.reject || !beyond, "it acknowledges entries that were never sent")
}

fn judge_proposal(entries: &[Entry]) -> Verdict {
    let fine = |entry: &Entry| match entry.entry_type() {
        EntryType::EntryNormal => !entry.data.is_empty(),
        EntryType::EntryConfChange => is_conf_change(&entry.data),
        EntryType::EntryConfChangeV2 => false,
    };
    pass_if(!entries.is_empty() && entries.iter().all(fine), "there is nothing to propose in it")
}

fn is_conf_change(data: &[u8]) -> bool {
    <ConfChange as prost::Message>::decode(data).is_ok()
}

/// Whether what was recovered can be a member's log; raft would panic.
pub(super) fn check_recovered(store: &LogStore, applied: u64) -> Result<(), raft::Error> {
    let state = store.initial_state()?;
    let (first, last) = (store.first_index()?, store.last_index()?);
    let invalid = |text: String| Err(raft::Error::ConfigInvalid(text));
    let hard_state = state.hard_state;
    if state.hard_state != Default::default() && !(first - 1..=last).contains(&hard_state.commit) {
        return invalid(format!(
            "the log holds entries {first} to {last}, but {} is committed",
            hard_state.commit
        ));
    }
    if applied != 0 && !(first - 1..=hard_state.commit.max(first - 1)).contains(&applied) {
        return invalid(format!(
            "the state covers the log up to {applied}, of which only {} is committed and {} given up",
            hard_state.commit,
            first - 1
        ));
    }
    Ok(())
}
