//! Every workload against a real etcd. Without one these tests have nothing to run on.

use crate::support::{etcd, loadtest, reference_etcd, report};
use serde_json::Value;

/// A report of a run in which nothing failed and something happened.
fn clean(report: &Value) {
    assert_eq!(report["error_count"], 0, "{report}");
    assert!(report["calls"].as_u64().unwrap() > 0, "{report}");
}

#[test]
fn reads_and_writes() {
    let Some(binary) = reference_etcd() else { return };
    let server = etcd(&binary);

    let put = report(&server, &format!("put --duration 500ms --pid {}", server.pid()));
    clean(&put);
    assert!(put["server"]["written_bytes_per_call"].as_f64().unwrap() > 256.0, "{put}");

    let keys = "--keys 2500 --key-prefix r/ --key-size 12";
    clean(&report(&server, &format!("range {keys} --duration 300ms")));
    clean(&report(&server, &format!("range {keys} --no-prefill --serializable --total 100")));

    let pages =
        report(&server, &format!("range {keys} --no-prefill --limit 1000 --clients 1 --total 6"));
    clean(&pages);
    let keys_read = pages["keys_per_second"].as_f64().unwrap() * pages["seconds"].as_f64().unwrap();
    assert!((keys_read - 5000.0).abs() < 1.0, "two rounds over all keys: {pages}");

    clean(&report(&server, &format!("range {keys} --no-prefill --count-only --total 20")));

    let txn = report(&server, &format!("txn {keys} --clients 1 --total 300"));
    clean(&txn);
    assert_eq!(txn["kinds"]["update"]["calls"], 300, "one client has no conflicts: {txn}");

    let mixed = report(&server, &format!("mixed {keys} --reads 0.5 --rate 400 --duration 1s"));
    clean(&mixed);
    for kind in ["get", "put"] {
        assert!(mixed["kinds"][kind]["calls"].as_u64().unwrap() > 0, "{mixed}");
    }
}

#[test]
fn a_read_of_keys_that_are_not_there_is_an_error() {
    let Some(binary) = reference_etcd() else { return };
    let server = etcd(&binary);
    let words = format!("range --no-prefill --total 3 --endpoints {} --json", server.endpoint);
    let output = loadtest(&words);
    assert_eq!(output.status.code(), Some(1));
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(report["errors"]["wrong answer: 0 keys for a get, not one"], 3);
}

/// A report in which every event came, once, in order and in one piece.
fn exact(report: &Value) {
    clean(report);
    for fault in ["missing", "doubled", "disordered", "split", "foreign"] {
        assert_eq!(report["watch"][fault], 0, "{fault}: {report}");
    }
}

#[test]
fn watchers_see_every_put_once_and_in_order() {
    let Some(binary) = reference_etcd() else { return };
    let server = etcd(&binary);
    for (scenario, events_per_put) in [("fan-out", 50), ("own-keys", 1)] {
        let words = format!(
            "watch --scenario {scenario} --watchers 50 --streams 5 --clients 4 --total 200 \
             --key-prefix {scenario}/ --pid {}",
            server.pid()
        );
        let report = report(&server, &words);
        exact(&report);
        let watch = &report["watch"];
        assert_eq!(watch["latency"]["count"], 200 * events_per_put, "{report}");
        assert_eq!(watch["creation"]["watchers"], 50, "{report}");
        assert!(watch["memory"]["open"]["rss_bytes"].as_u64().unwrap() > 0, "{report}");
    }
}

#[test]
fn watchers_of_keys_prefixes_and_ranges_see_what_is_theirs() {
    let Some(binary) = reference_etcd() else { return };
    let server = etcd(&binary);
    let words = "--watchers 100 --keys 200 --clients 8 --total 400 --txn-keys 10";
    let mixed = report(&server, &format!("watch --scenario mixed {words} --key-prefix m/"));
    exact(&mixed);
    assert!(mixed["keys_per_second"].as_f64().unwrap() > mixed["rate"].as_f64().unwrap() * 4.0);

    let cuts = "--scenario resume --cut-every 50ms --rate 300 --key-prefix n/";
    let resumed = report(&server, &format!("watch {cuts} {words}"));
    exact(&resumed);
    assert!(resumed["watch"]["cuts"].as_u64().unwrap() > 10, "{resumed}");
}

#[test]
fn watchers_from_the_past_come_up_to_the_present() {
    let Some(binary) = reference_etcd() else { return };
    let server = etcd(&binary);
    let words = "watch --scenario past --watchers 3 --keys 50 --history 2k --rate 100 --total 50";
    let report = report(&server, words);
    exact(&report);
    assert_eq!(report["watch"]["past"]["events"], 6000, "{report}");
    assert_eq!(report["watch"]["past"]["pending"], 0, "{report}");
    assert_eq!(report["watch"]["latency"]["count"], 150, "{report}");
}

#[test]
fn watchers_that_stop_get_everything_once_they_read_again() {
    let Some(binary) = reference_etcd() else { return };
    let server = etcd(&binary);
    let words = format!(
        "watch --scenario slow --watchers 2 --streams 2 --stopped 10 --keys 5 --stop-for 2s \
         --duration 1s --rate 500 --clients 8 --value-size 4096 --pid {}",
        server.pid()
    );
    let report = report(&server, &words);
    exact(&report);
    let slow = &report["watch"]["slow"];
    assert_eq!(slow["recovery"]["count"], 10, "{report}");
    assert!(slow["during"]["count"].as_u64().unwrap() > 1500, "{report}");
    assert!(slow["rss_peak_bytes"].as_u64() >= slow["rss_before_bytes"].as_u64(), "{report}");
}

#[test]
fn options_that_a_scenario_has_no_use_for_are_refused() {
    for words in ["--stopped 3", "--scenario mixed --ahead 3", "--scenario past --cut-every 1s"] {
        let output = loadtest(&format!("watch {words} --endpoints 127.0.0.1:1"));
        assert_eq!(output.status.code(), Some(2), "{words}");
        assert!(String::from_utf8_lossy(&output.stderr).contains("of no use"), "{words}");
    }
}

#[test]
fn a_fill_puts_every_key() {
    let Some(binary) = reference_etcd() else { return };
    let server = etcd(&binary);
    let fill = report(&server, "fill --keys 12345");
    clean(&fill);
    // The count is right, or these calls are errors.
    clean(&report(&server, "range --keys 12345 --no-prefill --count-only --total 1"));
}

#[test]
fn a_comparison_of_a_server_with_itself() {
    let Some(binary) = reference_etcd() else { return };
    let dir = tempfile::tempdir().unwrap();
    let (json, markdown) = (dir.path().join("c.json"), dir.path().join("c.md"));
    let binary = binary.display();
    let output = loadtest(&format!(
        "compare --etcd {binary} --etcd {binary} --rounds 1 --seconds 300ms --warmup 100ms \
         --work put-4,fill-2k,count,restart --dir {} --json-file {} --markdown {}",
        dir.path().display(),
        json.display(),
        markdown.display()
    ));
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{errors}");

    let comparison: Value = serde_json::from_slice(&std::fs::read(json).unwrap()).unwrap();
    let works = comparison["summary"]["ratios"].as_array().unwrap();
    let names: Vec<&str> = works.iter().map(|ratio| ratio["work"].as_str().unwrap()).collect();
    let expected = ["put-4", "put-4", "fill", "count", "restart-kill", "restart-clean"];
    assert_eq!(names, expected, "put is set against the empty call too");
    let table = std::fs::read_to_string(markdown).unwrap();
    assert!(
        table.contains("| restart-kill |") && table.contains("| put-4 | empty call |"),
        "{table}"
    );

    let left: Vec<_> =
        std::fs::read_dir(dir.path()).unwrap().map(|e| e.unwrap().file_name()).collect();
    assert_eq!(left.len(), 2, "data directories are removed: {left:?}");
}

#[test]
fn a_cluster_loses_its_leader_and_has_a_member_back() {
    let Some(binary) = reference_etcd() else { return };
    let dir = tempfile::tempdir().unwrap();
    let json = dir.path().join("c.json");
    let output = loadtest(&format!(
        "compare --etcd {} --members 3 --rounds 1 --seconds 500ms --warmup 100ms --rate 100 \
         --work put-4,failover-stop,catch-up-2k --no-empty --dir {} --json-file {}",
        binary.display(),
        dir.path().display(),
        json.display()
    ));
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{errors}");

    let comparison: Value = serde_json::from_slice(&std::fs::read(json).unwrap()).unwrap();
    let rounds = comparison["rounds"].as_array().unwrap();
    let figure = |row: usize, name: &str| rounds[row]["figures"][name].as_f64().unwrap();
    assert!(figure(0, "leader_cpu_us") > 0.0 && figure(0, "follower_cpu_us") > 0.0, "{errors}");
    let members = figure(0, "leader_cpu_us") + 2.0 * figure(0, "follower_cpu_us");
    assert!((members / figure(0, "server_cpu_us") - 1.0).abs() < 0.01, "{errors}");
    assert_eq!(figure(1, "lost"), 0.0, "{errors}");
    assert!(figure(1, "gap_ms") >= 10.0, "a write is due every 10 ms: {errors}");
    assert!(figure(2, "catch_up_seconds") > 0.0, "{errors}");
}
