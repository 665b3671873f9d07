use std::collections::BTreeMap;

use bytes::Bytes;
use proptest::prelude::*;

use super::*;

fn entry(main: i64, live: bool) -> Entry {
    Entry {
        revision: Revision::new(main, 0),
        create_revision: i64::from(live),
        version: i64::from(live),
        lease: 0,
    }
}

#[derive(Clone, Debug)]
enum Step {
    Set(Vec<u8>, bool),
    Remove(Vec<u8>),
    /// Keeps a clone, which must never change.
    Keep,
}

fn key() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        (0u32..2000).prop_map(|n| format!("key/{n:06}").into_bytes()),
        prop::collection::vec(any::<u8>(), 0..4),
    ]
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        6 => (key(), prop::bool::weighted(0.8)).prop_map(|(key, live)| Step::Set(key, live)),
        3 => key().prop_map(Step::Remove),
        1 => Just(Step::Keep),
    ];
    prop::collection::vec(step, 1..1500)
}

fn check(index: &Index, model: &BTreeMap<Vec<u8>, Entry>) {
    let all: Vec<(Vec<u8>, Entry)> =
        index.iter_from(b"").map(|(key, entry)| (key.to_vec(), entry)).collect();
    let expected: Vec<(Vec<u8>, Entry)> =
        model.iter().map(|(key, entry)| (key.clone(), *entry)).collect();
    assert_eq!(all, expected);
    assert_eq!(index.live(), model.values().filter(|entry| entry.is_live()).count() as u64);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn it_behaves_as_an_ordered_map(steps in steps(), from in key(), to in key()) {
        let (mut index, mut model) = (Index::default(), BTreeMap::new());
        let mut kept = Vec::new();
        for (step, main) in steps.into_iter().zip(2..) {
            match step {
                Step::Set(key, live) => {
                    let entry = entry(main, live);
                    prop_assert_eq!(index.set(&key, entry), model.insert(key, entry));
                }
                Step::Remove(key) => prop_assert_eq!(index.remove(&key), model.remove(&key)),
                Step::Keep => kept.push((index.clone(), model.clone())),
            }
        }
        check(&index, &model);
        for (index, model) in &kept {
            check(index, model);
        }
        let range = KeyRange::Between(Bytes::from(from.clone()), Bytes::from(to.clone()));
        let inside: Vec<&Vec<u8>> =
            model.keys().filter(|key| **key >= from && **key < to).collect();
        let found: Vec<Vec<u8>> = index.iter_range(&range).map(|(key, _)| key.to_vec()).collect();
        prop_assert_eq!(found.iter().collect::<Vec<_>>(), inside);
        let live = model.iter().filter(|(k, e)| **k >= from && **k < to && e.is_live()).count();
        prop_assert_eq!(index.count(&range), live as u64);
        prop_assert_eq!(index.get(&from), model.get(&from).copied());
    }
}

#[test]
fn keys_in_order_fill_their_leaves() {
    let mut index = Index::default();
    for n in 0..100_000u32 {
        index.set(format!("{n:08}").as_bytes(), entry(2, true));
    }
    assert_eq!(index.live(), 100_000);
    assert_eq!(index.rank(b"00050000"), 50_000);
    let all = KeyRange::From(Bytes::from_static(b"00099990"));
    assert_eq!(index.count(&all), 10);
}

#[test]
fn removing_everything_leaves_an_empty_tree() {
    let mut index = Index::default();
    for n in 0..10_000u32 {
        index.set(&n.to_be_bytes(), entry(2, n % 3 != 0));
    }
    for n in 0..10_000u32 {
        assert!(index.remove(&n.to_be_bytes()).is_some());
    }
    assert_eq!(index.iter_from(b"").count(), 0);
    assert_eq!(index.live(), 0);
}
