//! Transactions, lost answers, and members against each other.

use super::*;

const WHOLE: &str = "a transaction takes effect as a whole";

/// A transaction over two keys is the second and third operation.
fn store() -> Store {
    let mut store = Store::new();
    store.put(1, 10).put_both([(1, 11), (2, 20)]).get(1).get(2);
    store
}

fn lose(evidence: &mut Evidence, call: u32) {
    let operations = &mut evidence.records.operations;
    for operation in operations.iter_mut().filter(|operation| operation.call_number == call) {
        (operation.output, operation.returned) = (Output::Unknown, NEVER);
    }
}

/// Takes what one key's last write stored away, and what was read of it.
fn forget(evidence: &mut Evidence, key: Key) {
    for events in &mut evidence.stored {
        let place = events.iter().rposition(|event| event.key == key).unwrap();
        events.remove(place);
    }
    evidence.records.operations.retain(|operation| operation.input != Input::Get);
}

#[test]
fn transactions_take_effect_as_a_whole() {
    let mut evidence = store().evidence();
    assert_eq!(promises(&evidence), NONE);
    lose(&mut evidence, 2);
    assert_eq!(promises(&evidence), NONE);
    forget(&mut evidence, 2);
    assert_eq!(promises(&evidence), [WHOLE]);
    forget(&mut evidence, 1);
    assert_eq!(promises(&evidence), NONE);

    // Answered, one of its writes is lost.
    let mut evidence = store().evidence();
    forget(&mut evidence, 2);
    assert_eq!(promises(&evidence), ["an acknowledged write is stored"]);
    // Answered as if half of it had been done.
    let mut evidence = store().evidence();
    let half = Output::Done { revision: 3, seen: Seen::NotAsked, effect: false };
    evidence.records.operations[2].output = half;
    assert!(promises(&evidence).contains(&WHOLE));
    // Answered with two revisions.
    let mut evidence = store().evidence();
    let other = Output::Done { revision: 4, seen: Seen::NotAsked, effect: true };
    evidence.records.operations[2].output = other;
    assert!(promises(&evidence).contains(&WHOLE));
}

#[test]
fn a_lost_transaction_that_deletes_is_settled_by_its_puts() {
    let with_delete = || {
        let mut store = Store::new();
        store.put(1, 10).put(2, 20).put(1, 11);
        store.revision -= 1;
        store.delete(2).get(1).get(2);
        let of_call = store.records.operations[2];
        let delete = &mut store.records.operations[3];
        (delete.call_number, delete.called) = (3, of_call.called);
        store
    };
    let mut evidence = with_delete().evidence();
    assert_eq!(promises(&evidence), NONE);
    lose(&mut evidence, 3);
    assert_eq!(promises(&evidence), NONE);
    forget(&mut evidence, 2);
    assert_eq!(promises(&evidence), [WHOLE]);
}

#[test]
fn puts_that_join_a_swap_are_done_with_it() {
    let joins = || {
        let mut store = Store::new();
        store.put(1, 10).join(1, 2, 11, (2, 20)).join(1, 2, 12, (2, 21)).get(1).get(2);
        store
    };
    let mut evidence = joins().evidence();
    assert_eq!(evidence.stored[0].len(), 3);
    assert_eq!(promises(&evidence), NONE);
    lose(&mut evidence, 2);
    lose(&mut evidence, 3);
    assert_eq!(promises(&evidence), NONE);

    let mut evidence = joins().evidence();
    evidence.records.operations[2].output =
        Output::Done { revision: 3, seen: Seen::NotAsked, effect: false };
    let found = promises(&evidence);
    assert!(found.contains(&WHOLE), "{found:?}");
    assert!(found.contains(&"a refused write takes no effect"), "{found:?}");
}

#[test]
fn lost_deletes_explain_deletions_behind_them() {
    let mut store = Store::new();
    store.put(1, 10).delete(1).lose_answer().put(1, 11).delete(1).lose_answer().get(1);
    store.delete(1).lose_answer();
    let mut evidence = store.evidence();
    assert_eq!(promises(&evidence), NONE);
    // Both deletions are there before the second delete was called.
    let late = evidence.records.operations[4].called + 100;
    evidence.records.operations[3].called = late;
    evidence.records.operations[5].called = late;
    let found = promises(&evidence);
    assert_eq!(found, ["revisions grow with time", "linearizable"]);
    // One fewer delete than deletions.
    evidence.records.operations.retain(|operation| operation.called != late);
    assert!(promises(&evidence).contains(&"what is stored was asked for"));
}

#[test]
fn an_acknowledged_delete_that_is_lost_is_found() {
    let mut store = Store::new();
    store.put(1, 10).delete(1);
    let mut evidence = store.evidence();
    assert_eq!(promises(&evidence), NONE);
    for events in &mut evidence.stored {
        events.pop();
    }
    assert_eq!(promises(&evidence), ["an acknowledged write is stored"]);
}

#[test]
fn a_write_from_before_it_was_asked_for_is_found() {
    let mut store = Store::new();
    store.put(1, 10).lose_answer().put(2, 20);
    let mut evidence = store.evidence();
    assert_eq!(promises(&evidence), NONE);
    evidence.records.operations[0].called = evidence.records.operations[1].returned + 1;
    assert_eq!(promises(&evidence), ["revisions grow with time"]);
}

fn look(member: u8, applied_index: u64, revision: i64, hash: u64) -> Fingerprint {
    Fingerprint { member, life: 1, applied_index, revision, hash }
}

#[test]
fn equal_applied_indices_mean_equal_states() {
    let verdict = |fingerprints: &[Fingerprint]| {
        let fingerprints = fingerprints.to_vec();
        let problems = judge(&Evidence { fingerprints, ..Evidence::default() }).problems;
        problems.iter().map(Problem::to_string).collect::<Vec<_>>()
    };
    let right = [look(0, 5, 3, 77), look(1, 9, 4, 88), look(1, 5, 3, 77), look(2, 9, 4, 88)];
    assert_eq!(verdict(&right), Vec::<String>::new());
    // The first difference is told, whoever looked first.
    let wrong = [look(0, 9, 4, 1), look(1, 9, 4, 2), look(2, 5, 3, 77), look(1, 5, 3, 78)];
    let text = "members agree: \n    m2 (process 1) at applied index 5: revision 3, hash \
                000000000000004e\n    m3 (process 1) at applied index 5: revision 3, hash \
                000000000000004d";
    assert_eq!(verdict(&wrong), [text]);
    assert_eq!(verdict(&[look(0, 5, 3, 77), look(1, 5, 4, 77)]).len(), 1);
    assert_eq!(verdict(&[look(0, 5, 3, 77), look(1, 6, 2, 77)]).len(), 1);
}
