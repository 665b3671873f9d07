//! What a cluster must do when nothing or one thing goes wrong.

use raft::eraftpb::{ConfChangeType, MessageType};

use super::{ELECTION_TICKS, REQUEST_TIMEOUT_TICKS, Sim};
use crate::shared::Error;

#[test]
fn three_members_elect_a_leader_and_serve_through_each() {
    let mut sim = Sim::new(1, &[1, 2, 3]);
    sim.elect();
    for id in [1, 2, 3] {
        let write = sim.write(id);
        sim.rest();
        assert!(sim.clients.is_acknowledged(write), "no clock is needed to commit");
        for reader in [1, 2, 3] {
            sim.read(reader);
        }
        sim.rest();
    }
    assert_eq!((sim.clients.reads_done, sim.clients.pending()), (9, 0));
    sim.check_nothing_is_lost(&[1, 2, 3]);
}

#[test]
fn the_same_seed_gives_the_same_run() {
    let run = |seed| {
        let mut sim = Sim::new(seed, &[1, 2, 3]);
        for n in 0..30 {
            sim.write(1 + n % 3);
            sim.round();
        }
        // Whoever tries in vain leaves the next time to chance.
        (1..=3).for_each(|id| sim.isolate(id));
        sim.rounds(10 * ELECTION_TICKS);
        sim.heal();
        sim.elect();
        sim.trace
    };
    assert_eq!(run(5), run(5));
    assert_ne!(run(5), run(6), "the seed is what chance there is");
}

#[test]
fn elections_do_not_wait_longer_than_they_must() {
    for seed in 0..20 {
        let mut sim = Sim::new(seed, &[1, 2, 3]);
        let mut rounds = 0;
        while sim.leader().is_none() {
            sim.round();
            rounds += 1;
        }
        assert!(rounds <= 4, "all are there, so that the first election takes {rounds} ticks");
        let leader = sim.elect();
        sim.crash(leader, 0);
        let mut rounds = 0;
        while sim.leader().is_none() {
            sim.round();
            rounds += 1;
        }
        assert!(rounds <= ELECTION_TICKS + 1, "a leader is missed for {rounds} ticks");
    }
}

#[test]
fn what_is_asked_before_there_is_a_leader_waits_for_one() {
    let mut sim = Sim::new(2, &[1, 2, 3]);
    let writes: Vec<u64> = (0..6).map(|n| sim.write(1 + n % 3)).collect();
    for id in [1, 2, 3] {
        sim.read(id);
    }
    sim.elect();
    sim.rounds(2);
    assert!(writes.iter().all(|id| sim.clients.is_acknowledged(*id)));
    assert_eq!((sim.clients.reads_done, sim.clients.pending()), (3, 0));
}

#[test]
fn a_new_leader_takes_over_from_one_that_died() {
    let mut sim = Sim::new(3, &[1, 2, 3]);
    let first = sim.elect();
    let before = sim.write(first);
    sim.rest();
    sim.crash(first, 0);
    let follower = sim.other_than(&[first]);
    let second = sim.elect();
    assert_ne!(first, second);
    let after = sim.write(follower);
    sim.rounds(2);
    assert!(sim.clients.is_acknowledged(before) && sim.clients.is_acknowledged(after));
    sim.start(first);
    sim.elect();
    sim.rounds(3);
    sim.check_nothing_is_lost(&[1, 2, 3]);
}

#[test]
fn a_minority_times_out_and_says_why() {
    let mut sim = Sim::new(4, &[1, 2, 3]);
    let leader = sim.elect();
    sim.isolate(leader);
    let early = sim.write(leader);
    sim.read(leader);
    let timeout = REQUEST_TIMEOUT_TICKS as usize;
    sim.rounds(timeout);
    // The leader has found out that it is alone, so there is none for it.
    assert_eq!(sim.clients.failure(early), Some(Error::Timeout));
    assert_eq!(sim.clients.read_failures, [Error::Timeout]);

    let rest = sim.other_than(&[leader]);
    let served = sim.write(rest);
    sim.rest();
    assert!(sim.clients.is_acknowledged(served));
}

#[test]
fn a_request_that_died_with_its_leader_does_not_wait_for_the_whole_timeout() {
    let mut sim = Sim::new(50, &[1, 2, 3]);
    let leader = sim.elect();
    let follower = sim.other_than(&[leader]);
    sim.isolate(leader);
    // Forwarded to a leader that nobody hears any more.
    let lost = sim.write(follower);
    sim.rounds(2 * ELECTION_TICKS + 2);
    assert_eq!(sim.clients.failure(lost), Some(Error::TimeoutLeaderFailed));
}

#[test]
fn what_comes_after_a_leader_died_waits_for_the_next_one() {
    let mut sim = Sim::new(51, &[1, 2, 3]);
    let leader = sim.elect();
    let follower = sim.other_than(&[leader]);
    sim.crash(leader, 0);
    sim.rounds(1);
    assert_eq!(sim.status(follower).leader, leader, "the link is gone, the leader not yet");
    let write = sim.write(follower);
    sim.read(follower);
    sim.rounds(ELECTION_TICKS + 2);
    assert!(sim.clients.is_acknowledged(write));
    assert_eq!(sim.clients.reads_done + sim.clients.read_failures.len(), 1);
}

#[test]
fn a_follower_that_loses_its_link_says_so() {
    let mut sim = Sim::new(6, &[1, 2, 3]);
    let leader = sim.elect();
    sim.rounds(3 * ELECTION_TICKS);
    let follower = sim.other_than(&[leader]);
    // Only what the follower sends is lost: it goes on hearing its leader.
    sim.cut.insert((follower, leader));
    let lost = sim.write(follower);
    sim.rounds(REQUEST_TIMEOUT_TICKS as usize + 1);
    assert_eq!(sim.clients.failure(lost), Some(Error::TimeoutConnectionLost));
}

#[test]
fn a_proposal_that_a_new_leader_overwrites_is_refused() {
    let mut sim = Sim::new(7, &[1, 2, 3]);
    let old = sim.elect();
    sim.isolate(old);
    let doomed = sim.write(old);
    sim.rest();
    let rest = sim.other_than(&[old]);
    sim.until("another leader", |sim| sim.leader().is_some_and(|id| id != old));
    sim.write(rest);
    sim.rest();
    assert_eq!(sim.clients.failure(doomed), None, "its leader may still come back");
    sim.heal();
    sim.elect();
    sim.rounds(2);
    assert_eq!(sim.clients.failure(doomed), Some(Error::LeaderChanged));
    sim.check_nothing_is_lost(&[1, 2, 3]);
}

#[test]
fn a_proposal_that_was_overwritten_may_come_back() {
    let mut sim = Sim::new(17, &[1, 2, 3, 4, 5]);
    let old = sim.elect();
    let ally = sim.other_than(&[old]);
    let others: Vec<u64> =
        sim.running().into_iter().filter(|id| ![old, ally].contains(id)).collect();
    // The write reaches one other member, which is not enough.
    for (from, to) in
        others.iter().flat_map(|id| [(old, *id), (*id, old), (ally, *id), (*id, ally)])
    {
        sim.cut.insert((from, to));
    }
    let write = sim.write(old);
    sim.rest();
    // A leader of the others overwrites it where it was asked for, and only there.
    sim.isolate(old);
    let mut lost = |message: &raft::eraftpb::Message| {
        message.msg_type() == MessageType::MsgAppend && others.contains(&message.to)
    };
    while !sim.leader().is_some_and(|id| others.contains(&id)) {
        sim.round_but(&mut lost);
    }
    let new = sim.leader().unwrap();
    sim.cut.retain(|(from, to)| ![(old, new), (new, old)].contains(&(*from, *to)));
    for _ in 0..3 {
        sim.round_but(&mut lost);
    }
    assert_eq!(sim.status(old).leader, new);
    assert_eq!(sim.clients.failure(write), None, "what overwrote it is not committed");
    // The one that has it still wins the next election.
    sim.crash(new, 0);
    sim.heal();
    sim.isolate(old);
    sim.until("the ally to lead", |sim| sim.leader() == Some(ally));
    sim.heal();
    sim.start(new);
    sim.rounds(3 * ELECTION_TICKS);
    assert!(sim.clients.is_acknowledged(write));
    sim.check_nothing_is_lost(&[1, 2, 3, 4, 5]);
}

#[test]
fn reads_on_their_way_hear_of_a_new_leader() {
    let mut sim = Sim::new(8, &[1, 2, 3]);
    let leader = sim.elect();
    let follower = sim.other_than(&[leader]);
    sim.isolate(leader);
    sim.read(follower);
    sim.until("another leader", |sim| sim.leader().is_some_and(|id| id != leader));
    sim.rounds(1);
    assert_eq!(sim.clients.read_failures, [Error::LeaderChanged]);
}

#[test]
fn a_read_whose_question_is_lost_is_asked_again() {
    let mut sim = Sim::new(9, &[1, 2, 3]);
    let leader = sim.elect();
    let follower = sim.other_than(&[leader]);
    sim.cut.insert((follower, leader));
    sim.read(follower);
    sim.rest();
    sim.heal();
    sim.rounds(5);
    assert_eq!(sim.clients.reads_done, 1);
    assert_eq!(sim.status(follower).slow_read_indexes, 1);
}

#[test]
fn the_leadership_is_handed_over_without_an_election_timeout() {
    let mut sim = Sim::new(10, &[1, 2, 3]);
    let leader = sim.elect();
    let follower = sim.other_than(&[leader]);
    let mut answer = sim.transfer(leader, follower);
    // These wait for the new leader, whoever gets them.
    let writes: Vec<u64> = [1, 2, 3].into_iter().map(|id| sim.write(id)).collect();
    sim.rest();
    assert_eq!(answer.try_recv(), Ok(Ok(())));
    assert_eq!(sim.leader(), Some(follower));
    assert!(writes.iter().all(|id| sim.clients.is_acknowledged(*id)));

    let mut answer = sim.transfer(follower, 0);
    sim.rest();
    assert_eq!(answer.try_recv(), Ok(Ok(())));
    assert_ne!(sim.leader(), Some(follower));
}

#[test]
fn a_transfer_that_cannot_be_says_why() {
    let mut sim = Sim::new(11, &[1, 2, 3]);
    let leader = sim.elect();
    let follower = sim.other_than(&[leader]);
    let refusals = [
        (follower, leader, Err(Error::NotLeader)),
        (leader, 9, Err(Error::BadLeaderTransferee)),
        (leader, leader, Ok(())),
    ];
    for (asked, to, outcome) in refusals {
        assert_eq!(sim.transfer(asked, to).try_recv(), Ok(outcome));
    }
    sim.crash(follower, 0);
    let mut answer = sim.transfer(leader, follower);
    sim.rounds(2 * ELECTION_TICKS);
    assert_eq!(answer.try_recv(), Ok(Err(Error::TimeoutLeaderTransfer)));
    let write = sim.write(leader);
    sim.rounds(2);
    assert!(sim.clients.is_acknowledged(write), "the leader goes on");
}

#[test]
fn a_leader_whose_disk_stalls_hands_over_and_follows() {
    let mut sim = Sim::new(12, &[1, 2, 3]);
    let leader = sim.elect();
    sim.members.get_mut(&leader).unwrap().stalled = true;
    let write = sim.write(leader);
    sim.rest();
    assert!(!sim.clients.is_acknowledged(write), "its own copy is not applied before it is stored");
    sim.rounds(ELECTION_TICKS + 1);
    assert_ne!(sim.leader(), Some(leader), "it hands over after an election timeout");
    sim.rounds(20 * ELECTION_TICKS);
    assert_ne!(sim.leader(), Some(leader), "it does not come back while its disk stalls");
    let follower = sim.other_than(&[leader]);
    let write = sim.write(follower);
    sim.rest();
    assert!(sim.clients.is_acknowledged(write));
    sim.members.get_mut(&leader).unwrap().stalled = false;
    sim.rounds(3);
    sim.check_nothing_is_lost(&[1, 2, 3]);
}

#[test]
fn a_stalled_leader_steps_down_when_nobody_takes_over() {
    let mut sim = Sim::new(13, &[1, 2, 3]);
    let leader = sim.elect();
    sim.members.get_mut(&leader).unwrap().stalled = true;
    sim.write(leader);
    // Its wish to hand over is lost; all else arrives.
    for _ in 0..3 * ELECTION_TICKS {
        sim.round_but(|message| message.msg_type() == MessageType::MsgTimeoutNow);
    }
    assert!(!sim.status(leader).is_leader);
    sim.until("another leader", |sim| sim.leader().is_some_and(|id| id != leader));
}

#[test]
fn members_come_and_go() {
    let mut sim = Sim::new(14, &[1]);
    sim.elect();
    for id in [2, 3] {
        sim.start_joiner(id);
        sim.change(1, ConfChangeType::AddNode, id);
        sim.until("the new member", |sim| sim.members[&id].state.conf.voters.contains(&id));
        sim.rounds(2);
    }
    let leader = sim.elect();
    assert_eq!(sim.status(leader).voters, 3);
    let write = sim.write(3);
    sim.rounds(1);
    assert!(sim.clients.is_acknowledged(write));

    // Two changes at once: the second one waits for the first.
    sim.start_joiner(4);
    let follower = sim.other_than(&[leader, 4]);
    let changes = [
        sim.change(leader, ConfChangeType::AddLearnerNode, 4),
        sim.change(follower, ConfChangeType::AddNode, 4),
    ];
    sim.rounds(5);
    assert!(changes.iter().all(|id| sim.clients.is_acknowledged(*id)));
    assert_eq!(sim.status(leader).voters, 4);

    // The leader is removed and goes; the others elect one of them.
    sim.change(leader, ConfChangeType::RemoveNode, leader);
    sim.rounds(2);
    assert!(!sim.status(leader).is_leader);
    sim.crash(leader, 0);
    let next = sim.elect();
    let write = sim.write(next);
    sim.rounds(1);
    assert!(sim.clients.is_acknowledged(write));
    let left = sim.running();
    sim.check_nothing_is_lost(&left);
}

#[test]
fn the_last_voter_leads_soon() {
    let mut sim = Sim::new(15, &[1, 2]);
    let leader = sim.elect();
    let other = sim.other_than(&[leader]);
    sim.change(leader, ConfChangeType::RemoveNode, leader);
    sim.rest();
    sim.rounds(1);
    assert_eq!(sim.leader(), Some(other));
    let write = sim.write(other);
    sim.rest();
    assert!(sim.clients.is_acknowledged(write));
}

#[test]
fn a_refused_change_changes_nothing() {
    let mut sim = Sim::new(16, &[1, 2, 3]);
    let leader = sim.elect();
    sim.change(leader, ConfChangeType::AddNode, 2);
    sim.change(leader, ConfChangeType::RemoveNode, 9);
    sim.rounds(1);
    assert_eq!((sim.status(leader).voters, sim.clients.pending()), (3, 0));
}

#[test]
fn a_removed_leader_hands_over_to_who_has_yet_to_apply_the_removal() {
    let mut sim = Sim::new(16, &[1, 2, 3]);
    let leader = sim.elect();
    sim.change(leader, ConfChangeType::RemoveNode, leader);
    // The call to take over comes together with the news that the removal is committed.
    let others: Vec<u64> = sim.running().into_iter().filter(|id| *id != leader).collect();
    for id in &others {
        sim.members.get_mut(id).unwrap().busy = true;
    }
    sim.rest();
    assert!(!sim.status(leader).is_leader);
    for id in &others {
        sim.members.get_mut(id).unwrap().busy = false;
    }
    sim.rest();
    let leads = others.iter().any(|id| sim.status(*id).is_leader);
    assert!(leads, "nobody waits for an election timeout");
}
