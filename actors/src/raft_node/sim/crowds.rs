//! What members send and keep when one of them cannot keep up.

use raft::eraftpb::{Message, MessageType};

use super::{BACKLOG_BYTES_MAX, Sim};

const VALUE_BYTES: usize = 4 << 10;

fn brings_entries(message: &Message, to: u64) -> bool {
    message.to == to && message.msg_type() == MessageType::MsgAppend && !message.entries.is_empty()
}

#[test]
fn a_follower_whose_disk_stalls_keeps_no_more_than_its_room() {
    let mut sim = Sim::new(60, &[1, 2, 3]);
    let leader = sim.elect();
    let slow = sim.other_than(&[leader]);
    sim.members.get_mut(&slow).unwrap().stalled = true;
    for _ in 0..60 {
        // Rounds of reads ask for more answers to heartbeats than there are ticks.
        for _ in 0..10 {
            sim.write_padded(leader, VALUE_BYTES);
            sim.read(leader);
            sim.rest();
        }
        sim.round();
        let core = sim.members[&slow].core.as_ref().unwrap();
        let bytes = core.log_bytes();
        // One message more than there is room for, of up to one tick's entries.
        assert!(bytes <= BACKLOG_BYTES_MAX + 16 * VALUE_BYTES as u64, "{bytes} bytes");
    }
    assert!(sim.status(slow).refused_appends > 0, "it is told how often");
    sim.members.get_mut(&slow).unwrap().stalled = false;
    sim.rounds(60);
    sim.check_nothing_is_lost(&[1, 2, 3]);
}

#[test]
fn entries_on_their_way_are_not_sent_with_every_answer() {
    let mut sim = Sim::new(61, &[1, 2, 3]);
    let leader = sim.elect();
    let slow = sim.other_than(&[leader]);
    // It hears everything, and its acknowledgements are lost.
    let mute = |message: &Message| {
        message.from == slow && message.msg_type() == MessageType::MsgAppendResponse
    };
    sim.write(leader);
    sim.round_but(mute);
    sim.act(leader, |core, effects| {
        core.inbound(vec![super::RaftInbound::Unreachable(slow)], effects);
    });
    for _ in 0..10 {
        let mut sent = 0;
        sim.round_but(|message| {
            sent += usize::from(brings_entries(message, slow));
            mute(message)
        });
        for _ in 0..20 {
            sim.read(leader);
            sim.rest_but(|message| {
                sent += usize::from(brings_entries(message, slow));
                mute(message)
            });
        }
        assert!(sent <= 2, "the same entries were sent {sent} times in a tick");
    }
    assert_eq!(sim.clients.reads_done, 200, "every answer counts for the reads");
    sim.write(leader);
    sim.rounds(3);
    sim.check_nothing_is_lost(&[1, 2, 3]);
}

/// A leader that is cut off with more than its room, none of which can be committed.
fn with_a_deposed_leader_full_of_entries(seed: u64) -> (Sim, u64) {
    let mut sim = Sim::new(seed, &[1, 2, 3]);
    let old = sim.elect();
    sim.isolate(old);
    for _ in 0..2 * BACKLOG_BYTES_MAX / VALUE_BYTES as u64 {
        sim.write_padded(old, VALUE_BYTES);
    }
    sim.rest();
    assert!(sim.members[&old].core.as_ref().unwrap().log_bytes() > BACKLOG_BYTES_MAX);
    sim.until("the others have a leader", |sim| sim.leader().is_some_and(|new| new != old));
    (sim, old)
}

fn comes_back(mut sim: Sim, deposed: u64) {
    sim.heal();
    let leader = sim.leader().unwrap();
    sim.until("the old leader has what the new one has", |sim| {
        sim.status(deposed).applied == sim.status(leader).applied
    });
    let other = sim.other_than(&[leader, deposed]);
    sim.crash(other, 0);
    let write = sim.write(leader);
    sim.until("the two of them serve", |sim| sim.clients.is_acknowledged(write));
    sim.rounds(3);
    sim.check_nothing_is_lost(&[leader, deposed]);
}

#[test]
fn a_deposed_leader_full_of_entries_follows() {
    let (sim, deposed) = with_a_deposed_leader_full_of_entries(62);
    comes_back(sim, deposed);
}

#[test]
fn a_deposed_leader_full_of_entries_follows_when_it_was_started_again() {
    let (mut sim, deposed) = with_a_deposed_leader_full_of_entries(63);
    sim.crash(deposed, usize::MAX);
    sim.start(deposed);
    comes_back(sim, deposed);
}

#[test]
fn callers_that_are_no_members_are_not_remembered() {
    let mut sim = Sim::new(64, &[1, 2, 3]);
    let leader = sim.elect();
    let term = sim.status(leader).term;
    for from in 100..200 {
        let kind = MessageType::MsgHeartbeatResponse.into();
        let answer = Message { msg_type: kind, from, to: leader, term, ..Message::default() };
        sim.deliver(answer, false);
    }
    let answered = &sim.members[&leader].core.as_ref().unwrap().answered;
    assert!(answered.len() <= 2, "{answered:?}");
}
