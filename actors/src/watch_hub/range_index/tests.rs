//! The index against a list.

use std::collections::BTreeMap;

use bytes::Bytes;
use proptest::prelude::*;

use super::*;

/// An index, and the keys that its owner has.
#[derive(Debug, Default)]
struct Owned {
    index: RangeIndex,
    keys: BTreeMap<u32, Bytes>,
}

impl Owned {
    fn get(&self, range: &KeyRange) -> Option<u32> {
        self.index.get(range, |number| &self.keys[&number])
    }

    fn insert(&mut self, range: &KeyRange, number: u32) {
        if let KeyRange::Single(key) = range {
            self.keys.insert(number, key.clone());
        }
        self.index.insert(range, number);
    }

    fn remove(&mut self, range: &KeyRange) -> Option<u32> {
        let number = self.index.remove(range, |number| &self.keys[&number])?;
        self.keys.remove(&number);
        Some(number)
    }

    fn find(&self, key: &[u8]) -> Vec<u32> {
        let mut found = Vec::new();
        self.index.each(key, |number| &self.keys[&number], |number| found.push(number));
        found.sort_unstable();
        found
    }

    fn check_singles(&self) {
        self.index.singles.check(|number| &self.keys[&number]);
    }
}

#[derive(Clone, Debug)]
enum Step {
    Add(KeyRange),
    Remove(KeyRange),
    /// Removes the range at this place of the list, if there is one.
    RemoveAt(prop::sample::Index),
    Find(Bytes),
}

/// Few letters and short words, so that much is equal, nested or adjacent.
fn key() -> impl Strategy<Value = Bytes> {
    let letter = prop_oneof![Just(0u8), Just(b'a'), Just(b'b'), Just(0xff)];
    prop::collection::vec(letter, 0..4).prop_map(Bytes::from)
}

fn range() -> impl Strategy<Value = KeyRange> {
    prop_oneof![
        2 => key().prop_map(KeyRange::Single),
        5 => (key(), key()).prop_map(|(from, to)| KeyRange::Between(from, to)),
        1 => key().prop_map(KeyRange::From),
    ]
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => range().prop_map(Step::Add),
        1 => range().prop_map(Step::Remove),
        4 => any::<prop::sample::Index>().prop_map(Step::RemoveAt),
        4 => key().prop_map(Step::Find),
    ]
}

#[derive(Debug, Default)]
struct List(Vec<(KeyRange, u32)>);

impl List {
    fn get(&self, range: &KeyRange) -> Option<u32> {
        self.0.iter().find(|(other, _)| other == range).map(|(_, number)| *number)
    }

    fn remove(&mut self, range: &KeyRange) -> Option<u32> {
        let at = self.0.iter().position(|(other, _)| other == range)?;
        Some(self.0.swap_remove(at).1)
    }

    fn find(&self, key: &[u8]) -> Vec<u32> {
        let mut found: Vec<u32> =
            self.0.iter().filter(|(range, _)| range.contains(key)).map(|(_, n)| *n).collect();
        found.sort_unstable();
        found
    }
}

fn take_step(index: &mut Owned, list: &mut List, number: u32, step: Step) {
    match step {
        Step::Add(range) => {
            assert_eq!(index.get(&range), list.get(&range));
            if list.get(&range).is_none() {
                index.insert(&range, number);
                list.0.push((range, number));
            }
        }
        Step::Remove(range) => assert_eq!(index.remove(&range), list.remove(&range)),
        Step::RemoveAt(at) if !list.0.is_empty() => {
            let (range, number) = list.0.swap_remove(at.index(list.0.len()));
            assert_eq!(index.remove(&range), Some(number));
        }
        Step::RemoveAt(_) => {}
        Step::Find(key) => assert_eq!(index.find(&key), list.find(&key)),
    }
    assert_eq!(index.index.len(), list.0.len());
}

/// Shape, and every range in its place.
fn check(index: &Owned, list: &List) {
    let mut expected: Vec<Bounds<'_>> =
        list.0.iter().filter_map(|(range, _)| bounds(range).ok()).collect();
    expected.sort_unstable();
    assert_eq!(index.index.ranges.check(), expected);
    for (range, number) in &list.0 {
        assert_eq!(index.get(range), Some(*number));
    }
}

proptest! {
    #[test]
    fn the_index_finds_what_a_list_finds(steps in prop::collection::vec(step(), 1..300)) {
        let (mut index, mut list) = (Owned::default(), List::default());
        for (number, step) in (0..).zip(steps) {
            take_step(&mut index, &mut list, number, step);
            index.index.ranges.check();
            index.check_singles();
        }
        check(&index, &list);
        for (range, _) in &list.0 {
            prop_assert_eq!(index.find(range.start()), list.find(range.start()));
        }
        prop_assert_eq!(index.find(b""), list.find(b""));
    }
}

fn range_of(from: &str, to: &str) -> KeyRange {
    KeyRange::Between(Bytes::from(from.to_owned()), Bytes::from(to.to_owned()))
}

#[test]
fn ranges_that_come_and_go_in_order_keep_the_tree_low() {
    for rising in [true, false] {
        let (mut index, mut list) = (Owned::default(), List::default());
        for step in 0..2000u32 {
            let number = if rising { step } else { 2000 - step };
            let range = range_of(&format!("{number:05}"), &format!("{:05}", number + 1));
            index.insert(&range, number);
            list.0.push((range, number));
        }
        check(&index, &list);
        for key in ["00000", "00100x", "01999", "02001"] {
            assert_eq!(index.find(key.as_bytes()), list.find(key.as_bytes()));
        }
        for (range, number) in list.0.split_off(10) {
            assert_eq!(index.remove(&range), Some(number));
        }
        check(&index, &list);
    }
}

#[test]
fn nested_ranges_are_found_all_and_only_where_they_reach() {
    let mut index = Owned::default();
    for number in 0..1000u32 {
        let (from, to) = (format!("a{number:04}"), format!("z{:04}", 1000 - number));
        index.insert(&range_of(&from, &to), number);
    }
    index.index.ranges.check();
    assert_eq!(index.find(b"a0004"), [0, 1, 2, 3, 4]);
    assert_eq!(index.find(b"z0997"), [0, 1, 2]);
    assert_eq!(index.find(b"m").len(), 1000);
    assert_eq!(index.find(b"z1000"), [] as [u32; 0]);
}

#[test]
fn many_keys_come_and_go_in_any_order() {
    let mut index = Owned::default();
    let key = |number: u32| Bytes::from(format!("key/{}", number.wrapping_mul(2_654_435_761)));
    for number in 0..3000 {
        index.insert(&KeyRange::Single(key(number)), number);
        if number % 3 == 2 {
            assert_eq!(index.remove(&KeyRange::Single(key(number / 3))), Some(number / 3));
        }
    }
    index.check_singles();
    for number in 0..3000 {
        let expected = if number < 1000 { vec![] } else { vec![number] };
        assert_eq!(index.find(&key(number)), expected);
    }
}

#[test]
fn an_empty_index_finds_nothing_and_keeps_no_memory() {
    let mut index = Owned::default();
    assert_eq!((index.find(b"a"), index.index.len()), (vec![], 0));
    let key = |number: u32| Bytes::from(number.to_string());
    for number in 0..5000 {
        index.insert(&KeyRange::Single(key(number)), number);
        index.insert(&KeyRange::From(key(number)), 5000 + number);
    }
    assert_eq!(index.index.len(), 10_000);
    for number in 0..5000 {
        assert_eq!(index.remove(&KeyRange::Single(key(number))), Some(number));
        assert_eq!(index.remove(&KeyRange::From(key(number))), Some(5000 + number));
    }
    assert_eq!(index.index.len(), 0);
    assert!(index.index.singles.is_small() && index.index.ranges.check().is_empty());
}
