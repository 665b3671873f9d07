//! Reads of ranges.

use super::*;

/// Revisions 2 to 5, and reads of everything at each moment of it.
fn store() -> Store {
    let mut store = Store::new();
    store.put(1, 10).range(0).put(2, 20).range(0).delete(1).range(0).put_both([(2, 21), (3, 30)]);
    store.range(0).range(3);
    store
}

fn after(change: impl FnOnce(&mut RangeRead)) -> Vec<&'static str> {
    let mut evidence = store().evidence();
    change(&mut evidence.records.range_reads[3]);
    promises(&evidence)
}

#[test]
fn reads_of_ranges_tell_the_state_of_their_revision() {
    let evidence = store().evidence();
    let keys = |nth: usize| {
        let pairs = &evidence.records.range_reads[nth].pairs;
        pairs.iter().map(|(key, _)| *key).collect::<Vec<Key>>()
    };
    assert_eq!([keys(0), keys(1), keys(2), keys(3)], [vec![1], vec![1, 2], vec![2], vec![2, 3]]);
    assert_eq!(keys(4), [1, 2], "an older revision");
    assert_eq!(promises(&evidence), NONE);
    assert_eq!(judge(&evidence).range_reads, 5);
    let limited = after(|read| {
        read.limit = 1;
        read.pairs.truncate(1);
    });
    assert_eq!(limited, NONE);
}

#[test]
fn wrong_answers_for_ranges_are_found() {
    let wrong = ["a read tells the state of its revision"];
    assert_eq!(after(|read| read.pairs.truncate(1)), wrong);
    assert_eq!(after(|read| drop(read.pairs.drain(0..=0))), wrong);
    assert_eq!(after(|read| read.pairs.push((9, read.pairs[0].1))), wrong);
    assert_eq!(after(|read| read.pairs.swap(0, 1)), wrong);
    assert_eq!(after(|read| read.pairs[0].1.value = 20), wrong);
    assert_eq!(after(|read| read.pairs[0].1.create += 1), wrong);
    assert_eq!(after(|read| read.pairs[0].1.modified -= 1), wrong);
    assert_eq!(after(|read| read.pairs[0].1.version += 1), wrong);
    assert_eq!(after(|read| read.count = 3), wrong);
    assert_eq!(after(|read| read.limit = 1), wrong);
}

#[test]
fn a_range_read_behind_its_time_is_found() {
    let stale = |serializable: bool, life: u16| {
        let mut evidence = store().evidence();
        let earlier = evidence.records.range_reads[1].clone();
        let read = &mut evidence.records.range_reads[3];
        (read.revision, read.pairs, read.count) = (earlier.revision, earlier.pairs, earlier.count);
        (read.serializable, read.life) = (serializable, life);
        promises(&evidence)
    };
    let goes_back = "a member's state never goes back";
    assert_eq!(stale(false, 2), ["revisions grow with time"]);
    assert_eq!(stale(true, 1), [goes_back]);
    assert_eq!(stale(true, 2), NONE);
}

#[test]
fn a_write_may_not_be_older_than_a_range_read_before_it() {
    let mut evidence = store().evidence();
    // Revision 5 had been read when its writers were called.
    let read = evidence.records.range_reads[3].clone();
    evidence.records.range_reads[2] = RangeRead { called: 0, returned: 1, life: 2, ..read };
    assert_eq!(promises(&evidence), ["revisions grow with time"]);
}
