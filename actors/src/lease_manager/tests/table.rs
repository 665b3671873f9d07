//! The table of ends.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;

const NONE: [i64; 0] = [];

#[test]
fn a_lease_ends_when_it_was_not_kept_alive() {
    let mut core = leader();
    core.change(granted(1, 10), 0);
    assert_eq!(core.keep_alive(1, 9_000), KeepAlive::Renewed(10));
    assert_eq!(core.time_to_live(1, 17_500).map(|left| left.ttl_s), Some(1));
    assert_eq!(core.expired(18_999), NONE);
    assert_eq!(core.expired(19_000), [1]);
    assert_eq!(core.keep_alive(1, 19_000), KeepAlive::Ending, "it is on its way out");
    assert_eq!(core.expired(19_500), NONE, "once is enough");
    core.change(revoked(1), 19_600);
    assert_eq!(core.keep_alive(1, 19_700), KeepAlive::Unknown);
    assert_eq!((core.len(), core.in_flight()), (0, 0));
}

#[test]
fn a_lease_whose_end_nobody_proposed_yet_can_still_be_renewed() {
    let mut core = leader();
    core.change(granted(1, 10), 0);
    assert_eq!(core.keep_alive(1, 10_200), KeepAlive::Renewed(10));
    assert_eq!(core.expired(20_199), NONE);
}

#[test]
fn a_failed_revocation_is_tried_again() {
    let mut core = leader();
    core.change(granted(1, 1), 0);
    assert_eq!(core.expired(1_000), [1]);
    core.revoke_failed(1);
    assert_eq!(core.expired(1_500), [1]);
}

#[test]
fn only_a_leader_ends_leases_and_a_new_one_gives_them_time() {
    let mut core = LeaseCore::new(patient(), [(1, 10, 0), (2, 10, 3)], 0);
    assert_eq!(core.expired(60_000), NONE);
    core.lead(Some(2), 60_000);
    assert_eq!(core.expired(63_999), NONE);
    assert_eq!(core.expired(64_000), [2], "three seconds were left, and the grace");
    assert_eq!(core.expired(71_000), [1]);
}

#[test]
fn who_leads_again_starts_over_if_another_led_meanwhile() {
    let mut core = leader();
    core.change(granted(1, 10), 0);
    core.lead(Some(1), 9_000);
    assert_eq!(core.time_to_live(1, 9_000).map(|left| left.ttl_s), Some(1));
    core.lead(Some(3), 9_000);
    assert_eq!(core.time_to_live(1, 9_000).map(|left| left.ttl_s), Some(11));
}

#[test]
fn a_storm_is_paced() {
    let mut core = leader();
    (0..1000).for_each(|id| core.change(granted(id, 1), 0));
    assert_eq!(core.expired(5_000).len(), 16);
    assert_eq!(core.expired(5_500).len(), 0, "sixteen are under way");
    (0..16).for_each(|id| core.change(revoked(id), 6_000));
    assert_eq!(core.expired(6_000).len(), 16);
    let mut ended = 32;
    loop {
        (0..ended).for_each(|id| core.change(revoked(id), 6_000));
        match core.expired(6_000).len() {
            0 => break,
            more => ended += more as i64,
        }
    }
    assert_eq!(ended, 500, "no more in one tick");
    core.tick();
    assert_eq!(core.expired(6_500).len(), 16);
}

#[test]
fn what_would_end_together_after_an_election_is_spread() {
    let leases = (0..2000).map(|id| (id, 10, 0));
    let mut core = LeaseCore::new(patient(), leases, 0);
    core.lead(Some(1), 0);
    let within = |core: &mut LeaseCore, seconds: i64| {
        let left = |id| core.time_to_live(id, 0).expect("it is there").ttl_s;
        (0..2000).map(left).filter(|left| *left == seconds).count()
    };
    let counts: Vec<usize> = (10..15).map(|seconds| within(&mut core, seconds)).collect();
    assert_eq!(counts, [0, 750, 750, 500, 0]);
}

#[test]
fn remaining_time_is_noted_for_leases_that_have_long() {
    let mut core = leader();
    core.change(granted(1, 3600), 0);
    core.change(granted(2, 300), 0);
    assert_eq!(core.checkpoints(299_999), []);
    assert_eq!(core.checkpoints(300_000), [(1, 3300)]);
    assert_eq!(core.checkpoints(300_500), []);
    assert_eq!(core.checkpoints(600_000), [(1, 3000)]);
    core.change(LeaseChange::Remaining { id: 1, remaining_s: 3000 }, 600_100);
    core.lead(None, 600_200);
    assert_eq!(core.checkpoints(10_000_000), [], "a follower notes nothing");
    core.lead(Some(5), 700_000);
    assert_eq!(core.time_to_live(1, 700_000).map(|left| left.ttl_s), Some(3001));
}

#[test]
fn the_log_must_forget_a_checkpoint_before_the_lease_is_renewed() {
    let mut core = leader();
    core.change(granted(1, 3600), 0);
    assert_eq!(core.checkpoints(300_000), [(1, 3300)]);
    assert_eq!(core.keep_alive(1, 300_001), KeepAlive::Checkpointed, "it may be in the log");
    core.change(LeaseChange::Remaining { id: 1, remaining_s: 3300 }, 300_002);
    assert_eq!(core.keep_alive(1, 300_003), KeepAlive::Checkpointed);
    core.uncheckpointed(1);
    assert_eq!(core.keep_alive(1, 300_004), KeepAlive::Renewed(3600));
    core.change(LeaseChange::Remaining { id: 1, remaining_s: 0 }, 300_005);
    assert_eq!(core.keep_alive(1, 300_006), KeepAlive::Renewed(3600));
}

#[test]
fn checkpoints_come_in_batches() {
    let mut core = leader();
    (0..2500).for_each(|id| core.change(granted(id, 3600), 0));
    let sizes: Vec<usize> = (0..4).map(|_| core.checkpoints(300_000).len()).collect();
    assert_eq!(sizes, [1000, 1000, 500, 0]);
}

#[test]
fn nothing_ends_because_the_member_stood_still() {
    let mut core = LeaseCore::new(LeaseSettings::default(), [], 0);
    core.lead(Some(1), 0);
    (0..100).for_each(|id| core.change(granted(id, 10), 0));
    assert_eq!(core.expired(1_000), NONE);
    // Stopped for an hour.
    let hour = 3_600_000;
    assert_eq!(core.expired(hour), NONE);
    assert_eq!(core.keep_alive(1, hour + 100), KeepAlive::Renewed(10));
    let mut now = hour;
    while core.expired(now).is_empty() {
        now += 500;
    }
    assert_eq!(now, hour + 9_000, "the second before the stop has counted");
}

#[test]
fn another_state_replaces_everything() {
    let mut core = leader();
    (0..20).for_each(|id| core.change(granted(id, 1), 0));
    assert_eq!(core.expired(2_000).len(), 16);
    core.reset([(1, 10, 0), (40, 3600, 1800)], 2_000);
    assert_eq!((core.len(), core.in_flight()), (2, 0));
    core.revoke_failed(1);
    assert_eq!(core.in_flight(), 0);
    assert_eq!(core.list(None, 3), [(13_000, 1), (1_803_000, 40)]);
    assert_eq!(core.keep_alive(40, 2_000), KeepAlive::Checkpointed);
    assert_eq!(core.expired(13_000), [1]);
}

/// A leader that needs many steps for its promotion, at its beginning.
fn promoting(leases: impl IntoIterator<Item = (i64, i64, i64)>, step: usize) -> LeaseCore {
    let settings = LeaseSettings { leases_per_step: step, ..patient() };
    let mut core = LeaseCore::new(settings, leases, 0);
    core.lead(Some(1), 0);
    core
}

/// The steps that a promotion takes to its end.
fn promote(core: &mut LeaseCore) -> usize {
    let mut steps = 0;
    while core.has_work() {
        core.step();
        steps += 1;
    }
    steps
}

#[test]
fn a_promotion_is_bounded_work_and_no_lease_waits_for_it() {
    let mut core = promoting((0..1000).map(|id| (id, 10, 0)), 10);
    assert!(core.has_work());
    assert_eq!(core.time_to_live(999, 500).map(|left| left.ttl_s), Some(10));
    assert_eq!(core.keep_alive(999, 5_000), KeepAlive::Renewed(10));
    core.change(granted(1000, 2), 5_000);
    core.change(revoked(998), 5_000);
    let due: Vec<i64> = [1000].into_iter().chain(0..10).collect();
    assert_eq!(core.expired(11_000), due, "the others come later");
    assert_eq!(core.keep_alive(500, 11_000), KeepAlive::Renewed(10), "later than it was to end");
    assert_eq!(promote(&mut core), 100);
    for id in core.expired(11_000) {
        assert!((10..16).contains(&id), "{id}");
    }
    assert_eq!(core.time_to_live(999, 11_000).map(|left| left.ttl_s), Some(4));
    assert_eq!(core.time_to_live(500, 11_000).map(|left| left.ttl_s), Some(10));
}

#[test]
fn a_promotion_that_is_overtaken_leaves_nothing() {
    let mut core = promoting((0..100).map(|id| (id, 10, 0)), 10);
    core.step();
    core.lead(None, 1_000);
    assert_eq!(promote(&mut core), 1, "twenty ends were written down");
    core.lead(Some(5), 20_000);
    promote(&mut core);
    assert_eq!(core.expired(30_999), NONE);
    assert_eq!(core.expired(31_000).len(), 16);
    core.reset((0..100).map(|id| (id, 10, 0)), 40_000);
    assert_eq!((core.len(), core.in_flight()), (100, 0));
    promote(&mut core);
    assert_eq!(core.expired(50_999), NONE);
    assert_eq!(core.expired(51_000).len(), 16);
}

#[test]
fn a_checkpoint_that_was_on_its_way_is_none_of_the_next_leaders() {
    let mut core = promoting([(1, 10, 0), (2, 3600, 0)], 1);
    promote(&mut core);
    assert_eq!(core.checkpoints(300_000), [(2, 3301)]);
    assert_eq!(core.keep_alive(2, 300_000), KeepAlive::Checkpointed);
    core.lead(Some(3), 300_001);
    assert_eq!(core.keep_alive(2, 300_002), KeepAlive::Renewed(3600));
    // It comes all the same, before the promotion has come to its lease.
    core.lead(Some(5), 300_003);
    core.change(LeaseChange::Remaining { id: 2, remaining_s: 3301 }, 300_004);
    assert_eq!(core.keep_alive(2, 300_004), KeepAlive::Checkpointed);
    assert_eq!(core.time_to_live(2, 300_004).map(|left| left.ttl_s), Some(3600));
    assert_eq!(core.checkpoints(600_002), []);
    assert_eq!(core.checkpoints(600_003), [(2, 3301)]);
}

#[test]
fn leases_are_listed_in_pieces() {
    let mut core = promoting((1..=5).map(|id| (id, 10 * id, 0)), 2);
    core.keep_alive(5, 1_000);
    assert_eq!(core.list(None, 2), [(11_000, 1), (21_000, 2)]);
    assert_eq!(core.list(Some(2), 2), [(31_000, 3), (41_000, 4)]);
    assert_eq!(core.list(Some(4), 2), [(51_000, 5)]);
    assert_eq!(core.list(Some(i64::MAX), 2), []);
}

proptest! {
    /// In how many steps a promotion comes changes nothing that can be asked for.
    #[test]
    fn the_steps_of_a_promotion_cannot_be_seen(
        leases in prop::collection::btree_map(0i64..30, (1i64..700, 0i64..400), 0..30),
        steps in prop::collection::vec((0i64..32, 0u8..7, 1u64..40_000), 1..60),
        step in 1usize..4,
    ) {
        let leases = leases.into_iter().map(|(id, (ttl_s, left_s))| (id, ttl_s, left_s));
        let leases: Vec<_> = leases.collect();
        let mut slow = promoting(leases.clone(), step);
        let mut quick = promoting(leases, usize::MAX);
        let mut now = 0;
        for (id, what, later) in steps {
            now += later;
            for core in [&mut slow, &mut quick] {
                match what {
                    0 => core.change(revoked(id), now),
                    1 => core.change(LeaseChange::Remaining { id, remaining_s: 0 }, now),
                    2 => core.change(LeaseChange::Remaining { id, remaining_s: 7 }, now),
                    3 => core.lead(Some(now), now),
                    _ => {}
                }
            }
            if what == 4 {
                prop_assert_eq!(slow.keep_alive(id, now), quick.keep_alive(id, now));
            }
            if what == 5 {
                slow.step();
            }
            prop_assert_eq!(slow.time_to_live(id, now), quick.time_to_live(id, now));
            prop_assert_eq!(slow.list(None, 32), quick.list(None, 32));
        }
        promote(&mut slow);
        prop_assert_eq!(slow.expired(now), quick.expired(now));
        prop_assert_eq!(slow.checkpoints(now), quick.checkpoints(now));
    }
}

proptest! {
    #[test]
    fn nothing_ends_early_and_everything_ends(
        steps in prop::collection::vec((0i64..8, 1i64..20, 0u8..3), 1..200),
    ) {
        let mut core = leader();
        let mut ends = BTreeMap::new();
        let mut now = 0;
        for (id, ttl_s, what) in steps {
            now += 700;
            core.tick();
            match what {
                0 if !ends.contains_key(&id) => {
                    core.change(granted(id, ttl_s), now);
                    ends.insert(id, now + 1000 * ttl_s as u64);
                }
                1 => if let KeepAlive::Renewed(ttl_s) = core.keep_alive(id, now) {
                    ends.insert(id, now + 1000 * ttl_s as u64);
                },
                _ => {}
            }
            for id in core.expired(now) {
                let end = ends.remove(&id).expect("it was there");
                prop_assert!(end <= now, "lease {} ended early", id);
                core.change(revoked(id), now);
            }
        }
        while core.len() > 0 {
            now += 1000;
            core.tick();
            prop_assert!(now < 1_000_000);
            for id in core.expired(now) {
                core.change(revoked(id), now);
            }
        }
    }
}
