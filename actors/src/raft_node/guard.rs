//! What a message from another member must be like before raft sees it. raft
//! trusts its messages and panics on some that a stale, damaged or forgetful
//! member could send.

use bytes::Bytes;
use castd_proto::castdpb::Request;
use prost::Message as _;
use raft::eraftpb::{ConfChange, Entry, EntryType, Message, MessageType, Snapshot};
use raft::{Raft, StateRole, Storage};
use raft_proto::eraftpb::ConfState;

use super::log_store::LogStore;
use crate::apply_loop::{conf_change, member_change};

/// What to do with a message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// raft may see it.
    Pass,
    /// It is as good as lost, for this reason.
    Drop(&'static str),
    /// It proves that this member, or a majority of the others, has lost what it had stored.
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
        MessageType::MsgAppend => judge_append(raft, message),
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

/// Entries must follow what they claim to follow. Where this member knows what is committed,
/// the leader has the same.
fn judge_append(raft: &Raft<LogStore>, message: &Message) -> Verdict {
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
    let before = (message.index, message.log_term);
    let told = message.entries.iter().map(|entry| (entry.index, entry.term));
    let mut told = std::iter::once(before).chain(told);
    match told.find(|(index, term)| is_committed_otherwise(raft, *index, *term)) {
        None => Pass,
        Some((index, term)) => Lost(format!(
            "member {:x}, which leads in term {}, has an entry of term {term} at {index}, where this member has another one that is committed: a majority of the members has lost acknowledged writes, or was started with empty data directories; keep this member's data directory",
            message.from, message.term
        )),
    }
}

/// Whether this member knows of another committed entry than that of `term` at `index`.
fn is_committed_otherwise(raft: &Raft<LogStore>, index: u64, term: u64) -> bool {
    let known = index > 0 && index <= raft.raft_log.committed;
    // What was given up is not known any more.
    known && raft.raft_log.term(index).is_ok_and(|own| own != 0 && own != term)
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

/// A follower has nothing committed that its leader has not. What it acknowledges beyond
/// the leader's log is what it knows to be committed.
fn judge_response(raft: &Raft<LogStore>, message: &Message) -> Verdict {
    let last = raft.raft_log.last_index();
    let beyond = message.term == raft.term && message.index > last;
    if message.reject || !beyond {
        return Pass;
    }
    let leads = raft.state == StateRole::Leader && raft.prs().get(message.from).is_some();
    if !leads || message.commit < message.index {
        return Drop("it acknowledges entries that were never sent");
    }
    Lost(format!(
        "member {:x} knows that the log is committed up to {}, but that of this member, which leads in term {}, ends at {last}: this member has lost acknowledged writes, or was started anew with an empty data directory; remove it from the cluster and add it again",
        message.from, message.commit, message.term
    ))
}

/// What another member proposes must be something that every member can apply: once
/// it is in the log, it is too late to refuse it.
fn judge_proposal(entries: &[Entry]) -> Verdict {
    let fine = |entry: &Entry| match EntryType::try_from(entry.entry_type) {
        Ok(EntryType::EntryNormal) => is_request(&entry.data),
        Ok(EntryType::EntryConfChange) => is_member_change(&entry.data),
        Ok(EntryType::EntryConfChangeV2) | Err(_) => false,
    };
    let all_fine = !entries.is_empty() && entries.iter().all(fine);
    pass_if(all_fine, "what it proposes is nothing that this member could apply")
}

/// Whether it is an operation. Its keys and values are not copied for that.
fn is_request(data: &Bytes) -> bool {
    Request::decode(data.clone()).is_ok_and(|request| request.op.is_some())
}

/// Whether it is a change of the membership, and raft is told the same of it as the
/// list of members.
fn is_member_change(data: &Bytes) -> bool {
    let Ok((wish, change)) = member_change(data) else { return false };
    let same = |step: ConfChange| {
        (step.node_id, step.change_type) == (wish.node_id, wish.change_type)
            && step.node_id != raft::INVALID_ID
    };
    conf_change(&change).is_ok_and(same)
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

#[cfg(test)]
mod tests {
    use castd_proto::castdpb::MemberChange;
    use castd_proto::castdpb::member_change::Kind;
    use castd_proto::castdpb::request::Op;
    use castd_proto::etcdserverpb::PutRequest;
    use proptest::prelude::*;
    use raft::eraftpb::HardState;

    use super::super::{Effects, RaftCompletion, RaftCore, RaftInbound, RaftSettings};
    use super::*;
    use crate::apply_loop::{ApplyCore, Committed};
    use crate::cluster::{ClusterState, MemberInfo};

    const ME: u64 = 7;
    const PEER: u64 = 8;

    fn put(key: Bytes) -> Entry {
        let op = Some(Op::Put(PutRequest { key, ..PutRequest::default() }));
        normal(Request { op, ..Request::default() }.encode_to_vec())
    }

    fn normal(data: Vec<u8>) -> Entry {
        Entry { data: data.into(), ..Entry::default() }
    }

    fn wish(change: &MemberChange) -> ConfChange {
        let mut wish = conf_change(&MemberChange { kind: 0, ..change.clone() }).unwrap();
        wish.context = change.encode_to_vec().into();
        wish
    }

    fn change(wish: &ConfChange) -> Entry {
        let entry_type = EntryType::EntryConfChange.into();
        Entry { entry_type, ..normal(wish.encode_to_vec()) }
    }

    fn learner(member_id: u64) -> MemberChange {
        let peer_urls = vec![format!("http://{member_id}")];
        MemberChange { member_id, peer_urls, is_learner: true, ..MemberChange::default() }
    }

    #[test]
    fn only_what_can_be_applied_may_be_proposed() {
        let passes = |entry: Entry| judge_proposal(&[entry]) == Pass;
        assert!(passes(put("k".into())));
        assert!(passes(change(&wish(&learner(9)))));
        let remove = MemberChange { kind: Kind::Remove.into(), ..learner(9) };
        assert!(passes(change(&conf_change(&remove).unwrap())));
        for (entry, what) in [
            (normal(vec![]), "nothing"),
            (normal(vec![0xff; 3]), "no message"),
            (normal(vec![0xf2, 0x3f, 0]), "an operation of a newer version"),
            (Entry { entry_type: 7, ..put("k".into()) }, "an entry of a newer version"),
            (Entry { entry_type: 2, ..change(&wish(&learner(9))) }, "a joint change"),
            (change(&ConfChange { node_id: 9, ..ConfChange::default() }), "no member"),
            (change(&ConfChange { context: vec![0xff].into(), ..wish(&learner(9)) }), "noise"),
            (change(&wish(&MemberChange { kind: 3, ..learner(9) })), "a newer kind of change"),
            (change(&wish(&learner(0))), "the member that is none"),
            (change(&ConfChange { node_id: 5, ..wish(&learner(9)) }), "another node"),
            (change(&ConfChange { change_type: 1, ..wish(&learner(9)) }), "another change"),
        ] {
            assert!(!passes(entry.clone()), "{what}: {entry:?}");
            let both = judge_proposal(&[put("k".into()), entry]);
            assert!(matches!(both, Drop(_)), "{what}, behind another one");
        }
        assert!(matches!(judge_proposal(&[]), Drop(_)));
    }

    fn core(log: LogStore) -> RaftCore<()> {
        let settings = RaftSettings {
            member_id: ME,
            election_ticks: 10,
            pre_vote: true,
            campaign_at_once: true,
            snapshot_count: 100,
            catchup_entries: 50,
            applied: 0,
            run: 1,
            request_timeout_ticks: 50,
            read_retry_ticks: 5,
            backlog_bytes_max: 1 << 20,
            seed: 1,
        };
        RaftCore::new(settings, log).unwrap()
    }

    /// The only voter of a cluster, which leads it, and a learner.
    fn leader() -> (RaftCore<()>, ApplyCore) {
        let conf = RaftCore::<()>::conf_state(vec![ME], vec![PEER]);
        let log = LogStore::new((0, 0), HardState::default(), conf, Vec::new());
        let member = MemberInfo { id: ME, ..MemberInfo::default() };
        let cluster = ClusterState { members: [(ME, member)].into(), ..ClusterState::default() };
        (core(log), ApplyCore::new(cluster))
    }

    /// What a message brings about in a member that it ends.
    fn ends(core: &mut RaftCore<()>, message: Message) -> Option<String> {
        let mut effects = Effects::default();
        let message = Message { from: PEER, to: ME, ..message };
        core.inbound(vec![RaftInbound::Step(vec![message])], &mut effects);
        effects.fatal
    }

    #[test]
    fn a_leader_whose_log_ends_before_what_is_committed_ends() {
        let (mut core, mut apply) = leader();
        settle(&mut core, &mut apply);
        let (term, last) = (core.node.raft.term, core.node.raft.raft_log.last_index());
        let msg_type = MessageType::MsgAppendResponse.into();
        let told = |index, commit| Message { msg_type, term, index, commit, ..Message::default() };
        assert_eq!(ends(&mut core, told(last, last)), None);
        assert_eq!(ends(&mut core, told(last + 1, last)), None, "it is dropped");
        let stranger = Message { from: 99, to: ME, ..told(last + 1, last + 1) };
        assert!(matches!(judge(&core.node.raft, &stranger), Drop(_)));
        let fatal = ends(&mut core, told(last + 1, last + 1)).expect("it has lost what it had");
        assert!(fatal.starts_with("member 8 knows that the log is committed up to 2,"), "{fatal}");
    }

    #[test]
    fn a_member_does_not_follow_who_has_other_entries_where_its_own_are_committed() {
        let entry = |index, term| Entry { index, term, ..Entry::default() };
        let follower = || {
            let entries = (1..=5).map(|index| entry(index, 2)).collect();
            let hard_state = HardState { term: 2, commit: 4, ..HardState::default() };
            let conf = RaftCore::<()>::conf_state(vec![ME, PEER], Vec::new());
            core(LogStore::new((0, 0), hard_state, conf, entries))
        };
        let append = |(index, log_term), entries: &[(u64, u64)]| Message {
            msg_type: MessageType::MsgAppend.into(),
            term: 3,
            index,
            log_term,
            entries: entries.iter().map(|(index, term)| entry(*index, *term)).collect(),
            ..Message::default()
        };
        for (message, what) in [
            (append((4, 2), &[(5, 3)]), "what is not committed may be another's"),
            (append((3, 2), &[(4, 2), (5, 2), (6, 3)]), "all is known already, but the last"),
            (append((5, 3), &[]), "nor does this tell of more than what is not committed"),
        ] {
            assert_eq!(ends(&mut follower(), message), None, "{what}");
        }
        for message in [append((4, 3), &[(5, 3)]), append((3, 2), &[(4, 3)]), append((1, 1), &[])] {
            let fatal = ends(&mut follower(), message).expect("its committed log is not to change");
            assert!(fatal.contains("has an entry of term"), "{fatal}");
        }
    }

    /// Lets happen what follows, as the disk and the other actors do; the entries that
    /// were applied. Fails where a member would end.
    fn settle(core: &mut RaftCore<()>, apply: &mut ApplyCore) -> Vec<Entry> {
        let mut applied = Vec::new();
        loop {
            let mut effects = Effects::default();
            core.process(&mut effects);
            let mut next = Effects::default();
            assert_eq!(effects.fatal, None);
            let rests = effects.appends.is_empty() && effects.committed.is_empty();
            if let Some(last) = effects.appends.last() {
                core.complete(RaftCompletion::Persisted { ready: last.ready_number }, &mut next);
            }
            for Committed { entries } in effects.committed {
                let index = entries.last().unwrap().entry.index;
                applied.extend(entries.iter().map(|committed| committed.entry.clone()));
                let plan = apply.plan(vec![Committed { entries }]).expect("it can be applied");
                let changes = plan.unwrap().conf_changes;
                core.complete(RaftCompletion::ConfChanges(changes), &mut next);
                core.complete(RaftCompletion::Applied { index }, &mut next);
            }
            assert_eq!(next.fatal, None);
            if rests {
                return applied;
            }
        }
    }

    /// Entries from nonsense to what is almost right.
    fn entry() -> impl Strategy<Value = Entry> {
        let bytes = || prop::collection::vec(any::<u8>(), 0..40);
        let id = || prop_oneof![0u64..4, Just(ME), any::<u64>()];
        let member_change = (0i32..4, id(), any::<bool>(), 0u32..3).prop_map(
            |(kind, member_id, is_learner, max_learners)| MemberChange {
                kind,
                is_learner,
                max_learners,
                ..learner(member_id)
            },
        );
        let whole = member_change.clone().prop_map(|change_| change(&wish(&change_)));
        let skewed = (member_change, id(), -1i32..4).prop_map(|(change_, node_id, change_type)| {
            change(&ConfChange { node_id, change_type, ..wish(&change_) })
        });
        let context = (bytes(), id()).prop_map(|(context, node_id)| {
            change(&ConfChange { context: context.into(), node_id, ..ConfChange::default() })
        });
        let typed =
            (bytes(), -1i32..4).prop_map(|(data, entry_type)| Entry { entry_type, ..normal(data) });
        let cut =
            (bytes(), any::<prop::sample::Index>(), any::<u8>()).prop_map(|(key, at, byte)| {
                let mut data = put(key.into()).data.to_vec();
                let at = at.index(data.len());
                data[at] = byte;
                normal(data)
            });
        let right = bytes().prop_map(|key| put(key.into()));
        prop_oneof![bytes().prop_map(normal), right, whole, skewed, context, typed, cut]
    }

    proptest! {
        /// Whatever another member proposes, nothing gets into the log that ends those
        /// who apply it.
        #[test]
        fn no_proposal_of_another_member_ends_this_one(
            proposals in prop::collection::vec(prop::collection::vec(entry(), 0..3), 1..20),
        ) {
            let (mut core, mut apply) = leader();
            settle(&mut core, &mut apply);
            for entries in proposals {
                let kind = MessageType::MsgPropose.into();
                let propose =
                    Message { msg_type: kind, from: PEER, to: ME, entries, ..Message::default() };
                let mut effects = Effects::default();
                core.inbound(vec![RaftInbound::Step(vec![propose])], &mut effects);
                prop_assert_eq!(effects.fatal, None);
                for entry in settle(&mut core, &mut apply) {
                    let fine = entry.data.is_empty() || judge_proposal(&[entry]) == Pass;
                    prop_assert!(fine, "it is in the log");
                }
            }
        }
    }
}
