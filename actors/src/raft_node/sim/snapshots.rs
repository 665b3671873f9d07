//! Members so far behind that the log does not reach them.

use raft::eraftpb::{ConfChangeType, Message, MessageType};

use super::{ELECTION_TICKS, Sim};

/// A cluster whose logs are short, with a follower that is down meanwhile.
fn with_a_member_behind(seed: u64) -> (Sim, u64, u64) {
    let mut sim = Sim::short_logs(seed, &[1, 2, 3]);
    let leader = sim.elect();
    let behind = sim.other_than(&[leader]);
    sim.write(leader);
    sim.rounds(1);
    sim.crash(behind, 0);
    for _ in 0..60 {
        sim.write(leader);
        sim.rest();
    }
    for id in [1, 2, 3] {
        sim.seal(id);
    }
    (sim, leader, behind)
}

#[test]
fn a_member_that_was_away_gets_a_snapshot_and_goes_on() {
    let (mut sim, leader, behind) = with_a_member_behind(1);
    sim.start(behind);
    sim.rounds(5);
    assert_eq!(sim.snapshots_installed, 1);
    sim.check_nothing_is_lost(&[1, 2, 3]);

    // It acknowledges what comes after, and restarts from what it was given.
    let third = sim.other_than(&[leader, behind]);
    sim.crash(third, 0);
    let write = sim.write(behind);
    sim.rounds(2);
    assert!(sim.clients.is_acknowledged(write));
    sim.crash(behind, 0);
    sim.start(behind);
    sim.rounds(5);
    assert_eq!(sim.snapshots_installed, 1, "the log carries on from the snapshot");
    sim.check_nothing_is_lost(&[leader, behind]);
}

#[test]
fn a_learner_catches_up_by_snapshot_and_is_promoted() {
    let mut sim = Sim::short_logs(2, &[1, 2, 3]);
    let leader = sim.elect();
    for _ in 0..40 {
        sim.write(leader);
        sim.rest();
    }
    sim.start_joiner(4);
    sim.change(leader, ConfChangeType::AddLearnerNode, 4);
    sim.rounds(5);
    assert_eq!(sim.snapshots_installed, 1);
    assert!(sim.status(4).is_learner);
    sim.check_nothing_is_lost(&[1, 2, 3, 4]);
    sim.read(4);
    sim.change(leader, ConfChangeType::AddNode, 4);
    sim.rounds(2);
    assert!(!sim.status(4).is_learner);
    assert_eq!((sim.clients.reads_done, sim.clients.pending()), (1, 0));
}

#[test]
fn a_member_answers_heartbeats_while_it_installs() {
    let (mut sim, leader, behind) = with_a_member_behind(3);
    let third = sim.other_than(&[leader, behind]);
    sim.start(behind);
    sim.crash(third, 0);
    // The state machine of the member that is behind takes its time: without
    // its answers the leader would have no quorum.
    sim.members.get_mut(&behind).unwrap().busy = true;
    sim.rounds(5 * ELECTION_TICKS);
    assert_eq!(sim.snapshots_installed, 0);
    assert_eq!(sim.leader(), Some(leader));
    let write = sim.write(leader);
    sim.rounds(5);
    assert!(!sim.clients.is_acknowledged(write), "what is not installed acknowledges nothing");
    sim.members.get_mut(&behind).unwrap().busy = false;
    sim.rounds(5);
    assert!(sim.clients.is_acknowledged(write));
    sim.check_nothing_is_lost(&[leader, behind]);
}

#[test]
fn a_crash_between_the_sealed_state_and_the_log_is_survived() {
    let (mut sim, leader, behind) = with_a_member_behind(4);
    sim.start(behind);
    sim.members.get_mut(&behind).unwrap().stalled = true;
    sim.rounds(5);
    assert_eq!(sim.snapshots_installed, 1, "the state machine is on another disk");
    sim.crash(behind, 0);
    sim.members.get_mut(&behind).unwrap().stalled = false;
    sim.start(behind);
    sim.rounds(5);
    sim.check_nothing_is_lost(&[leader, behind]);
    assert_eq!(sim.snapshots_installed, 1);
}

#[test]
fn a_snapshot_that_is_lost_is_sent_again() {
    let (mut sim, _, behind) = with_a_member_behind(5);
    sim.start(behind);
    let mut lost = 0;
    for _ in 0..5 {
        for id in sim.running() {
            sim.tick(id);
        }
        while let Some(message) = sim.network.pop_front() {
            let lose = lost == 0 && message.msg_type() == MessageType::MsgSnapshot;
            lost += u32::from(lose);
            sim.deliver(message, lose);
        }
        sim.rest();
    }
    assert_eq!((lost, sim.snapshots_installed), (1, 1));
    sim.check_nothing_is_lost(&[1, 2, 3]);
}

#[test]
fn the_log_is_kept_for_a_member_that_gets_a_snapshot() {
    let (mut sim, leader, behind) = with_a_member_behind(6);
    sim.start(behind);
    sim.members.get_mut(&behind).unwrap().busy = true;
    sim.rounds(3);
    for _ in 0..60 {
        sim.write(leader);
        sim.rest();
    }
    sim.members.get_mut(&behind).unwrap().busy = false;
    sim.rounds(5);
    assert_eq!(sim.snapshots_installed, 1, "what came meanwhile is in the log");
    sim.check_nothing_is_lost(&[1, 2, 3]);
}

#[test]
fn a_member_that_has_just_installed_cannot_take_over() {
    let (mut sim, leader, behind) = with_a_member_behind(8);
    sim.start(behind);
    sim.members.get_mut(&behind).unwrap().stalled = true;
    while sim.snapshots_installed == 0 {
        sim.round();
    }
    let mut order = Message { from: leader, to: behind, ..Message::default() };
    order.term = sim.status(behind).term;
    order.set_msg_type(MessageType::MsgTimeoutNow);
    sim.deliver(order, false);
    sim.members.get_mut(&behind).unwrap().stalled = false;
    sim.rounds(5);
    sim.check_nothing_is_lost(&[1, 2, 3]);
}

#[test]
fn a_snapshot_that_keeps_failing_is_sent_ever_more_rarely() {
    let (mut sim, _, behind) = with_a_member_behind(31);
    sim.start(behind);
    let mut sent = Vec::new();
    for round in 0..6 * ELECTION_TICKS {
        sim.round_but(|message| {
            let snapshot = message.msg_type() == MessageType::MsgSnapshot;
            if snapshot {
                sent.push(round);
            }
            snapshot
        });
    }
    assert!(sent.len() >= 6, "it is tried again: {sent:?}");
    let pauses: Vec<usize> = sent.windows(2).map(|pair| pair[1] - pair[0]).collect();
    assert!(pauses.is_sorted(), "{pauses:?}");
    let longest = pauses.last().copied().unwrap_or_default();
    assert!((ELECTION_TICKS..=ELECTION_TICKS + 2).contains(&longest), "{pauses:?}");
    sim.rounds(2 * ELECTION_TICKS);
    assert_eq!(sim.snapshots_installed, 1);
    sim.check_nothing_is_lost(&[1, 2, 3]);
}
