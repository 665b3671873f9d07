//! Who is in the cluster and how it fares: the part of the state machine that
//! is not about keys. Changes in log order only.

use std::collections::{BTreeMap, BTreeSet};

use castd_proto::etcdserverpb::AlarmType;

/// A member of the cluster.
#[derive(Clone, Debug, Default, PartialEq, Eq, bincode::Encode, bincode::Decode)]
pub struct MemberInfo {
    /// The member's id.
    pub id: u64,
    /// Its name; empty until it has started for the first time.
    pub name: String,
    /// Where its peers reach it.
    pub peer_urls: Vec<String>,
    /// Where clients reach it; empty until it has started for the first time.
    pub client_urls: Vec<String>,
    /// Whether it has no vote yet.
    pub is_learner: bool,
}

/// An alarm: its type (as etcd numbers them) and the member that raised it.
pub type Alarm = (i32, u64);

/// Members, alarms and the version all members understand.
#[derive(Clone, Debug, Default, PartialEq, Eq, bincode::Encode, bincode::Decode)]
pub struct ClusterState {
    /// The members by id.
    pub members: BTreeMap<u64, MemberInfo>,
    /// Ids of members that were removed; an id is never used again.
    pub removed: BTreeSet<u64>,
    /// The alarms that are on.
    pub alarms: BTreeSet<Alarm>,
    /// The version that all members understand, as `3.7.0`; none until it was agreed on.
    pub version: Option<String>,
}

impl ClusterState {
    /// The members as raft counts them.
    pub fn conf_state(&self) -> raft::eraftpb::ConfState {
        let (learners, voters): (Vec<_>, Vec<_>) =
            self.members.values().partition(|member| member.is_learner);
        let ids = |members: Vec<&MemberInfo>| members.iter().map(|m| m.id).collect::<Vec<u64>>();
        (ids(voters), ids(learners)).into()
    }

    /// Whether any member raised the alarm.
    pub fn has_alarm(&self, alarm: AlarmType) -> bool {
        self.alarms.iter().any(|(kind, _)| *kind == alarm as i32)
    }
}
