//! Keep-alives that wait.

use super::*;
use crate::shared::Error;

const LEADER: Role = Role::Leader(1);

fn queue() -> Renewals<&'static str> {
    Renewals::new(RenewalSettings { batch: 2, questions: 2, waiting: 8, ..Default::default() })
}

/// A leader's table with a lease of ten seconds.
fn table() -> LeaseCore {
    let mut core = leader();
    core.change(granted(1, 10), 0);
    core
}

type Answers = Vec<(&'static str, Result<i64, Error>)>;

fn work(
    queue: &mut Renewals<&'static str>,
    core: &mut LeaseCore,
    role: Role,
    now_ms: u64,
) -> (Answers, Vec<Step>) {
    let Work { answers, steps, .. } = queue.work(core, role, now_ms);
    (answers, steps)
}

#[test]
fn a_leader_has_itself_confirmed_and_then_answers_at_once_for_a_while() {
    let (mut queue, mut core) = (queue(), table());
    queue.add(1, false, "a", 0).unwrap();
    let (answers, steps) = work(&mut queue, &mut core, LEADER, 0);
    assert_eq!((answers, steps), (vec![], vec![Step::Confirm { ticket: 1 }]));
    queue.add(1, false, "b", 5).unwrap();
    assert_eq!(work(&mut queue, &mut core, LEADER, 5), (vec![], vec![]), "one at a time");
    queue.confirmed(1, true, 10);
    let both = vec![("b", Ok(10)), ("a", Ok(10))];
    assert_eq!(work(&mut queue, &mut core, LEADER, 10), (both, vec![]));
    queue.add(1, true, "c", 499).unwrap();
    assert_eq!(work(&mut queue, &mut core, LEADER, 499), (vec![("c", Ok(10))], vec![]));
    queue.add(1, true, "d", 500).unwrap();
    assert_eq!(work(&mut queue, &mut core, LEADER, 500).1, [Step::Confirm { ticket: 2 }]);
}

#[test]
fn an_unknown_lease_is_looked_for_behind_a_read_index() {
    let (mut queue, mut core) = (queue(), table());
    queue.add(1, false, "known", 0).unwrap();
    work(&mut queue, &mut core, LEADER, 0);
    queue.confirmed(1, true, 1);
    work(&mut queue, &mut core, LEADER, 1);
    queue.add(2, false, "granted a moment ago", 2).unwrap();
    queue.add(3, false, "never granted", 2).unwrap();
    assert_eq!(work(&mut queue, &mut core, LEADER, 2).1, [Step::Confirm { ticket: 2 }]);
    core.change(granted(2, 5), 3);
    queue.confirmed(2, true, 3);
    let answers = vec![("granted a moment ago", Ok(5)), ("never granted", Ok(0))];
    assert_eq!(work(&mut queue, &mut core, LEADER, 3), (answers, vec![]));
}

#[test]
fn a_leader_that_is_not_confirmed_in_time_asks_again() {
    let (mut queue, mut core) = (queue(), table());
    queue.add(1, false, "a", 0).unwrap();
    work(&mut queue, &mut core, LEADER, 0);
    queue.confirmed(1, true, 1001);
    let again = (vec![], vec![Step::Confirm { ticket: 2 }]);
    assert_eq!(work(&mut queue, &mut core, LEADER, 1001), again, "it was long ago");
    queue.confirmed(2, false, 1002);
    assert_eq!(work(&mut queue, &mut core, LEADER, 1002).1, [Step::Confirm { ticket: 3 }]);
    // Meanwhile another member leads, and what was confirmed counts no more.
    core.lead(None, 1003);
    let ask = Step::Forward { ticket: 4, to: 7, ids: vec![1] };
    assert_eq!(work(&mut queue, &mut core, Role::Follower(7), 1003), (vec![], vec![ask]));
    queue.forwarded(4, Err(Error::NotLeader), 1004);
    core.lead(Some(5), 1004);
    let again = (vec![], vec![Step::Confirm { ticket: 5 }]);
    assert_eq!(work(&mut queue, &mut core, Role::Leader(5), 1004), again);
}

#[test]
fn a_follower_asks_in_batches_and_not_too_often() {
    let (mut queue, mut core) = (queue(), LeaseCore::new(patient(), [], 0));
    let follower = Role::Follower(7);
    for reply in ["a", "b", "c", "d", "e"] {
        queue.add(1, false, reply, 0).unwrap();
    }
    let ask = |ticket| Step::Forward { ticket, to: 7, ids: vec![1, 1] };
    assert_eq!(work(&mut queue, &mut core, follower, 0).1, [ask(1), ask(2)]);
    assert!(queue.waits());
    let answers = queue.forwarded(2, Ok(vec![10, 0]), 5);
    assert_eq!(answers, [("c", Ok(10)), ("d", Ok(0))]);
    assert_eq!(queue.forwarded(1, Err(Error::Timeout), 10), []);
    assert_eq!(work(&mut queue, &mut core, follower, 59), (vec![], vec![]), "it just failed");
    assert_eq!(work(&mut queue, &mut core, follower, 60).1.len(), 2);
    queue.forwarded(3, Ok(vec![10, 10]), 70);
    queue.forwarded(4, Ok(vec![10]), 70);
    assert!(!queue.waits());
}

#[test]
fn who_asked_a_leader_that_is_none_any_more_asks_the_next_one_at_once() {
    let (mut queue, mut core) = (queue(), LeaseCore::new(patient(), [], 0));
    queue.add(1, false, "a", 0).unwrap();
    let ask = |ticket, to| vec![Step::Forward { ticket, to, ids: vec![1] }];
    assert_eq!(work(&mut queue, &mut core, Role::Follower(7), 0).1, ask(1, 7));
    assert_eq!(work(&mut queue, &mut core, Role::Leaderless, 1000), (vec![], vec![]));
    assert_eq!(work(&mut queue, &mut core, Role::Follower(8), 1500).1, ask(2, 8));
    assert_eq!(queue.forwarded(1, Ok(vec![10]), 1600), [], "an answer to nobody's question");
    assert_eq!(queue.forwarded(2, Ok(vec![10]), 1600), [("a", Ok(10))]);
    // The same for a leader that waits for a confirmation.
    queue.add(1, false, "b", 2000).unwrap();
    core.lead(Some(9), 2000);
    assert_eq!(work(&mut queue, &mut core, Role::Leader(9), 2000).1, [Step::Confirm { ticket: 3 }]);
    core.lead(None, 2100);
    assert_eq!(work(&mut queue, &mut core, Role::Follower(7), 2100).1, ask(4, 7));
}

#[test]
fn who_finds_no_leader_in_time_hears_so() {
    let (mut queue, mut core) = (queue(), LeaseCore::new(patient(), [], 0));
    queue.add(1, false, "a", 0).unwrap();
    queue.add(1, true, "peer", 0).unwrap();
    let refused = (vec![("peer", Err(Error::NotLeader))], vec![]);
    assert_eq!(work(&mut queue, &mut core, Role::Leaderless, 0), refused);
    assert_eq!(work(&mut queue, &mut core, Role::Leaderless, 6999).0, []);
    let late = (vec![("a", Err(Error::NoLeader))], vec![]);
    assert_eq!(work(&mut queue, &mut core, Role::Leaderless, 7000), late);
    queue.add(1, false, "b", 7000).unwrap();
    work(&mut queue, &mut core, Role::Follower(7), 7000);
    queue.forwarded(1, Err(Error::NoLeader), 14_000);
    let late = (vec![("b", Err(Error::Timeout))], vec![]);
    assert_eq!(work(&mut queue, &mut core, Role::Follower(7), 14_000), late);
}

#[test]
fn a_checkpointed_lease_is_renewed_when_the_log_says_so() {
    let (mut queue, mut core) = (queue(), leader());
    core.change(granted(1, 3600), 0);
    core.change(LeaseChange::Remaining { id: 1, remaining_s: 60 }, 0);
    queue.add(1, false, "a", 0).unwrap();
    work(&mut queue, &mut core, LEADER, 0);
    queue.confirmed(1, true, 1);
    let forget = Step::Uncheckpoint { ticket: 2, term: 1, ids: vec![1] };
    assert_eq!(work(&mut queue, &mut core, LEADER, 1), (vec![], vec![forget]));
    queue.uncheckpointed(2, false, &mut core);
    let again = Step::Uncheckpoint { ticket: 3, term: 1, ids: vec![1] };
    assert_eq!(work(&mut queue, &mut core, LEADER, 2), (vec![], vec![again]));
    queue.uncheckpointed(3, true, &mut core);
    assert_eq!(work(&mut queue, &mut core, LEADER, 5000), (vec![("a", Ok(3600))], vec![]));
}

#[test]
fn a_lease_on_its_way_out_is_answered_when_it_is_gone() {
    let (mut queue, mut core) = (queue(), table());
    assert_eq!(core.expired(10_000), [1]);
    queue.add(1, false, "a", 10_000).unwrap();
    work(&mut queue, &mut core, LEADER, 10_000);
    queue.confirmed(1, true, 10_001);
    assert_eq!(work(&mut queue, &mut core, LEADER, 10_001), (vec![], vec![]));
    core.change(revoked(1), 10_002);
    assert_eq!(work(&mut queue, &mut core, LEADER, 10_002).1, [Step::Confirm { ticket: 2 }]);
    queue.confirmed(2, true, 10_003);
    assert_eq!(work(&mut queue, &mut core, LEADER, 10_003).0, [("a", Ok(0))]);
}

#[test]
fn too_many_are_refused() {
    let mut queue = queue();
    for _ in 0..8 {
        queue.add(1, false, "a", 0).unwrap();
    }
    assert_eq!(queue.add(1, false, "one too many", 0), Err("one too many"));
}
