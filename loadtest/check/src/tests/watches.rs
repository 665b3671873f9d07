//! Watchers: what they are told, and what it says about itself.

use super::*;

/// Revisions 2 to 6: two keys written in turn, a deletion, and both written at once.
fn store() -> Store {
    let mut store = Store::new();
    store.put(1, 10).put(2, 20).delete(1).put(1, 11).put_both([(1, 12), (2, 21)]);
    store
}

fn created(revision: i64) -> Response {
    Response::Created { revision }
}

fn told(events: &[Event]) -> Response {
    let revision = events.last().unwrap().revision;
    Response::Events { revision, events: events.to_vec(), fragment: false }
}

/// The verdict about a watch with some responses.
fn verdict(asked: &Asked, responses: &[Response]) -> Result<(), String> {
    judged(|stretch| {
        stretch.asked = asked.clone();
        stretch.responses = responses.to_vec();
    })
}

fn judged(change: impl FnOnce(&mut Stretch)) -> Result<(), String> {
    let mut evidence = store().evidence();
    let mut stretch = Stretch::new(1, "test", 0, Asked::all(0..=9, 1));
    change(&mut stretch);
    evidence.sightings.stretches = vec![stretch];
    verdict_of(&evidence)
}

fn verdict_of(evidence: &Evidence) -> Result<(), String> {
    let mut problems = judge(evidence).problems;
    let Some(problem) = problems.pop() else { return Ok(()) };
    assert_eq!((problem.promise, problems), ("watch", Vec::new()));
    Err(problem.text)
}

fn assert_broken(verdict: Result<(), String>, words: &str) {
    let text = verdict.expect_err(words);
    assert!(text.contains(words), "{text}");
}

#[test]
fn all_events_in_one_or_in_many_responses_are_right() {
    let events = store().events;
    let all = Asked::all(0..=9, 1);
    assert_eq!(verdict(&all, &[]), Ok(()));
    assert_eq!(verdict(&all, &[created(1), told(&events)]), Ok(()));
    let mut single: Vec<_> = events[..4].chunks(1).map(told).collect();
    single.insert(0, created(9));
    single.push(told(&events[4..]));
    assert_eq!(verdict(&all, &single), Ok(()));
    // From the third revision on, or from a revision that shows in the creation.
    assert_eq!(verdict(&Asked::all(0..=9, 4), &[created(6), told(&events[2..])]), Ok(()));
    assert_eq!(verdict(&Asked::all(0..=9, 0), &[created(3), told(&events[2..])]), Ok(()));
}

#[test]
fn filters_ranges_and_previous_keys_are_right() {
    let events = store().events;
    let of_two = Asked::all(2..=2, 1);
    assert_eq!(verdict(&of_two, &[created(1), told(&[events[1], events[5]])]), Ok(()));
    let puts = Asked { no_delete: true, ..Asked::all(1..=1, 1) };
    let responses = [created(1), told(&[events[0], events[3]]), told(&[events[4]])];
    assert_eq!(verdict(&puts, &responses), Ok(()));
    let deletes = Asked { no_put: true, prev_kv: false, ..Asked::all(1..=1, 1) };
    let bare = Event { before: None, ..events[2] };
    assert_eq!(verdict(&deletes, &[created(1), told(&[bare])]), Ok(()));

    assert_broken(verdict(&deletes, &[created(1), told(&events[2..3])]), "the key before");
    let with_bare = |bare| told(&[events[0], events[1], bare]);
    assert_broken(verdict(&Asked::all(0..=9, 1), &[created(1), with_bare(bare)]), "the key before");
    assert_broken(verdict(&of_two, &[created(1), told(&events[..1])]), "nobody asked for");
    assert_broken(verdict(&puts, &[created(1), told(&[events[0], events[2]])]), "nobody asked");
}

#[test]
fn falsified_streams_are_found() {
    let events = store().events;
    let broken = |change: &dyn Fn(&mut Vec<Event>), words: &str| {
        let mut events = events.clone();
        change(&mut events);
        assert_broken(verdict(&Asked::all(0..=9, 2), &[created(1), told(&events)]), words);
    };
    broken(&|events| drop(events.drain(0..=0)), "an event is missing");
    broken(&|events| drop(events.drain(2..=2)), "an event is missing");
    broken(&|events| events.swap(1, 2), "an event is missing");
    broken(&|events| events.insert(1, events[0]), "came twice");
    broken(&|events| events.push(events[5]), "came twice");
    broken(&|events| events[1].now = events[0].now, "an event differs");
    broken(&|events| events[5].revision = 7, "not stored");
    broken(&|events| events.truncate(5), "came in parts");
    broken(&|events| events.swap(4, 5), "in another order");
    broken(&|events| drop(events.drain(..3)), "an event is missing");
}

#[test]
fn fragments_say_that_more_comes() {
    let events = store().events;
    let parts = |more: bool| {
        judged(|stretch| {
            let first =
                Response::Events { revision: 6, events: events[..5].into(), fragment: more };
            stretch.responses = vec![created(1), first, told(&events[5..])];
            stretch.must_be_complete_to = Some(6);
        })
    };
    assert_eq!(parts(true), Ok(()));
    assert_broken(parts(false), "came in parts");
    let open = |upto| {
        judged(|stretch| {
            let first = Response::Events { revision: 6, events: events.clone(), fragment: true };
            stretch.responses = vec![created(1), first];
            stretch.must_be_complete_to = upto;
        })
    };
    assert_eq!(open(None), Ok(()));
    assert_broken(open(Some(6)), "never came to its end");
}

#[test]
fn progress_is_a_promise() {
    let events = store().events;
    let all = Asked::all(0..=9, 1);
    let progress = |revision| Response::Progress { revision };
    let right = [created(1), progress(1), told(&events[..2]), progress(3), told(&events[2..])];
    assert_eq!(verdict(&all, &right), Ok(()));
    let ahead = [created(1), told(&events[..2]), progress(4), told(&events[2..])];
    assert_broken(verdict(&all, &ahead), "progress told to revision 4");
    // The key asked for did not change in between.
    let quiet = [created(1), told(&events[1..2]), progress(5), told(&events[5..])];
    assert_eq!(verdict(&Asked::all(2..=2, 1), &quiet), Ok(()));
    let old_header = Response::Events { revision: 3, events, fragment: false };
    assert_broken(verdict(&all, &[created(1), old_header]), "the header");
}

#[test]
fn the_course_of_a_watch_is_kept() {
    let events = store().events;
    let all = Asked::all(0..=9, 1);
    assert_broken(verdict(&all, &[told(&events)]), "before its creation");
    assert_broken(verdict(&all, &[created(1), created(1)]), "created twice");
    let end = || Response::Canceled { compact_revision: 0, reason: "asked for".into() };
    assert_eq!(verdict(&all, &[created(1), end()]), Ok(()));
    assert_broken(verdict(&all, &[created(1), end(), told(&events)]), "behind its end");
    let empty = Response::Events { revision: 1, events: Vec::new(), fragment: false };
    assert_broken(verdict(&all, &[created(1), empty]), "none told");
}

#[test]
fn cancelled_for_a_compaction_only_with_reason() {
    let events = store().events;
    let cancelled = |compacted, compact_revision| {
        let mut evidence = store().evidence();
        evidence.compacted = compacted;
        let mut stretch = Stretch::new(1, "test", 0, Asked::all(0..=9, 1));
        let end = Response::Canceled { compact_revision, reason: String::new() };
        stretch.responses = vec![created(1), told(&events[..2]), end];
        evidence.sightings.stretches = vec![stretch];
        verdict_of(&evidence)
    };
    assert_eq!(cancelled(5, 5), Ok(()));
    assert_broken(cancelled(5, 4), "it had come to revision 4");
    assert_broken(cancelled(0, 5), "which was not");
}

#[test]
fn keys_before_a_compaction_may_be_lost() {
    let mut events = store().events;
    events[2].before = None;
    let told_with = |compacted| {
        let mut evidence = store().evidence();
        evidence.compacted = compacted;
        let mut stretch = Stretch::new(1, "test", 0, Asked::all(0..=9, 1));
        stretch.responses = vec![created(1), told(&events)];
        evidence.sightings.stretches = vec![stretch];
        verdict_of(&evidence)
    };
    assert_eq!(told_with(4), Ok(()));
    assert_broken(told_with(3), "the key before it differs");
}

#[test]
fn in_the_end_everything_has_come() {
    let events = store().events;
    let complete = |responses: &[Response], upto| {
        judged(|stretch| {
            stretch.responses = responses.to_vec();
            stretch.must_be_complete_to = Some(upto);
        })
    };
    assert_eq!(complete(&[created(1), told(&events)], 6), Ok(()));
    assert_eq!(complete(&[created(1), told(&events[..2])], 3), Ok(()));
    assert_broken(complete(&[created(1), told(&events[..2])], 4), "it still lacks");
    assert_broken(complete(&[], 1), "never created");
    let end = Response::Canceled { compact_revision: 0, reason: "no leader".into() };
    assert_broken(complete(&[created(1), told(&events), end], 6), "it was cancelled");
}

#[test]
fn resumed_watches_leave_nothing_out() {
    let events = store().events;
    let resumed = |first| {
        let mut evidence = store().evidence();
        let mut one = Stretch::new(1, "test", 0, Asked::all(0..=9, 0));
        one.responses = vec![created(1), told(&events[..2])];
        let mut two = Stretch::new(1, "test", 1, Asked::all(0..=9, first));
        two.resumes = true;
        let place = (first - 2) as usize;
        two.responses = vec![created(6), told(&events[place..])];
        assert_eq!((one.next(), two.next()), (Some(4), Some(7)));
        evidence.sightings.stretches = vec![one, two];
        verdict_of(&evidence)
    };
    assert_eq!(resumed(4), Ok(()));
    assert_broken(resumed(5), "resumed at revision 5 instead of 4");
    assert_broken(resumed(3), "resumed at revision 3 instead of 4");
}
