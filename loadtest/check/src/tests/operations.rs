//! Puts, deletes, reads and swaps of single keys.

use super::*;

#[test]
fn a_history_of_every_kind_of_call_is_right() {
    let mut store = Store::new();
    store.get(1).put(1, 10).get(1).put(1, 11).swap(1, 3, 12).swap(1, 3, 13).get(1);
    store.delete(1).delete(1).get(1).swap(1, 0, 14).swap(1, 0, 15).get(1).put(2, 20).get(1);
    let evidence = store.evidence();
    assert_eq!(judge(&evidence).problems, []);
    assert_eq!(judge(&evidence).operations, 15);
}

#[test]
fn lost_answers_may_have_taken_effect_or_not() {
    let mut store = Store::new();
    store.put(1, 10).put(1, 11).lose_answer().get(1).delete(1).lose_answer().get(1);
    store.put(1, 12).lose_answer().put(1, 13).lose_answer().get(1).swap(1, 6, 14).lose_answer();
    let mut evidence = store.evidence();
    assert_eq!(promises(&evidence), Vec::<&str>::new());
    assert_eq!(told_only(&mut evidence), Vec::<&str>::new());

    // The write behind the lost answer never happened.
    let mut store = Store::new();
    store.put(1, 10).get(1).lose_answer();
    store.records.operations[1].input = Input::Put(99);
    store.get(1).put(1, 11).get(1);
    let mut evidence = store.evidence();
    assert_eq!(promises(&evidence), Vec::<&str>::new());
    assert_eq!(told_only(&mut evidence), Vec::<&str>::new());
}

#[test]
fn a_lost_write_is_found() {
    let mut store = Store::new();
    store.put(1, 10).put(1, 11).get(1);
    // The second put was acknowledged; the read behind it and the store do not know it.
    let mut evidence = store.evidence();
    let first = evidence.stored[0][0];
    evidence.records.operations[2].output =
        Output::Done { revision: 3, seen: Seen::Kv(first.now), effect: false };
    for events in &mut evidence.stored {
        events.truncate(1);
    }
    let found = promises(&evidence);
    assert!(found.contains(&"an acknowledged write is stored"), "{found:?}");
    assert!(found.contains(&"linearizable"), "{found:?}");
    assert_eq!(told_only(&mut evidence), ["linearizable"]);
}

#[test]
fn a_stale_read_is_found() {
    let mut store = Store::new();
    store.put(1, 10).put(1, 11).get(1);
    let mut evidence = store.evidence();
    let first = evidence.stored[0][0];
    // It tells the state of the revision it names, which is an old one.
    evidence.records.operations[2].output =
        Output::Done { revision: 2, seen: Seen::Kv(first.now), effect: false };
    let of_member = "a member's state never goes back";
    assert_eq!(promises(&evidence), ["revisions grow with time", of_member, "linearizable"]);
    // Asked for as stale, it is right, unless the same process has told a newer state before.
    evidence.records.operations[2].input = Input::GetStale;
    assert_eq!(promises(&evidence), [of_member]);
    evidence.records.operations[2].life = 2;
    assert_eq!(promises(&evidence), Vec::<&str>::new());
}

#[test]
fn a_read_of_another_revision_than_it_names_is_found() {
    let mut store = Store::new();
    store.put(1, 10).put(1, 11).get(1);
    let mut evidence = store.evidence();
    let first = evidence.stored[0][0];
    evidence.records.operations[2].input = Input::GetStale;
    evidence.records.operations[2].output =
        Output::Done { revision: 3, seen: Seen::Kv(first.now), effect: false };
    assert_eq!(promises(&evidence), ["a read tells the state of its revision"]);
}

#[test]
fn a_write_applied_twice_is_found() {
    let mut store = Store::new();
    store.put(1, 10);
    store.write(1, Some(10));
    store.get(1);
    let mut evidence = store.evidence();
    let found = promises(&evidence);
    assert!(found.contains(&"a write takes effect once"), "{found:?}");
    // The version in the answer gives it away even without what is stored.
    assert_eq!(told_only(&mut evidence), ["linearizable"]);
}

#[test]
fn a_swap_that_two_clients_won_is_found() {
    let mut store = Store::new();
    store.put(1, 10).swap(1, 2, 11).swap(1, 3, 12);
    store.records.operations[2].input = Input::Swap(2, 12);
    assert_eq!(told_only(&mut store.evidence()), ["linearizable"]);
}

#[test]
fn a_write_that_was_refused_or_never_asked_for_is_found() {
    let mut store = Store::new();
    store.put(1, 10).put(1, 11);
    let refused = store.records.operations.pop().unwrap();
    store.records.refused.push((1, refused.input.written().unwrap()));
    let found = promises(&store.evidence());
    assert!(found.contains(&"a refused write takes no effect"), "{found:?}");
    assert!(found.contains(&"what is stored was asked for"), "{found:?}");

    let mut store = Store::new();
    store.put(1, 10).delete(1);
    store.records.operations.pop();
    assert_eq!(promises(&store.evidence()), ["what is stored was asked for"]);
}

#[test]
fn a_revision_made_twice_is_found() {
    let mut store = Store::new();
    store.put(1, 10).put(2, 20);
    let operation = &mut store.records.operations[1];
    operation.called = 0;
    operation.output = Output::Done { revision: 2, seen: Seen::Kv(None), effect: true };
    let found = told_only(&mut store.evidence());
    assert_eq!(found, ["a revision has one maker"]);
}

#[test]
fn members_that_differ_are_found() {
    let mut store = Store::new();
    store.put(1, 10).put(1, 11);
    let mut evidence = store.evidence();
    evidence.stored[1].pop();
    assert_eq!(promises(&evidence), ["members agree"]);
}

#[test]
fn a_broken_chain_of_events_is_found() {
    let mut store = Store::new();
    store.put(1, 10).put(1, 11);
    let mut evidence = store.evidence();
    for events in &mut evidence.stored {
        events[1].before = None;
    }
    let found = promises(&evidence);
    assert!(found.contains(&"each event follows from the one before"), "{found:?}");
}
