//! `chaos` against a real etcd, on loopback: network namespaces would need root.

use std::path::Path;

use serde_json::Value;

use crate::support::{loadtest, reference_etcd};

/// A round of a few seconds; answers its exit status and its report.
fn round(etcd: &Path, words: &str, dir: &Path) -> (Option<i32>, Value) {
    let (etcd, dir) = (etcd.display(), dir.display());
    let common = format!("chaos --server {etcd} --dir {dir} --network plain --json");
    let output = loadtest(&format!("{common} {words}"));
    let report: Value = serde_json::from_slice(&output.stdout)
        .unwrap_or_else(|_| panic!("{}", String::from_utf8_lossy(&output.stderr)));
    (output.status.code(), report["rounds"][0].clone())
}

#[test]
fn etcd_survives_a_killed_leader() {
    let Some(etcd) = reference_etcd() else { return };
    let dir = tempfile::tempdir().unwrap();
    let (status, round) =
        round(&etcd, "--duration 9s --seed 1 --faults kill-leader,pause-short", dir.path());
    assert!(!round["faults"].as_array().unwrap().is_empty(), "{round}");
    assert!(round["tally"]["ok"].as_u64().unwrap() > 100, "{round}");
    assert!(round["judgement"]["operations"].as_u64().unwrap() > 100, "{round}");
    // etcd before 3.5.8 may tell progress ahead of events.
    let mut problems = round["problems"].as_array().unwrap().iter();
    assert!(problems.all(|problem| problem["promise"] == "watch"), "{round}");
    if status == Some(0) {
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0, "nothing stays behind");
    }
}

#[test]
fn lost_data_is_found() {
    let Some(etcd) = reference_etcd() else { return };
    let dir = tempfile::tempdir().unwrap();
    let words = "--duration 9s --seed 2 --faults sabotage";
    let (status, round) = round(&etcd, words, dir.path());
    assert_eq!(status, Some(1), "{round}");
    let broken = |promise| {
        round["problems"].as_array().unwrap().iter().any(|problem| problem["promise"] == promise)
    };
    for promise in ["an acknowledged write is stored", "linearizable", "watch"] {
        assert!(broken(promise), "{promise}: {round}");
    }
    let kept = Path::new(round["kept"].as_str().unwrap());
    assert!(kept.join("m1.log").exists() && kept.join("history.jsonl").exists(), "{round}");
}
