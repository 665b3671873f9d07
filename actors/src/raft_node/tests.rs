//! raft's windows and answers, with the disk and the state machine played by
//! the test.

use bytes::Bytes;
use raft::eraftpb::HardState;
use tokio::sync::oneshot::{self, error::TryRecvError};

use super::{
    APPEND_WINDOW, COMMIT_WINDOW, Effects, LogStore, Propose, RaftCompletion, RaftCore,
    RaftSettings, ReadReply,
};
use crate::mvcc::{Applied, Reply};
use crate::shared::Error;

const ME: u64 = 7;

fn settings(applied: u64) -> RaftSettings {
    RaftSettings {
        member_id: ME,
        election_ticks: 10,
        pre_vote: true,
        campaign_at_once: true,
        snapshot_count: 10,
        catchup_entries: 5,
        applied,
        run: 1,
        request_timeout_ticks: 50,
        backlog_bytes_max: 1 << 20,
        read_retry_ticks: 5,
        seed: 1,
    }
}

fn alone() -> RaftCore<()> {
    let log = LogStore::new(
        (0, 0),
        HardState::default(),
        RaftCore::<()>::conf_state(vec![ME], Vec::new()),
        Vec::new(),
    );
    RaftCore::new(settings(0), log).unwrap()
}

fn process(core: &mut RaftCore<()>) -> Effects<()> {
    let mut effects = Effects::default();
    core.process(&mut effects);
    effects
}

/// The disk answers for everything it was given, the state machine as well;
/// gives the data of the entries in the order they were committed.
fn settle(core: &mut RaftCore<()>, mut effects: Effects<()>) -> Vec<Bytes> {
    let mut data = Vec::new();
    for _ in 0..10_000 {
        let mut next = Effects::default();
        if let Some(last) = effects.appends.last() {
            core.complete(RaftCompletion::Persisted { ready: last.ready_number }, &mut next);
        }
        for committed in effects.committed {
            let index = committed.entries.last().unwrap().entry.index;
            data.extend(committed.entries.into_iter().map(|entry| entry.entry.data));
            core.complete(RaftCompletion::Applied { index }, &mut next);
        }
        core.process(&mut next);
        effects = next;
        if effects.appends.is_empty() && effects.committed.is_empty() {
            return data;
        }
    }
    panic!("raft never comes to rest");
}

fn propose(core: &mut RaftCore<()>, id: u64) -> oneshot::Receiver<Result<Applied, Error>> {
    let (reply, outcome) = Reply::new(None, None);
    core.propose(vec![Propose { id, data: Bytes::from(id.to_string()), reply }]);
    outcome
}

fn read(core: &mut RaftCore<()>) -> oneshot::Receiver<Result<(), Error>> {
    let (reply, answer) = oneshot::channel();
    core.read_index([ReadReply(reply)]);
    answer
}

#[test]
fn the_only_voter_leads_when_its_vote_is_durable_and_commits_in_order() {
    let mut core = alone();
    let effects = process(&mut core);
    assert!(effects.status.as_ref().is_some_and(|status| status.is_leader));
    assert!(effects.committed.is_empty(), "nothing is committed before it is on disk");
    settle(&mut core, effects);
    for id in 1..=5 {
        drop(propose(&mut core, id));
    }
    let effects = process(&mut core);
    let data = settle(&mut core, effects);
    assert_eq!(data, ["1", "2", "3", "4", "5"]);
}

#[test]
fn a_read_waits_for_what_was_committed_before_it() {
    let mut core = alone();
    let mut early = read(&mut core);
    let effects = process(&mut core);
    assert_eq!(early.try_recv(), Err(TryRecvError::Empty), "no entry of this term is committed");
    settle(&mut core, effects);
    assert_eq!(early.try_recv(), Ok(Ok(())));

    drop(propose(&mut core, 1));
    let effects = process(&mut core);
    let ready = effects.appends.last().unwrap().ready_number;
    let mut effects = Effects::default();
    core.complete(RaftCompletion::Persisted { ready }, &mut effects);
    core.process(&mut effects);
    let index = effects.committed[0].entries[0].entry.index;
    let mut late = read(&mut core);
    process(&mut core);
    assert_eq!(late.try_recv(), Err(TryRecvError::Empty), "it is committed but not applied");
    core.complete(RaftCompletion::Applied { index }, &mut Effects::default());
    process(&mut core);
    assert_eq!(late.try_recv(), Ok(Ok(())));
}

#[test]
fn appends_and_commits_keep_to_their_windows() {
    let mut core = alone();
    let effects = process(&mut core);
    settle(&mut core, effects);
    let mut appends = Vec::new();
    for id in 0..3 * APPEND_WINDOW as u64 {
        drop(propose(&mut core, id));
        appends.extend(process(&mut core).appends);
    }
    assert_eq!(appends.len(), APPEND_WINDOW, "the disk has not answered");

    let mut committed = Vec::new();
    let mut entries = 0;
    let mut waiting = appends;
    while let Some(last) = waiting.last() {
        let mut effects = Effects::default();
        core.complete(RaftCompletion::Persisted { ready: last.ready_number }, &mut effects);
        core.process(&mut effects);
        entries += effects.committed.iter().map(|batch| batch.entries.len()).sum::<usize>();
        committed.extend(effects.committed);
        waiting = effects.appends;
    }
    assert!(committed.len() <= COMMIT_WINDOW);
    assert_eq!(entries, 3 * APPEND_WINDOW);
}

#[test]
fn the_log_in_memory_is_given_up_behind_what_is_applied() {
    let mut core = alone();
    let effects = process(&mut core);
    settle(&mut core, effects);
    for id in 0..200 {
        drop(propose(&mut core, id));
        let effects = process(&mut core);
        settle(&mut core, effects);
    }
    let held = core.log_entries();
    assert!((5..=16).contains(&held), "{held} entries are held");
}

#[test]
fn a_restart_goes_on_behind_what_was_applied() {
    let mut core = alone();
    let effects = process(&mut core);
    let mut entries = effects.appends.iter().flat_map(|a| a.entries.clone()).collect::<Vec<_>>();
    let state = effects.appends.iter().filter_map(|a| a.hard_state).next_back().unwrap();
    settle(&mut core, effects);
    for id in 1..=3 {
        drop(propose(&mut core, id));
    }
    let effects = process(&mut core);
    entries.extend(effects.appends.iter().flat_map(|append| append.entries.clone()));
    drop(core);

    let applied = entries[1].index;
    let base = (applied, entries[1].term);
    let log = LogStore::new(
        base,
        HardState { commit: applied, ..state },
        RaftCore::<()>::conf_state(vec![ME], Vec::new()),
        entries[2..].to_vec(),
    );
    let mut core = RaftCore::new(settings(applied), log).unwrap();
    let effects = process(&mut core);
    let data = settle(&mut core, effects);
    assert_eq!(data, ["2", "3", ""], "what was not applied, then the new term's own entry");
}

#[test]
fn without_a_leader_proposals_wait_until_they_time_out() {
    let log = LogStore::new(
        (0, 0),
        HardState::default(),
        RaftCore::<()>::conf_state(vec![ME, 8, 9], Vec::new()),
        Vec::new(),
    );
    let mut core = RaftCore::new(settings(0), log).unwrap();
    process(&mut core);
    let mut outcome = propose(&mut core, 1);
    let mut read = read(&mut core);
    for _ in 0..settings(0).request_timeout_ticks {
        process(&mut core);
        assert_eq!(outcome.try_recv(), Err(TryRecvError::Empty));
        core.tick();
    }
    assert_eq!(outcome.try_recv(), Ok(Err(Error::NeverProposed)));
    assert_eq!(read.try_recv(), Ok(Err(Error::Timeout)));
}
