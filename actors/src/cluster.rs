//! Who is in the cluster and how it fares: the part of the state machine that
//! is not about keys. Changes in log order only, and by the same rules on
//! every member.

use std::collections::{BTreeMap, BTreeSet};

use castd_proto::castdpb::member_change::Kind;
use castd_proto::castdpb::{MemberChange, MemberPeerUrls};
use castd_proto::etcdserverpb::AlarmType;
use sha1::{Digest, Sha1};

use crate::shared::Error;

/// A member of the cluster.
#[derive(Clone, Debug, Default, PartialEq, Eq, bincode::Encode, bincode::Decode)]
pub struct MemberInfo {
    /// The member's id.
    pub id: u64,
    /// Its name; empty until it has started for the first time, unless it was
    /// there from the beginning.
    pub name: String,
    /// Where its peers reach it.
    pub peer_urls: Vec<String>,
    /// Where clients reach it; empty until it has started for the first time.
    pub client_urls: Vec<String>,
    /// Whether it has no vote yet.
    pub is_learner: bool,
}

impl MemberInfo {
    /// Whether the cluster has heard the member's name.
    pub fn is_started(&self) -> bool {
        !self.name.is_empty()
    }
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

    /// The members that vote.
    pub fn voters(&self) -> impl Iterator<Item = &MemberInfo> {
        self.members.values().filter(|member| !member.is_learner)
    }

    /// Carries out a change of the membership.
    ///
    /// # Errors
    /// Why the members refuse it: [`Error::MemberNotFound`] (also for an id
    /// that was removed), [`Error::MemberExists`], [`Error::PeerUrlExists`],
    /// [`Error::TooManyLearners`], [`Error::MemberNotLearner`],
    /// [`Error::MemberNotEnoughStarted`] for the last one with a vote, or
    /// [`Error::NotCapable`] for a kind of change that this version does not know.
    pub fn change(&mut self, change: &MemberChange) -> Result<(), Error> {
        let id = change.member_id;
        let kind = Kind::try_from(change.kind).map_err(|_| Error::NotCapable)?;
        if self.removed.contains(&id) {
            return Err(Error::MemberNotFound);
        }
        match kind {
            Kind::Add => self.add(change),
            Kind::Promote => {
                let member = self.members.get_mut(&id).ok_or(Error::MemberNotFound)?;
                if !member.is_learner {
                    return Err(Error::MemberNotLearner);
                }
                member.is_learner = false;
                Ok(())
            }
            Kind::Remove => self.remove(id),
        }
    }

    fn add(&mut self, change: &MemberChange) -> Result<(), Error> {
        let id = change.member_id;
        if self.members.contains_key(&id) {
            return Err(Error::MemberExists);
        }
        self.check_urls(id, &change.peer_urls)?;
        let learners = self.members.values().filter(|member| member.is_learner).count();
        let limit = usize::try_from(change.max_learners).unwrap_or(usize::MAX);
        if change.is_learner && limit > 0 && learners >= limit {
            return Err(Error::TooManyLearners);
        }
        let member = MemberInfo {
            id,
            peer_urls: change.peer_urls.clone(),
            is_learner: change.is_learner,
            ..MemberInfo::default()
        };
        self.members.insert(id, member);
        Ok(())
    }

    fn remove(&mut self, id: u64) -> Result<(), Error> {
        if !self.members.contains_key(&id) {
            return Err(Error::MemberNotFound);
        }
        // Raft has no configuration without voters.
        if self.voters().all(|member| member.id == id) {
            return Err(Error::MemberNotEnoughStarted);
        }
        self.members.remove(&id);
        self.removed.insert(id);
        Ok(())
    }

    /// Gives a member other peer URLs.
    ///
    /// # Errors
    /// [`Error::MemberNotFound`], [`Error::PeerUrlExists`].
    pub fn update(&mut self, urls: MemberPeerUrls) -> Result<(), Error> {
        let id = urls.member_id;
        if !self.members.contains_key(&id) {
            return Err(Error::MemberNotFound);
        }
        self.check_urls(id, &urls.peer_urls)?;
        if let Some(member) = self.members.get_mut(&id) {
            member.peer_urls = urls.peer_urls;
        }
        Ok(())
    }

    /// No two members are reached at the same place.
    fn check_urls(&self, id: u64, urls: &[String]) -> Result<(), Error> {
        let mut others = self.members.values().filter(|member| member.id != id);
        let taken = others.any(|other| other.peer_urls.iter().any(|url| urls.contains(url)));
        if taken { Err(Error::PeerUrlExists) } else { Ok(()) }
    }

    /// Whether a member with a vote may be added: enough of the members must
    /// have started for a quorum that counts the new one as down.
    pub fn may_add_voter(&self) -> bool {
        let (voters, started) = self.started();
        // One member that was restored from a backup may grow.
        (voters == 1 && started == 1) || started >= quorum(voters + 1)
    }

    /// Whether the voter `id` may go: enough of the others must have started.
    pub fn may_remove_voter(&self, id: u64) -> bool {
        let others = || self.voters().filter(|member| member.id != id);
        others().filter(|member| member.is_started()).count() >= quorum(others().count())
    }

    /// Whether a learner may become a voter; it counts as started.
    pub fn may_promote(&self) -> bool {
        let (voters, started) = self.started();
        started + 1 >= quorum(voters + 1)
    }

    /// How many voters there are, and how many of them have started.
    fn started(&self) -> (usize, usize) {
        (self.voters().count(), self.voters().filter(|member| member.is_started()).count())
    }
}

/// How many of so many voters decide.
pub fn quorum(voters: usize) -> usize {
    voters / 2 + 1
}

/// A member's id as etcd derives it: the head of the SHA-1 of its peer URLs,
/// sorted, and a salt: the cluster's token for members of the beginning, the
/// decimal seconds since 1970 for those who are added later.
pub fn member_id<'a>(peer_urls: impl IntoIterator<Item = &'a str>, salt: &str) -> u64 {
    let mut urls: Vec<&str> = peer_urls.into_iter().collect();
    urls.sort_unstable();
    let mut hash = Sha1::new();
    urls.iter().for_each(|url| hash.update(url));
    hash.update(salt);
    head(hash)
}

/// A cluster's id: the head of the SHA-1 of its first members' ids, sorted.
pub fn cluster_id(members: impl IntoIterator<Item = u64>) -> u64 {
    let mut ids: Vec<u64> = members.into_iter().collect();
    ids.sort_unstable();
    let mut hash = Sha1::new();
    ids.iter().for_each(|id| hash.update(id.to_be_bytes()));
    head(hash)
}

fn head(hash: Sha1) -> u64 {
    let digest: [u8; 20] = hash.finalize().into();
    let (head, _) = digest.split_first_chunk::<8>().expect("20 bytes have a head of 8");
    u64::from_be_bytes(*head)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Members 1, 2, ... at `http://<id>`, all started.
    fn cluster(voters: u64) -> ClusterState {
        let member = |id: u64| MemberInfo {
            id,
            name: id.to_string(),
            peer_urls: vec![format!("http://{id}")],
            ..MemberInfo::default()
        };
        let members = (1..=voters).map(|id| (id, member(id))).collect();
        ClusterState { members, ..ClusterState::default() }
    }

    fn add(id: u64, url: &str, is_learner: bool) -> MemberChange {
        MemberChange {
            kind: Kind::Add as i32,
            member_id: id,
            peer_urls: vec![url.to_owned()],
            is_learner,
            max_learners: 1,
        }
    }

    fn simple(kind: Kind, member_id: u64) -> MemberChange {
        MemberChange { kind: kind as i32, member_id, ..MemberChange::default() }
    }

    #[test]
    fn members_come_vote_and_go() {
        let mut state = cluster(1);
        state.change(&add(2, "http://2", true)).unwrap();
        assert!(state.members[&2].is_learner && !state.members[&2].is_started());
        state.change(&simple(Kind::Promote, 2)).unwrap();
        assert!(!state.members[&2].is_learner);
        state.change(&simple(Kind::Remove, 1)).unwrap();
        assert_eq!((state.members.len(), state.removed.contains(&1)), (1, true));
    }

    #[test]
    fn what_makes_no_sense_is_refused_and_changes_nothing() {
        let mut state = cluster(2);
        state.change(&add(3, "http://3", true)).unwrap();
        state.change(&simple(Kind::Remove, 2)).unwrap();
        let before = state.clone();
        let cases = [
            (add(1, "http://9", false), Error::MemberExists),
            (add(2, "http://9", false), Error::MemberNotFound),
            (add(9, "http://1", false), Error::PeerUrlExists),
            (add(9, "http://9", true), Error::TooManyLearners),
            (simple(Kind::Promote, 1), Error::MemberNotLearner),
            (simple(Kind::Promote, 9), Error::MemberNotFound),
            (simple(Kind::Remove, 9), Error::MemberNotFound),
            (simple(Kind::Remove, 2), Error::MemberNotFound),
            (simple(Kind::Remove, 1), Error::MemberNotEnoughStarted),
            (MemberChange { kind: 3, ..add(9, "http://9", false) }, Error::NotCapable),
        ];
        for (change, error) in cases {
            assert_eq!(state.change(&change), Err(error), "{change:?}");
        }
        assert_eq!(state, before);
        let more = MemberChange { max_learners: 2, ..add(4, "http://4", true) };
        state.change(&more).unwrap();
    }

    #[test]
    fn peer_urls_are_of_one_member() {
        let mut state = cluster(2);
        let urls = |member_id, url: &str| MemberPeerUrls {
            member_id,
            peer_urls: vec![url.to_owned(), "http://new".to_owned()],
        };
        assert_eq!(state.update(urls(2, "http://1")), Err(Error::PeerUrlExists));
        assert_eq!(state.update(urls(7, "http://7")), Err(Error::MemberNotFound));
        state.update(urls(2, "http://2")).unwrap();
        assert_eq!(state.members[&2].peer_urls, ["http://2", "http://new"]);
    }

    #[test]
    fn strict_reconfiguration_counts_members_that_have_started() {
        let mut state = cluster(1);
        assert!(state.may_add_voter() && !state.may_remove_voter(1));
        state.change(&add(2, "http://2", false)).unwrap();
        // 2 voters, 1 started: a third would need 2 of 3.
        assert!(!state.may_add_voter() && state.may_remove_voter(2) && !state.may_remove_voter(1));
        assert!(state.may_promote());
        state.change(&add(3, "http://3", false)).unwrap();
        assert!(!state.may_promote());
        let three = cluster(3);
        assert!(three.may_add_voter() && three.may_remove_voter(1) && three.may_promote());
    }

    /// What etcd prints for a member with its defaults.
    #[test]
    fn the_default_member_has_etcds_ids() {
        let id = member_id(["http://localhost:2380"], "etcd-cluster");
        assert_eq!(format!("{id:x}"), "8e9e05c52164694d");
        assert_eq!(format!("{:x}", cluster_id([id])), "cdf818194e3a8c32");
    }

    #[test]
    fn the_order_of_urls_does_not_matter() {
        let one = member_id(["http://a:1", "http://b:2"], "t");
        assert_eq!(one, member_id(["http://b:2", "http://a:1"], "t"));
        assert_ne!(one, member_id(["http://a:1", "http://b:2"], "u"));
    }
}
