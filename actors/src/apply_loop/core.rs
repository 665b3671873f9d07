//! ApplyLoop's decisions, as a plain state machine.

use std::sync::Arc;

use castd_proto::castdpb::{self, request::Op};
use castd_proto::etcdserverpb::alarm_request::AlarmAction;
use castd_proto::etcdserverpb::request_op::Request as TxnOp;
use castd_proto::etcdserverpb::{
    AlarmMember, AlarmRequest, AlarmResponse, AlarmType, RequestOp, TxnRequest,
};
use prost::Message;
use raft::eraftpb::{ConfChange, Entry, EntryType};

use super::{Committed, CommittedEntry, membership};
use crate::cluster::ClusterState;
use crate::mvcc::{ApplyBatch, Operation, OperationKind, OperationName, Outcome};
use crate::shared::{Error, Planted, is_planted};

/// What committed entries come to.
#[derive(Debug)]
pub struct Plan {
    /// For Mvcc.
    pub batch: ApplyBatch,
    /// For RaftNode, before the batch goes on: what became of the membership
    /// changes in it, in order; `node_id` is 0 for a refused one.
    pub conf_changes: Vec<ConfChange>,
    /// For PeerTransport: whether members came or went, or where they are
    /// reached is another place.
    pub members_changed: bool,
}

/// The state of the cluster and what entries do to it.
#[derive(Debug)]
pub struct ApplyCore {
    cluster: Arc<ClusterState>,
}

impl ApplyCore {
    /// Starts from what a checkpoint holds or a bootstrap decided.
    pub fn new(cluster: ClusterState) -> Self {
        Self { cluster: Arc::new(cluster) }
    }

    /// Members, alarms and version as of the last entry.
    pub fn cluster(&self) -> Arc<ClusterState> {
        Arc::clone(&self.cluster)
    }

    /// Turns committed entries into one batch of operations; `None` when there
    /// are no entries.
    ///
    /// # Errors
    /// When an entry cannot be read: this member does not understand its own
    /// log and must not go on.
    pub fn plan(&mut self, committed: Vec<Committed>) -> Result<Option<Plan>, String> {
        let batch = ApplyBatch {
            index: 0,
            term: 0,
            log_bytes: 0,
            cluster: self.cluster(),
            operations: Vec::new(),
        };
        let mut plan = Plan { batch, conf_changes: Vec::new(), members_changed: false };
        let piled_up = committed.len() > 1;
        for CommittedEntry { entry, reply } in committed.into_iter().flat_map(|c| c.entries) {
            let index = entry.index;
            plan.batch.index = index;
            plan.batch.term = entry.term;
            plan.batch.log_bytes += entry.data.len() as u64;
            let decided = self
                .take(entry, &mut plan)
                .map_err(|reason| format!("entry {index} cannot be read: {reason}"))?;
            if let Some((name, kind)) = decided {
                plan.batch.operations.push(Operation { name, kind, reply });
            }
        }
        if piled_up && is_planted(Planted::AppliedOutOfOrder) && plan.batch.operations.len() > 1 {
            plan.batch.operations.swap(0, 1);
        }
        plan.batch.cluster = self.cluster();
        Ok((plan.batch.index > 0).then_some(plan))
    }

    /// The operation that an entry comes to, if any.
    fn take(
        &mut self,
        entry: Entry,
        plan: &mut Plan,
    ) -> Result<Option<(OperationName, OperationKind)>, String> {
        if entry.data.is_empty() {
            // A new leader's first entry.
            return Ok(None);
        }
        if entry.entry_type() != EntryType::EntryNormal {
            let decision = membership::decide(Arc::make_mut(&mut self.cluster), &entry)?;
            plan.members_changed |= decision.outcome.is_ok();
            plan.conf_changes.push(decision.step);
            let outcome = decision.outcome.map(|()| Outcome::Done);
            return Ok(Some((decision.name, OperationKind::Decided(outcome))));
        }
        let request = castdpb::Request::decode(entry.data).map_err(|error| error.to_string())?;
        let Some(op) = request.op else {
            return Err("it holds no operation that this version knows".to_owned());
        };
        let name = name(&op);
        if request.only_in_term != 0 && request.only_in_term != entry.term {
            return Ok(Some((name, OperationKind::Decided(Err(Error::LeaderChanged)))));
        }
        let moves = matches!(op, Op::MemberPeerUrls(_));
        let kind = self.decide(op);
        plan.members_changed |= moves && matches!(kind, OperationKind::Decided(Ok(_)));
        Ok(Some((name, kind)))
    }

    fn decide(&mut self, op: Op) -> OperationKind {
        if let Some(error) = self.refusal(&op) {
            return OperationKind::Decided(Err(error));
        }
        match op {
            Op::Put(request) => OperationKind::Put(request),
            Op::DeleteRange(request) => OperationKind::DeleteRange(request),
            Op::Txn(request) => OperationKind::Txn(request),
            Op::Compaction(request) => OperationKind::Compaction(request),
            Op::LeaseGrant(request) => OperationKind::LeaseGrant(request),
            Op::LeaseRevoke(request) => OperationKind::LeaseRevoke(request),
            Op::LeaseCheckpoint(request) => OperationKind::LeaseCheckpoint(request),
            Op::Alarm(request) => OperationKind::Decided(Ok(Outcome::Alarm(self.alarm(&request)))),
            Op::MemberAttributes(attributes) => {
                let cluster = Arc::make_mut(&mut self.cluster);
                if let Some(member) = cluster.members.get_mut(&attributes.member_id) {
                    member.name = attributes.name;
                    member.client_urls = attributes.client_urls;
                }
                OperationKind::Decided(Ok(Outcome::Done))
            }
            Op::ClusterVersion(version) => {
                tracing::info!(
                    from = self.cluster.version,
                    to = version.version,
                    "set the cluster version"
                );
                Arc::make_mut(&mut self.cluster).version = Some(version.version);
                OperationKind::Decided(Ok(Outcome::Done))
            }
            Op::MemberPeerUrls(urls) => {
                let outcome = Arc::make_mut(&mut self.cluster).update(urls);
                OperationKind::Decided(outcome.map(|()| Outcome::Done))
            }
            // Nobody proposes reads: they change nothing.
            Op::Range(_) => OperationKind::Decided(Ok(Outcome::Done)),
        }
    }

    /// Why an alarm forbids the operation.
    fn refusal(&self, op: &Op) -> Option<Error> {
        if self.cluster.has_alarm(AlarmType::Corrupt) && touches_keys(op) {
            return Some(Error::Corrupt);
        }
        let grows = match op {
            Op::Put(_) | Op::LeaseGrant(_) => true,
            Op::Txn(txn) => puts(txn),
            _ => false,
        };
        (grows && self.cluster.has_alarm(AlarmType::Nospace)).then_some(Error::NoSpace)
    }

    fn alarm(&mut self, request: &AlarmRequest) -> AlarmResponse {
        let kind = request.alarm;
        let alarm = (kind, request.member_id);
        let response = |alarms: Vec<(i32, u64)>| AlarmResponse {
            header: None,
            alarms: alarms
                .into_iter()
                .map(|(alarm, member_id)| AlarmMember { member_id, alarm })
                .collect(),
        };
        match request.action() {
            AlarmAction::Get => {
                let all = self.cluster.alarms.iter().copied();
                response(
                    all.filter(|(k, _)| kind == AlarmType::None as i32 || *k == kind).collect(),
                )
            }
            AlarmAction::Activate if kind == AlarmType::None as i32 => response(Vec::new()),
            AlarmAction::Activate => {
                Arc::make_mut(&mut self.cluster).alarms.insert(alarm);
                response(vec![alarm])
            }
            AlarmAction::Deactivate => {
                let gone = Arc::make_mut(&mut self.cluster).alarms.remove(&alarm);
                response(gone.then_some(alarm).into_iter().collect())
            }
        }
    }
}

fn name(op: &Op) -> OperationName {
    match op {
        Op::Put(_) => OperationName::Put,
        Op::DeleteRange(_) => OperationName::DeleteRange,
        Op::Txn(_) => OperationName::Txn,
        Op::Compaction(_) => OperationName::Compaction,
        Op::LeaseGrant(_) => OperationName::LeaseGrant,
        Op::LeaseRevoke(_) => OperationName::LeaseRevoke,
        Op::LeaseCheckpoint(_) => OperationName::LeaseCheckpoint,
        Op::Alarm(_) => OperationName::Alarm,
        Op::MemberAttributes(_) => OperationName::ClusterMemberAttrSet,
        Op::ClusterVersion(_) => OperationName::ClusterVersionSet,
        Op::Range(_) => OperationName::Range,
        Op::MemberPeerUrls(_) => OperationName::ClusterMemberUpdate,
    }
}

fn touches_keys(op: &Op) -> bool {
    matches!(
        op,
        Op::Put(_)
            | Op::DeleteRange(_)
            | Op::Txn(_)
            | Op::Compaction(_)
            | Op::LeaseGrant(_)
            | Op::LeaseRevoke(_)
            | Op::Range(_)
    )
}

/// Whether a transaction may put something, in any branch.
fn puts(txn: &TxnRequest) -> bool {
    let op_puts = |op: &RequestOp| match &op.request {
        Some(TxnOp::RequestPut(_)) => true,
        Some(TxnOp::RequestTxn(inner)) => puts(inner),
        _ => false,
    };
    txn.success.iter().chain(&txn.failure).any(op_puts)
}

#[cfg(test)]
mod tests {
    use castd_proto::castdpb::member_change::Kind;
    use castd_proto::castdpb::{MemberAttributes, MemberChange, MemberPeerUrls};
    use castd_proto::etcdserverpb::{DeleteRangeRequest, LeaseRevokeRequest, PutRequest};
    use raft::eraftpb::ConfChangeType;

    use super::super::membership::conf_change;
    use super::*;
    use crate::cluster::MemberInfo;

    fn core() -> ApplyCore {
        ApplyCore::new(ClusterState::default())
    }

    fn entry(index: u64, op: Op) -> CommittedEntry {
        let request = castdpb::Request { op: Some(op), ..Default::default() };
        let data = request.encode_to_vec().into();
        CommittedEntry { entry: Entry { index, term: 1, data, ..Entry::default() }, reply: None }
    }

    fn plan(core: &mut ApplyCore, ops: Vec<Op>) -> Vec<OperationKind> {
        let entries = ops.into_iter().zip(1..).map(|(op, index)| entry(index, op)).collect();
        let plan = core.plan(vec![Committed { entries }]).unwrap().unwrap();
        plan.batch.operations.into_iter().map(|operation| operation.kind).collect()
    }

    fn alarm(action: AlarmAction, kind: AlarmType) -> Op {
        let (action, alarm) = (action as i32, kind as i32);
        Op::Alarm(AlarmRequest { action, member_id: 7, alarm })
    }

    #[test]
    fn a_full_database_takes_deletions_but_no_puts() {
        let put = || Op::Put(PutRequest { key: "k".into(), ..Default::default() });
        let delete = Op::DeleteRange(DeleteRangeRequest { key: "k".into(), ..Default::default() });
        let nested = TxnRequest {
            failure: vec![RequestOp { request: Some(TxnOp::RequestPut(PutRequest::default())) }],
            ..Default::default()
        };
        let nested = RequestOp { request: Some(TxnOp::RequestTxn(nested)) };
        let txn = Op::Txn(TxnRequest { success: vec![nested], ..Default::default() });
        let kinds = plan(
            &mut core(),
            vec![
                alarm(AlarmAction::Activate, AlarmType::Nospace),
                put(),
                delete,
                txn,
                alarm(AlarmAction::Deactivate, AlarmType::Nospace),
                put(),
            ],
        );
        assert!(matches!(kinds[1], OperationKind::Decided(Err(Error::NoSpace))));
        assert!(matches!(kinds[2], OperationKind::DeleteRange(_)));
        assert!(matches!(kinds[3], OperationKind::Decided(Err(Error::NoSpace))));
        assert!(matches!(kinds[5], OperationKind::Put(_)));
    }

    #[test]
    fn alarms_are_listed_by_kind() {
        let mut core = core();
        plan(&mut core, vec![alarm(AlarmAction::Activate, AlarmType::Corrupt)]);
        for (kind, found) in
            [(AlarmType::None, 1), (AlarmType::Corrupt, 1), (AlarmType::Nospace, 0)]
        {
            let kinds = plan(&mut core, vec![alarm(AlarmAction::Get, kind)]);
            let OperationKind::Decided(Ok(Outcome::Alarm(response))) = &kinds[0] else {
                panic!("an alarm request has an alarm answer: {kinds:?}")
            };
            assert_eq!(response.alarms.len(), found);
        }
    }

    fn change(index: u64, change: &MemberChange) -> CommittedEntry {
        let entry_type = EntryType::EntryConfChange.into();
        let data = conf_change(change).unwrap().encode_to_vec().into();
        let entry = Entry { entry_type, index, term: 1, data, ..Entry::default() };
        CommittedEntry { entry, reply: None }
    }

    #[test]
    fn raft_hears_of_every_change_and_of_refused_ones_with_no_member() {
        let mut core = core();
        let add = MemberChange {
            kind: Kind::Add.into(),
            member_id: 5,
            peer_urls: vec!["http://5".to_owned()],
            is_learner: true,
            max_learners: 1,
        };
        let promote = MemberChange { kind: Kind::Promote.into(), member_id: 5, ..add.clone() };
        let entries = vec![change(1, &add), change(2, &add), change(3, &promote)];
        let plan = core.plan(vec![Committed { entries }]).unwrap().unwrap();
        let steps: Vec<(u64, ConfChangeType)> =
            plan.conf_changes.iter().map(|step| (step.node_id, step.change_type())).collect();
        let (learner, voter) = (ConfChangeType::AddLearnerNode, ConfChangeType::AddNode);
        assert_eq!(steps, [(5, learner), (0, learner), (5, voter)]);
        assert!(plan.members_changed);
        assert!(!plan.batch.cluster.members[&5].is_learner);
        let outcomes: Vec<_> = plan
            .batch
            .operations
            .iter()
            .map(|operation| (operation.name, &operation.kind))
            .collect();
        assert!(matches!(
            outcomes[..],
            [
                (OperationName::ClusterMemberAdd, OperationKind::Decided(Ok(Outcome::Done))),
                (OperationName::ClusterMemberAdd, OperationKind::Decided(Err(Error::MemberExists))),
                (OperationName::ClusterMemberPromote, OperationKind::Decided(Ok(Outcome::Done))),
            ]
        ));
    }

    #[test]
    fn peers_hear_of_new_places_and_of_nothing_else() {
        let member = MemberInfo { id: 1, ..MemberInfo::default() };
        let members = [(1, member)].into();
        let mut core = ApplyCore::new(ClusterState { members, ..ClusterState::default() });
        let urls = |member_id, peer_urls: &[&str]| {
            let peer_urls = peer_urls.iter().map(ToString::to_string).collect();
            Op::MemberPeerUrls(MemberPeerUrls { member_id, peer_urls })
        };
        let name = MemberAttributes { member_id: 1, name: "n".to_owned(), client_urls: Vec::new() };
        for (op, changed) in [
            (urls(1, &["http://1"]), true),
            (urls(2, &["http://2"]), false),
            (Op::MemberAttributes(name), false),
        ] {
            let committed = Committed { entries: vec![entry(1, op)] };
            assert_eq!(core.plan(vec![committed]).unwrap().unwrap().members_changed, changed);
        }
    }

    #[test]
    fn what_one_leader_decided_does_nothing_in_the_log_of_another() {
        let revoke = |only_in_term| {
            let op = Some(Op::LeaseRevoke(LeaseRevokeRequest { id: 1 }));
            let request = castdpb::Request { only_in_term, op, ..Default::default() };
            let data = request.encode_to_vec().into();
            let entry = Entry { index: 1, term: 5, data, ..Entry::default() };
            CommittedEntry { entry, reply: None }
        };
        let entries = vec![revoke(4), revoke(5), revoke(0)];
        let plan = core().plan(vec![Committed { entries }]).unwrap().unwrap();
        let kinds: Vec<_> = plan.batch.operations.iter().map(|operation| &operation.kind).collect();
        assert!(matches!(
            kinds[..],
            [
                OperationKind::Decided(Err(Error::LeaderChanged)),
                OperationKind::LeaseRevoke(_),
                OperationKind::LeaseRevoke(_),
            ]
        ));
    }

    #[test]
    fn an_entry_that_cannot_be_read_is_an_error() {
        let entry = Entry { index: 9, term: 1, data: vec![0xff; 3].into(), ..Entry::default() };
        let committed = Committed { entries: vec![CommittedEntry { entry, reply: None }] };
        let error = core().plan(vec![committed]).unwrap_err();
        assert!(error.contains("entry 9"), "{error}");
    }

    #[test]
    fn what_a_newer_version_has_written_is_an_error_that_says_so() {
        // An operation of a number that is not taken yet, and its length.
        let entry =
            Entry { index: 9, term: 1, data: vec![0xf2, 0x3f, 0].into(), ..Entry::default() };
        let committed = Committed { entries: vec![CommittedEntry { entry, reply: None }] };
        let error = core().plan(vec![committed]).unwrap_err();
        assert!(error.contains("entry 9") && error.contains("no operation"), "{error}");

        let newer = MemberChange { kind: 3, member_id: 5, ..MemberChange::default() };
        assert_eq!(conf_change(&newer), Err(Error::NotCapable));
        let mut committed = change(9, &MemberChange { kind: Kind::Add.into(), ..newer.clone() });
        let wish = ConfChange { context: newer.encode_to_vec().into(), ..ConfChange::default() };
        committed.entry.data = wish.encode_to_vec().into();
        let mut core = core();
        let error = core.plan(vec![Committed { entries: vec![committed] }]).unwrap_err();
        assert!(error.contains("entry 9") && error.contains("kind 3"), "{error}");
        assert!(core.cluster().members.is_empty());
    }

    #[test]
    fn empty_entries_move_the_index_only() {
        let entry = Entry { index: 3, term: 2, ..Entry::default() };
        let committed = Committed { entries: vec![CommittedEntry { entry, reply: None }] };
        let batch = core().plan(vec![committed]).unwrap().unwrap().batch;
        assert_eq!((batch.index, batch.term, batch.operations.len()), (3, 2, 0));
        assert!(core().plan(Vec::new()).unwrap().is_none());
    }
}
