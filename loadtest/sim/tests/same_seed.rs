//! A seed is a world: run again, in whatever thread and company, it is the same to the byte.

use castd_sim::{Outcome, Profile, SECOND, Settings, run};

fn settings(seed: u64, profile: Profile) -> Settings {
    Settings { span: 4 * SECOND, verbose: true, ..Settings::new(seed, profile) }
}

fn in_a_thread(settings: Settings) -> Outcome {
    std::thread::spawn(move || run(&settings)).join().expect("a world goes on")
}

fn assert_same(one: &Outcome, other: &Outcome) {
    let what = one.seed;
    let differs = one.story.iter().zip(&other.story).find(|(one, other)| one != other);
    assert_eq!(differs, None, "{what}");
    assert_eq!(one.story.len(), other.story.len(), "{what}");
    assert_eq!(one.history, other.history, "{what}");
    assert_same_but_for_the_story(one, other);
}

fn assert_same_but_for_the_story(one: &Outcome, other: &Outcome) {
    let what = one.seed;
    assert_eq!((one.digest, one.steps), (other.digest, other.steps), "{what}");
    assert_eq!((one.ended, &one.plan), (other.ended, &other.plan), "{what}");
    assert_eq!((&one.counts, &one.messages), (&other.counts, &other.messages), "{what}");
    assert_eq!((&one.turns, &one.calls), (&other.turns, &other.calls), "{what}");
    assert_eq!(one.problems, other.problems, "{what}");
}

fn check(profile: Profile) {
    for seed in [1, 2] {
        let settings = settings(seed, profile);
        let one = run(&settings);
        assert!(!one.story.is_empty() && !one.history.is_empty() && one.calls.ok > 0);
        assert_same(&one, &in_a_thread(settings.clone()));
        let untold = run(&Settings { verbose: false, ..settings });
        assert!(untold.story.is_empty() && untold.history.is_empty());
        assert_same_but_for_the_story(&one, &untold);
    }
}

#[test]
fn quiet() {
    check(Profile::Quiet);
}

#[test]
fn wild() {
    check(Profile::Wild);
}

#[test]
fn disk() {
    check(Profile::Disk);
}

#[test]
fn membership() {
    check(Profile::Membership);
}

#[test]
fn other_seeds_are_other_worlds() {
    let (one, other) = (run(&settings(1, Profile::Wild)), run(&settings(2, Profile::Wild)));
    assert_ne!(one.digest, other.digest);
    assert_ne!(one.history, other.history);
}
