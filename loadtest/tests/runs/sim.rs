//! `sim`: simulated clusters, told.

use std::process::Output;

use serde_json::Value;

use crate::support::loadtest;

fn json(words: &str) -> (Output, Value) {
    let output = loadtest(&format!("{words} --json"));
    let report = serde_json::from_slice(&output.stdout)
        .unwrap_or_else(|_| panic!("{}", String::from_utf8_lossy(&output.stderr)));
    (output, report)
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

#[test]
fn seeds_are_summed_up() {
    let (output, report) = json("sim --seeds 4 --from 4 --span 2");
    assert_eq!(output.status.code(), Some(0), "{report}");
    assert_eq!((&report["seeds"], &report["from"]), (&4.into(), &4.into()), "{report}");
    for profile in ["quiet", "wild", "disk", "membership"] {
        assert_eq!(report["worlds"][profile], 1, "{report}");
    }
    assert!(report["operations"]["ok"].as_u64().unwrap() > 100, "{report}");
    assert!(report["judged"]["operations"].as_u64().unwrap() > 100, "{report}");
    assert!(report["states"]["leader elected"].as_u64().unwrap() >= 4, "{report}");
    assert!(report["messages"]["Append"].as_u64().unwrap() > 100, "{report}");
    assert!(report["turns"]["RaftNode"].as_u64().unwrap() > 100, "{report}");
    assert!(report["virtual_hours"].as_f64().unwrap() > 8.0 / 3600.0, "{report}");
    assert_eq!(report["failures"], Value::Array(vec![]), "{report}");
    assert!(text(&output.stderr).contains("all promises held"));
}

#[test]
fn threads_and_turns_do_not_matter() {
    let digest = |words: &str| json(words).1["digest"].as_str().unwrap().to_owned();
    let one = digest("sim --seeds 4 --span 2 --jobs 1");
    assert_eq!(one, digest("sim --seeds 4 --span 2 --jobs 4"));
    assert_ne!(one, digest("sim --seeds 4 --from 1 --span 2"));
}

#[test]
fn a_replay_is_the_same_to_the_byte() {
    let tell = || loadtest("sim --seed 5 --span 3 --verbose");
    let (one, other) = (tell(), tell());
    assert_eq!(one.status.code(), Some(0));
    assert_eq!(one.stdout, other.stdout);
    let told = text(&one.stdout);
    let parts = ["seed 5, wild, 3 s", "== plan", " leads in term ", "== history", "digest"];
    for part in parts {
        assert!(told.contains(part), "{part}: {told}");
    }
    assert!(!told.contains("real time"), "{told}");
    assert!(text(&one.stderr).contains("real time"));
}

/// What a replay tells under "story" of faults.
fn faults_told(told: &str) -> usize {
    let story = told.split("== story").nth(1).unwrap().split("== history").next().unwrap();
    story.lines().filter(|line| line.contains(" == ")).count()
}

#[test]
fn faults_are_left_out() {
    let tell = |seed: u64, more: &str| {
        let words = format!("sim --seed {seed} --profile wild --span 5 --verbose {more}");
        text(&loadtest(&words).stdout)
    };
    let mut told = (0..50).map(|seed| (seed, tell(seed, "")));
    let (seed, with) = told.find(|(_, told)| faults_told(told) > 1).unwrap();
    assert!(!with.contains("(left out)"), "{with}");
    let without = tell(seed, "--without 0-99");
    assert!(without.contains("(left out)"), "{without}");
    assert_eq!(faults_told(&without), 1, "only that everything is mended: {without}");
}

#[test]
fn time_is_limited() {
    let (output, report) = json("sim --seeds 1m --span 2 --jobs 1 --time-limit 1ms");
    assert_eq!(output.status.code(), Some(0));
    assert!(report["seeds"].as_u64().unwrap() <= 1, "{report}");
    assert_eq!(report["seeds_wanted"], 1_000_000, "{report}");
    assert!(text(&output.stderr).contains("of 1000000 seeds"));
}

#[test]
fn options_that_make_no_sense() {
    let wrong = [
        "--seeds 0",
        "--seeds x",
        "--seed 1 --seeds 2",
        "--from 18446744073709551615 --seeds 2",
        "--profile stormy",
        "--seed 1 --span 0",
        "--seed 1 --span 25h",
        "--seed 1 --without x",
        "--without 1",
        "--verbose",
        "--seed 1 --verbose --json",
        "--seed 1 --shrink --no-shrink",
        "--jobs 0",
    ];
    for words in wrong {
        let output = loadtest(&format!("sim {words}"));
        assert_eq!(output.status.code(), Some(2), "{words}: {}", text(&output.stderr));
        assert!(output.stdout.is_empty() && !output.stderr.is_empty(), "{words}");
    }
}

/// With a bug in the members a seed fails: it is told, shrunk, and replayed by its command.
#[cfg(feature = "planted")]
#[test]
fn a_failure_is_told() {
    let words = "sim --seeds 100 --span 6 --planted SnapshotWithoutIndex --shrink-runs 12";
    let (output, report) = json(words);
    assert_eq!(output.status.code(), Some(1), "{report}");
    let failure = &report["failures"][0];
    assert!(report["seeds"].as_u64().unwrap() < 100, "it stops: {report}");
    assert!(!failure["problems"].as_array().unwrap().is_empty(), "{report}");
    assert!(!failure["transcript"].as_array().unwrap().is_empty(), "{report}");
    let runs = failure["shrunk"]["runs"].as_u64().unwrap();
    assert!((1..=12).contains(&runs), "{report}");
    let told = text(&output.stderr);
    for part in ["FAILED: seed ", "broken", "replay", "shrunk", "FAILED: seeds "] {
        assert!(told.contains(part), "{part}: {told}");
    }
    let replay = failure["replay"].as_str().unwrap().trim_start_matches("loadtest ").to_owned();
    let again = loadtest(&replay);
    assert_eq!(again.status.code(), Some(1), "{replay}");
    let promise = failure["problems"][0]["promise"].as_str().unwrap();
    let problem = text(&again.stdout).split("==== end").nth(1).unwrap().to_owned();
    assert!(problem.contains(promise), "{promise}: {problem}");
    assert!(text(&again.stderr).contains(&replay), "the command is its own: {replay}");
}

#[cfg(feature = "planted")]
#[test]
fn failures_do_not_stop_it_when_it_is_to_keep_going() {
    let words = "sim --seeds 12 --span 8 --planted AppliedOutOfOrder --keep-going --no-shrink";
    let (output, report) = json(words);
    assert_eq!(output.status.code(), Some(1), "{report}");
    assert_eq!(report["seeds"], 12, "{report}");
    let failures = report["failures"].as_array().unwrap();
    assert!(failures.len() > 1, "{report}");
    assert!(failures.iter().all(|failure| failure["shrunk"].is_null()), "{report}");
    let seeds: Vec<u64> = failures.iter().map(|one| one["seed"].as_u64().unwrap()).collect();
    assert!(seeds.is_sorted(), "{report}");
}
