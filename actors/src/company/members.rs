//! The door's part for the membership: who may come, who may go, and who
//! leads. What every member must agree on is decided where the log is applied;
//! here is what one member alone can see: who has started, who is connected.

use std::sync::Arc;
use std::time::{Duration, Instant};

use castd_proto::castdpb::request::Op;
use castd_proto::castdpb::{
    Answer, MemberAttributes, MemberChange, MemberPeerUrls, Question, answer, member_change::Kind,
    question,
};
use prometheus::{IntCounter, IntCounterVec, Opts, Registry};
use tokio::sync::oneshot;

use super::door::Company;
use crate::cluster::{MemberInfo, quorum};
use crate::peer_transport::{PeerMessage, PeerStatus};
use crate::raft_node::RaftMessage;
use crate::shared::{Error, Inlet, Refused};

/// A member counts as connected when its link has worked for this long.
const HEALTHY_AFTER: Duration = Duration::from_secs(5);

/// How often a member looks whether it still is one.
const REMOVAL_LOOK: Duration = Duration::from_millis(50);

/// How long a leader that is to be removed tries to hand over the lead.
const YIELD_PATIENCE: Duration = Duration::from_secs(1);

/// How often a member that knows no leader looks again.
const LEADER_LOOK: Duration = Duration::from_millis(100);

/// Of this many hundredths of the leader's log a learner must have all to be
/// given a vote.
const READY_PERCENT: u64 = 90;

/// What the operator chose for changes of the membership.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MembershipRules {
    /// Whether changes are refused that could cost the cluster its quorum.
    pub strict: bool,
    /// The most learners there may be; above 0.
    pub max_learners: u32,
}

impl Default for MembershipRules {
    fn default() -> Self {
        Self { strict: true, max_learners: 1 }
    }
}

/// Counts what came of giving learners a vote, under etcd's names.
#[derive(Clone, Debug)]
pub(super) struct PromotionMetrics {
    done: IntCounter,
    failed: IntCounterVec,
}

impl PromotionMetrics {
    pub(super) fn new(registry: &Registry) -> Result<Self, prometheus::Error> {
        let done = IntCounter::new(
            "etcd_server_learner_promote_successes",
            "Learners that this member, leading, gave a vote.",
        )?;
        let failed = Opts::new(
            "etcd_server_learner_promote_failures",
            "Learners that this member, leading, was to give a vote and did not.",
        );
        let failed = IntCounterVec::new(failed, &["Reason"])?;
        registry.register(Box::new(done.clone()))?;
        registry.register(Box::new(failed.clone()))?;
        Ok(Self { done, failed })
    }

    fn count(&self, outcome: Result<(), Error>) {
        match outcome {
            Ok(()) => self.done.inc(),
            // The leader counts.
            Err(Error::NotLeader) => {}
            Err(error) => self.failed.with_label_values(&[&reason(error)]).inc(),
        }
    }
}

/// A failed promotion's reason, as etcd's figures have it: some are its list of members'
/// own words, which clients hear in others.
fn reason(error: Error) -> String {
    match error {
        Error::MemberNotLearner => "membership: can only promote a learner member".to_owned(),
        Error::MemberNotFound => "membership: ID not found".to_owned(),
        error => error.to_string(),
    }
}

impl Company {
    /// Which members can be reached from here.
    pub fn peers(&self) -> Arc<PeerStatus> {
        self.peers.get()
    }

    /// Asks another member something.
    ///
    /// # Errors
    /// [`Error::TooManyRequests`] at once when too many wait; what the other
    /// member says, or why it cannot be asked.
    pub async fn ask(&self, to: u64, question: question::Question) -> Result<Answer, Error> {
        let question = Question { question: Some(question) };
        let (reply, answer) = oneshot::channel();
        send(&self.peer_requests, PeerMessage::Ask { to, question, reply })?;
        answer.await.unwrap_or(Err(Error::Stopped))
    }

    /// How far the others are: for each the last index it is known to have.
    ///
    /// # Errors
    /// [`Error::NotLeader`] when this member does not know.
    pub async fn progress(&self) -> Result<Vec<(u64, u64)>, Error> {
        let (reply, answer) = oneshot::channel();
        send(&self.raft_requests, RaftMessage::Progress { reply })?;
        answer.await.unwrap_or(Err(Error::Stopped))
    }

    /// Makes `to` the leader instead of this member; 0 for whoever is furthest
    /// and can be reached. Returns when it leads.
    ///
    /// # Errors
    /// [`Error::NotLeader`], [`Error::BadLeaderTransferee`],
    /// [`Error::Unhealthy`] when nobody can take over, [`Error::Timeout`].
    pub async fn transfer_leader(&self, to: u64) -> Result<(), Error> {
        let (reply, answer) = oneshot::channel();
        send(&self.raft_requests, RaftMessage::TransferLeader { to, reply })?;
        answer.await.unwrap_or(Err(Error::Stopped))
    }

    /// Has a change of the membership replicated and applied, without asking
    /// whether it is wise.
    ///
    /// # Errors
    /// What the proposal meets; see `ClusterState::change`.
    pub async fn change_members(&self, change: &MemberChange) -> Result<(), Error> {
        self.proposer.change_members(change).await.map(|_| ())
    }

    /// Adds a member.
    ///
    /// # Errors
    /// As [`Self::change_members`]; with strict rules
    /// [`Error::MemberNotEnoughStarted`] and [`Error::Unhealthy`].
    pub async fn add_member(
        &self,
        id: u64,
        peer_urls: Vec<String>,
        is_learner: bool,
    ) -> Result<(), Error> {
        if self.rules.strict {
            self.may_add(is_learner)?;
        }
        let change = MemberChange {
            kind: Kind::Add.into(),
            member_id: id,
            peer_urls,
            is_learner,
            max_learners: self.rules.max_learners,
        };
        self.change_members(&change).await
    }

    fn may_add(&self, is_learner: bool) -> Result<(), Error> {
        let view = self.view();
        let cluster = view.cluster();
        let refused = |error| refusal("add", 0, error);
        if !is_learner && !cluster.may_add_voter() {
            return Err(refused(Error::MemberNotEnoughStarted));
        }
        let voters = cluster.voters().count();
        // The new member counts as one that is down.
        if voters > 1 && self.connected_voters() < quorum(voters + 1) {
            return Err(refused(Error::Unhealthy));
        }
        Ok(())
    }

    /// Removes a member.
    ///
    /// # Errors
    /// As [`Self::change_members`]; with strict rules
    /// [`Error::MemberNotEnoughStarted`] and [`Error::Unhealthy`].
    pub async fn remove_member(&self, id: u64) -> Result<(), Error> {
        if self.rules.strict {
            self.may_remove(id)?;
        }
        self.yield_lead(id).await;
        let change =
            MemberChange { kind: Kind::Remove.into(), member_id: id, ..MemberChange::default() };
        tokio::select! {
            outcome = self.change_members(&change) => outcome,
            // Who is removed hears little of it: the others turn away at once.
            () = self.own_removal(), if id == self.identity.member_id => Ok(()),
        }
    }

    /// The members as this one knows them, with the client URLs that its log has for those
    /// who have introduced themselves, be it committed or not: who has lost its disk must
    /// hear that it has been here before, also from a member that has just been started.
    pub fn members_ever_heard(&self) -> Vec<MemberInfo> {
        let mut members: Vec<MemberInfo> =
            self.view().cluster().members.values().cloned().collect();
        for member in members.iter_mut().filter(|member| member.client_urls.is_empty()) {
            member.client_urls = self.introduced.get(&member.id).cloned().unwrap_or_default();
        }
        members
    }

    /// Whether this member is none any more, by its own log or by another's word.
    pub fn is_removed(&self) -> bool {
        self.view().cluster().removed.contains(&self.identity.member_id) || self.peers.get().removed
    }

    /// Returns when this member is none any more.
    pub async fn own_removal(&self) {
        while !self.is_removed() {
            tokio::time::sleep(REMOVAL_LOOK).await;
        }
    }

    /// A leader that is asked to go hands the lead over first, so that nobody has to wait
    /// for an election. Where nobody can take it, the removal goes its way all the same.
    async fn yield_lead(&self, id: u64) {
        let leads = id == self.identity.member_id && self.raft().is_leader;
        if leads && self.view().cluster().voters().count() > 1 {
            let handed_over = tokio::time::timeout(YIELD_PATIENCE, self.transfer_leader(0)).await;
            tracing::info!(?handed_over, "handed over the lead before the removal");
        }
    }

    fn may_remove(&self, id: u64) -> Result<(), Error> {
        let view = self.view();
        let cluster = view.cluster();
        if cluster.members.get(&id).is_some_and(|member| member.is_learner) {
            return Ok(());
        }
        if !cluster.may_remove_voter(id) {
            return Err(refusal("remove", id, Error::MemberNotEnoughStarted));
        }
        let own = id == self.identity.member_id;
        if !own && !self.peers.get().active_since.contains_key(&id) {
            // A member that is down is no part of the quorum at work.
            return Ok(());
        }
        let voters = cluster.voters().count();
        if self.connected_voters() < quorum(voters.saturating_sub(1)) + 1 {
            return Err(refusal("remove", id, Error::Unhealthy));
        }
        Ok(())
    }

    /// Voters that this one has been connected to for a while, itself included.
    fn connected_voters(&self) -> usize {
        let (view, peers, now) = (self.view(), self.peers.get(), Instant::now());
        let long = |id: &u64| {
            let since = peers.active_since.get(id);
            since.is_some_and(|since| now.saturating_duration_since(*since) > HEALTHY_AFTER)
        };
        let own = self.identity.member_id;
        view.cluster().voters().filter(|member| member.id == own || long(&member.id)).count()
    }

    /// Gives a member other peer URLs.
    ///
    /// # Errors
    /// [`Error::MemberNotFound`], [`Error::PeerUrlExists`], or what the proposal
    /// meets.
    pub async fn update_member(&self, id: u64, peer_urls: Vec<String>) -> Result<(), Error> {
        let urls = MemberPeerUrls { member_id: id, peer_urls };
        self.propose(Op::MemberPeerUrls(urls)).await.map(|_| ())
    }

    /// Gives a learner a vote: here if this member leads, else by way of the
    /// leader, which alone knows how far the learner is. Looks for a leader for
    /// as long as the caller waits.
    ///
    /// # Errors
    /// [`Error::MemberNotFound`], [`Error::MemberNotLearner`],
    /// [`Error::LearnerNotReady`], [`Error::MemberNotEnoughStarted`], or what
    /// the proposal meets.
    pub async fn promote_member(&self, id: u64) -> Result<(), Error> {
        loop {
            let outcome = match self.raft().leader {
                leader if leader == self.identity.member_id => self.promote_as_leader(id).await,
                0 => Err(Error::NotLeader),
                leader => self.ask_to_promote(leader, id).await,
            };
            match outcome {
                // Lost on the way to a leader that is none any more, perhaps.
                Err(Error::NotLeader | Error::NoLeader | Error::LeaderChanged) => {}
                outcome => return outcome,
            }
            tokio::time::sleep(LEADER_LOOK).await;
        }
    }

    async fn ask_to_promote(&self, leader: u64, id: u64) -> Result<(), Error> {
        let question = question::Question::Promote(question::Promote { member_id: id });
        match self.ask(leader, question).await.map(|answer| answer.answer) {
            // The caller is to see it on this member, too.
            Ok(Some(answer::Answer::Promote(_))) => self.read_index().await,
            // What became of it is not known, if it was sent at all: as etcd, ask again.
            Ok(_) | Err(Error::Timeout) => Err(Error::NotLeader),
            Err(error) => Err(error),
        }
    }

    /// Gives a learner a vote, on this member's own word. For the question that
    /// another member asks a leader.
    ///
    /// # Errors
    /// As [`Self::promote_member`], and [`Error::NotLeader`].
    pub async fn promote_as_leader(&self, id: u64) -> Result<(), Error> {
        let outcome = self.promote(id).await;
        self.promotions.count(outcome);
        outcome
    }

    async fn promote(&self, id: u64) -> Result<(), Error> {
        self.may_promote(id).await?;
        let change =
            MemberChange { kind: Kind::Promote.into(), member_id: id, ..MemberChange::default() };
        self.change_members(&change).await
    }

    async fn may_promote(&self, id: u64) -> Result<(), Error> {
        let progress = self.progress().await?;
        let view = self.view();
        let cluster = view.cluster();
        let member = cluster.members.get(&id).ok_or(Error::MemberNotFound)?;
        if !member.is_learner {
            return Err(Error::MemberNotLearner);
        }
        let there = progress.iter().find(|(other, _)| *other == id).map_or(0, |(_, index)| *index);
        let all = self.raft().committed.max(view.applied_index());
        if there.saturating_mul(100) < all.saturating_mul(READY_PERCENT) {
            tracing::error!(
                { "member-id" = format!("{id:x}"), has = there, of = all },
                "rejecting promote learner: learner is not ready"
            );
            return Err(Error::LearnerNotReady);
        }
        if self.rules.strict && !cluster.may_promote() {
            return Err(refusal("promote", id, Error::MemberNotEnoughStarted));
        }
        Ok(())
    }

    /// Tells the cluster this member's name and client URLs, unless it knows
    /// them. Returns when they are applied here.
    ///
    /// # Errors
    /// What reading and proposing meet.
    pub async fn publish(&self, name: &str, client_urls: &[String]) -> Result<(), Error> {
        self.read_index().await?;
        let member_id = self.identity.member_id;
        let view = self.view();
        let known = view.cluster().members.get(&member_id);
        if known.is_some_and(|member| member.name == name && member.client_urls == client_urls) {
            return Ok(());
        }
        let client_urls = client_urls.to_vec();
        let attributes = MemberAttributes { member_id, name: name.to_owned(), client_urls };
        self.propose(Op::MemberAttributes(attributes)).await.map(|_| ())
    }
}

fn send<M>(inlet: &Inlet<M>, message: M) -> Result<(), Error> {
    inlet.try_send(message).map_err(|refused| match refused {
        Refused::Full(_) => Error::TooManyRequests,
        Refused::Closed(_) => Error::Stopped,
    })
}

/// Says in the log why a change is refused, and gives the error back.
fn refusal(what: &'static str, id: u64, error: Error) -> Error {
    tracing::warn!(
        { "requested-member" = format!("{id:x}"), what, %error },
        "rejecting a change of the membership"
    );
    error
}
