//! The shell's turns, with what it waits for in the test's hands.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use prometheus::Registry;

use super::*;
use crate::lease_manager::{LeaseSettings, RenewalSettings};
use crate::shared::{Credits, Switchboard};

type Later = (Duration, Box<dyn FnOnce(&mut LeaseManager, &mut Turns)>);

/// What was to come later, in order. Futures are left alone.
#[derive(Default)]
struct Turns(VecDeque<Later>);

impl Waiting<LeaseManager> for Turns {
    fn when<T: 'static>(
        &mut self,
        _: impl Future<Output = T> + 'static,
        _: impl FnOnce(&mut LeaseManager, &mut Self, T) + 'static,
    ) {
    }

    fn after(
        &mut self,
        pause: Duration,
        then: impl FnOnce(&mut LeaseManager, &mut Self) + 'static,
    ) {
        self.0.push_back((pause, Box::new(then)));
    }
}

/// The manager of so many leases of ten seconds, none of which it leads yet.
fn manager(leases: i64, leases_per_step: usize) -> (LeaseManager, Inlet<LeaseMessage>) {
    let board = Switchboard::default();
    let (own, messages) = board.mailbox("lease_manager", 64);
    let (raft_requests, _) = board.mailbox("raft_requests", 64);
    let (peers, _) = board.mailbox("peers", 64);
    let settings = LeaseSettings { leases_per_step, ..LeaseSettings::default() };
    let edges = LeaseEdges {
        proposer: Proposer::new(raft_requests.clone(), Credits::new(10, 10_240), 1),
        raft: Published::new(RaftStatus::default()),
        raft_requests,
        peers,
        own: own.clone(),
    };
    let manager = LeaseManager::new(
        LeaseCore::new(settings, (1..=leases).map(|id| (id, 10, 0)), 0),
        Renewals::new(RenewalSettings::default()),
        edges,
        Clock::given(Arc::new(AtomicU64::new(0))),
        messages,
        LeaseMetrics::new(&Registry::new()).unwrap(),
        Arc::new(|_, error| panic!("{error}")),
    );
    (manager, own)
}

#[test]
fn a_promotion_comes_to_its_end_in_turns_of_its_own() {
    let (mut manager, _) = manager(1000, 10);
    let mut turns = Turns::default();
    manager.tick(&mut turns);
    assert_eq!(turns.0.len(), 0, "a follower has nothing to do");
    let leads = RaftStatus { is_leader: true, leader: 1, term: 2, ..RaftStatus::default() };
    manager.edges.raft.set(Arc::new(leads));
    manager.tick(&mut turns);
    manager.tick(&mut turns);
    let mut count = 0;
    while let Some((pause, turn)) = turns.0.pop_front() {
        assert_eq!((pause, turns.0.len()), (STEP_PAUSE, 0), "one at a time");
        turn(&mut manager, &mut turns);
        count += 1;
    }
    assert_eq!(count, 100);
    assert!(!manager.core.has_work());
}

#[test]
fn leases_are_listed_in_pieces_of_a_known_size() {
    let all = LIST_PIECE as i64 + 2;
    let (mut manager, own) = manager(all, 10);
    let mut list = |after| {
        let (reply, mut answer) = oneshot::channel();
        own.try_send(LeaseMessage::List { after, reply }).unwrap();
        assert!(manager.turn(&mut Turns::default()));
        answer.try_recv().unwrap()
    };
    let first = list(None);
    assert_eq!((first.len(), first.last().unwrap().1), (LIST_PIECE, all - 2));
    let ids: Vec<i64> = list(Some(all - 2)).into_iter().map(|(_, id)| id).collect();
    assert_eq!(ids, [all - 1, all]);
}
