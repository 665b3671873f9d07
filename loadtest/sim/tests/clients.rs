//! The clients do what they are there for: over a few worlds everything happens that the
//! judge has something to say about.

use std::collections::BTreeMap;

use castd_sim::{Profile, SECOND, Settings, run};

/// How often things happened, in a few worlds that are all well.
fn counts(profile: Profile, seeds: std::ops::Range<u64>) -> BTreeMap<&'static str, u64> {
    let mut all = BTreeMap::new();
    for seed in seeds {
        let settings = Settings { span: 8 * SECOND, ..Settings::new(seed, profile) };
        let outcome = run(&settings);
        assert!(outcome.problems.is_empty(), "seed {seed}, {profile}: {:?}", outcome.problems);
        for (what, count) in outcome.counts {
            *all.entry(what).or_default() += count;
        }
    }
    all
}

fn assert_all(happened: &BTreeMap<&'static str, u64>, expected: &[&str]) {
    let missing: Vec<&&str> =
        expected.iter().filter(|what| !happened.contains_key(**what)).collect();
    assert!(missing.is_empty(), "never happened: {missing:?}; what did: {happened:?}");
}

#[test]
fn watches_leases_locks_and_the_past_are_used() {
    let happened = counts(Profile::Wild, 0..16);
    assert_all(
        &happened,
        &[
            "watch created",
            "watch events",
            "watch progress",
            "watch cancelled",
            "watch compacted",
            "watch judged",
            "lease held",
            "lock held",
            "past read",
            "past refused",
            "compaction",
            "defragmentation",
            "lead transferred",
        ],
    );
}

#[test]
fn members_come_and_go() {
    let happened = counts(Profile::Membership, 0..16);
    let expected = [
        "member added",
        "member joined",
        "member published",
        "learner promoted",
        "member removed",
        "disk lost",
    ];
    assert_all(&happened, &expected);
}
