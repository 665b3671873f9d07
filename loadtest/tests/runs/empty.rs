//! The generator against the server of empty calls: pacing, counting, exit status.

use std::process::{Command, Stdio};

use crate::support::{LOADTEST, empty_server, loadtest, report};

#[test]
fn a_closed_loop_makes_exactly_the_calls_asked_for() {
    let server = empty_server();
    let report = report(&server, "empty --total 1000 --clients 16 --connections 4 --threads 2");
    assert_eq!(report["calls"], 1000);
    assert_eq!(report["latency"]["count"], 1000);
    assert_eq!(report["error_count"], 0);
    assert_eq!(report["threads"], 2);
    assert!(report["latency"]["p50_ms"].as_f64().unwrap() > 0.0);
    assert!(report["generator"]["cpu_us_per_call"].as_f64().unwrap() > 0.0);
}

#[test]
fn an_open_loop_keeps_its_rate_and_leaves_no_call_out() {
    let server = empty_server();
    let report = report(&server, "empty --rate 500 --duration 1s --clients 64");
    assert_eq!(report["loop"], "open");
    let (made, late) = (report["latency"]["count"].as_u64(), report["unsent"].as_u64());
    assert_eq!(made.unwrap() + late.unwrap(), 500, "{report}");
}

#[test]
fn the_servers_cost_is_read_from_its_process() {
    let server = empty_server();
    let words = format!("empty --total 20k --pid {}", server.pid());
    let report = report(&server, &words);
    let cost = &report["server"];
    assert!(cost["cpu_us_per_call"].as_f64().unwrap() > 0.1, "{cost}");
    assert!(cost["rss_peak_bytes"].as_u64().unwrap() > 100_000, "{cost}");
}

#[test]
fn without_json_there_is_a_table() {
    let server = empty_server();
    let output = loadtest(&format!("empty --total 10 --endpoints {}", server.endpoint));
    let table = String::from_utf8(output.stdout).unwrap();
    assert!(table.starts_with("empty: 64 clients"), "{table}");
    assert!(table.contains("p99.9"), "{table}");
    assert!(output.stderr.is_empty(), "no progress bar without a terminal");
}

#[test]
fn calls_that_the_server_refuses_are_tallied_and_fail_the_run() {
    let server = empty_server();
    let words = format!("put --total 50 --json --endpoints {}", server.endpoint);
    let output = loadtest(&words);
    assert_eq!(output.status.code(), Some(1));
    let report: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(report["calls"], 0);
    assert_eq!(report["errors"]["Unimplemented: no method /etcdserverpb.KV/Put"], 50);

    let tolerated = loadtest(&format!("{words} --max-errors 50"));
    assert_eq!(tolerated.status.code(), Some(0));
}

#[test]
fn a_server_that_dies_during_the_run_shows_in_the_errors() {
    let mut server = empty_server();
    let words = format!("empty --duration 3s --clients 4 --endpoints {} --json", server.endpoint);
    let running = Command::new(LOADTEST)
        .args(words.split_whitespace())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    // One call of our own is answered: the server is up, and the run has begun or will at once.
    report(&server, "empty --total 1");
    server.kill();
    let output = running.wait_with_output().unwrap();
    // Killed before the run had its connections, the program says that it cannot connect.
    match output.status.code() {
        Some(1) => {
            let report: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
            assert!(report["error_count"].as_u64().unwrap() >= 4, "{report}");
        }
        status => assert_eq!(status, Some(2)),
    }
}

#[test]
fn where_nobody_listens_there_is_no_run() {
    let output = loadtest("empty --endpoints 127.0.0.1:1 --total 1");
    assert_eq!(output.status.code(), Some(2));
    let text = String::from_utf8(output.stderr).unwrap();
    assert!(text.contains("cannot connect"), "{text}");
}
