//! Locks that two hold at once, and locks that are handed on.

use crate::{Evidence, Hold, judge};

fn hold(holder: u16, from: u64, released: u64) -> Hold {
    let (lock, lease) = (1, i64::from(holder));
    Hold { lock, holder, lease, from, promised: 100, released }
}

fn promises(holds: Vec<Hold>, early_tolerance: u64) -> Vec<&'static str> {
    let evidence = Evidence { holds, stored: vec![vec![]], early_tolerance, ..Evidence::default() };
    judge(&evidence).problems.iter().map(|problem| problem.promise).collect()
}

#[test]
fn a_lock_may_be_handed_on() {
    assert!(promises(vec![hold(1, 10, 20), hold(2, 20, 30), hold(1, 31, 300)], 0).is_empty());
}

#[test]
fn nobody_takes_a_lock_that_is_held() {
    let one_holder = vec!["a lock has one holder"];
    assert_eq!(promises(vec![hold(1, 10, 20), hold(2, 19, 30)], 0), one_holder);
    let long = vec![hold(1, 10, 90), hold(1, 20, 30), hold(2, 40, 50)];
    assert_eq!(promises(long, 0), vec!["a lock has one holder"; 2]);
}

#[test]
fn a_hold_ends_with_its_lease() {
    let holds = || vec![hold(1, 10, 200), hold(2, 99, 300)];
    assert_eq!(promises(holds(), 0), vec!["a lock has one holder"]);
    assert!(promises(holds(), 1).is_empty());
}
