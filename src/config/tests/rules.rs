//! etcd's rules for values that must agree.

use super::{HOST, load, messages, notice, refused, run};
use crate::config::{AutoCompaction, ClusterState, Config, MetricsDetail, all_flags};
use crate::logging::{Format, Level, LogConfig, Output};
use std::path::Path;
use std::time::Duration;

#[test]
fn broken_rules() {
    let cases: &[(&[&str], &str)] = &[
        (
            &["--heartbeat-interval=500"],
            "--election-timeout[1000ms] should be at least as 5 times as --heartbeat-interval[500ms]",
        ),
        (
            &["--election-timeout=60000"],
            "--election-timeout[60000ms] is too long, and should be set less than 50000ms",
        ),
        (&["--election-timeout=0"], "--election-timeout must be >0 (set to 0ms)"),
        (&["--heartbeat-interval=0"], "--heartbeat-interval must be >0 (set to 0ms)"),
        (
            &["--heartbeat-interval=18446744073709551615", "--election-timeout=50000"],
            "--election-timeout[50000ms] should be at least as 5 times as \
             --heartbeat-interval[18446744073709551615ms]",
        ),
        (&["--logger=foo"], "unknown logger option \"foo\""),
        (&["--logger=capnslog"], "--logger=capnslog is removed in v3.5"),
        (&["--log-level=foo"], "unrecognized level: \"foo\""),
        (&["--log-format=x"], "unknown log format: x, supported values json, console"),
        (&["--log-outputs=stderr,default"], "multi logoutput for \"default\" is not supported yet"),
        (
            &["--log-outputs=http://x"],
            "couldn't open sink \"http://x\": no sink found for scheme \"http\"",
        ),
        (&["--auto-compaction-mode=foo"], "unknown auto-compaction-mode \"foo\""),
        (&["--auto-compaction-mode="], "undefined auto-compaction-mode"),
        (
            &["--auto-compaction-retention=foo"],
            "error parsing CompactionRetention: time: invalid duration \"foo\"",
        ),
        (
            &["--auto-compaction-retention=-5"],
            "error parsing CompactionRetention: time: missing unit in duration \"-5\"",
        ),
        (
            &["--auto-compaction-retention=-5m"],
            "--auto-compaction-retention must not be negative (-5m)",
        ),
        (
            &["--auto-compaction-mode=revision", "--auto-compaction-retention=5m"],
            "--auto-compaction-retention \"5m\" is a time, but --auto-compaction-mode=revision \
             counts revisions",
        ),
        (
            &["--listen-client-urls=http://localhost:2379"],
            "--advertise-client-urls is required when --listen-client-urls is set explicitly",
        ),
        (
            &["--listen-client-urls="],
            "--advertise-client-urls is required when --listen-client-urls is set explicitly",
        ),
        (
            &["--listen-peer-urls=http://foo.com:2380"],
            "expected IP in URL for binding (http://foo.com:2380)",
        ),
        (&["--listen-metrics-urls=http://:1"], "expected IP in URL for binding (http://:1)"),
        (
            &["--listen-client-http-urls=http://foo:1"],
            "expected IP in URL for binding (http://foo:1)",
        ),
        (
            &["--initial-advertise-peer-urls=http://:1"],
            "--initial-advertise-peer-urls \"http://:1\" must be \"host:port\" \
             (unexpected empty host (http://:1))",
        ),
        (
            &["--advertise-client-urls=http://:1"],
            "--advertise-client-urls \"http://:1\" must be in the format \"host:port\", \
             \"unix:/path/to/socket\" or \"unixs:/path/to/socket\" \
             (unexpected empty host (http://:1))",
        ),
        (
            &["--discovery-srv=x", "--initial-cluster=default=http://localhost:2380"],
            "multiple discovery or bootstrap flags are set. Choose one of \"initial-cluster\", \
             \"discovery-endpoints\" or \"discovery-srv\"",
        ),
        (&["--discovery-token=x"], "both --discovery-token and --discovery-endpoints must be set"),
        (
            &["--discovery-token=x", "--discovery-endpoints=a, "],
            "--discovery-endpoints must not contain empty endpoints",
        ),
        (
            &["--discovery-fallback=proxy"],
            "v2 proxy is deprecated, and --discovery-fallback can't be configured as \"proxy\"",
        ),
        (
            &["--initial-cluster=default"],
            "error setting up initial cluster: URL scheme must be http, https, unix, or unixs: ",
        ),
        (&["--compact-hash-check-time=0"], "--compact-hash-check-time must be >0 (set to 0s)"),
        (
            &["--tls-min-version=TLS1.1"],
            "unexpected TLS version \"TLS1.1\" (must be one of: TLS1.2, TLS1.3)",
        ),
        (
            &["--tls-min-version=TLS1.3", "--tls-max-version=TLS1.2"],
            "min version (TLS1.3) is greater than max version (TLS1.2)",
        ),
        (
            &["--tls-min-version=TLS1.3", "--cipher-suites=a"],
            "cipher suites cannot be configured when only TLS1.3 is enabled",
        ),
        (
            &["--warning-apply-duration=-1s"],
            "--warning-apply-duration must not be negative (set to -1s)",
        ),
        (
            &["--compaction-batch-limit=-1"],
            "--compaction-batch-limit must not be negative (set to -1)",
        ),
    ];
    for (args, error) in cases {
        assert_eq!(refused(load(args, &[], "")), *error, "{args:?}");
    }
}

#[test]
fn the_edges_of_the_timing_rules_are_allowed() {
    run(&["--heartbeat-interval=10000", "--election-timeout=50000"]);
    run(&["--heartbeat-interval=1", "--election-timeout=5"]);
}

#[test]
fn unset_advertised_urls_are_told_twice() {
    let exit = super::exit(load(&["--listen-client-urls=http://127.0.0.1:1"], &[], ""));
    notice(&exit.notices, "advertise client URLs are not set");
}

#[test]
fn auto_compaction() {
    let cases = [
        ("periodic", "0", AutoCompaction::Off),
        ("periodic", "", AutoCompaction::Off),
        ("periodic", "0s", AutoCompaction::Off),
        ("revision", "0", AutoCompaction::Off),
        ("periodic", "5", AutoCompaction::Periodic(Duration::from_secs(5 * 3600))),
        ("periodic", "+05", AutoCompaction::Periodic(Duration::from_secs(5 * 3600))),
        ("periodic", "5m", AutoCompaction::Periodic(Duration::from_secs(300))),
        ("periodic", "1.5h", AutoCompaction::Periodic(Duration::from_secs(5400))),
        ("revision", "1000", AutoCompaction::Revision(1000)),
    ];
    for (mode, retention, expected) in cases {
        let args = ["--auto-compaction-mode", mode, "--auto-compaction-retention", retention];
        assert_eq!(run(&args).auto_compaction, expected, "{mode} {retention}");
    }
    let huge = "99999999999999999999";
    let error = refused(load(&["--auto-compaction-retention", huge], &[], ""));
    assert!(error.contains("missing unit in duration"), "{error}");
}

#[test]
fn defaults() {
    let config = run(&[]);
    assert_eq!((config.name.as_str(), config.data_dir.to_str()), ("default", Some("default.etcd")));
    assert_eq!(config.wal_dir(), Path::new("default.etcd/member/wal"));
    assert_eq!(config.snap_dir(), Path::new("default.etcd/member/snap"));
    assert_eq!(config.quota_backend_bytes, Some(2 << 30));
    assert_eq!(config.request_timeout(), Duration::from_secs(7));
    assert_eq!(config.heartbeat(), Duration::from_millis(100));
    assert_eq!(config.initial_cluster.to_string(), "default=http://localhost:2380");
    assert_eq!(config.initial_cluster_state, ClusterState::New);
    assert_eq!(config.metrics, MetricsDetail::Basic);
    assert_eq!(config.log, LogConfig::early());
    assert!(config.pre_vote && config.strict_reconfig_check && config.enable_grpc_gateway);
    assert_eq!(
        messages(&config.notices, Level::Warn),
        [
            "Running http and grpc server on single port. This is not recommended for production.",
            "it isn't recommended to use default name, please set a value for --name. Note that \
             etcd might run into issue when multiple members have the same default name",
            "'data-dir' was empty; using default",
        ]
    );
}

#[test]
fn saying_every_default_changes_nothing() {
    let silent = run(&[]);
    let args: Vec<String> = all_flags()
        .filter(|flag| flag.on_command_line() && !matches!(flag.name, "version" | "config-file"))
        .filter(|flag| !matches!(flag.support, crate::config::Support::AliasOf(_)))
        .filter(|flag| flag.name != "v2-deprecation")
        .map(|flag| format!("--{}={}", flag.name, flag.default))
        .collect();
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    let spoken = run(&args);
    let without_notices = |mut config: Config| {
        config.notices.clear();
        format!("{config:?}")
    };
    assert_eq!(without_notices(silent), without_notices(spoken));
}

#[test]
fn zero_stands_for_some_defaults() {
    let config = run(&[
        "--snapshot-count=0",
        "--watch-progress-notify-interval=0",
        "--compaction-sleep-interval=0s",
        "--compaction-batch-limit=0",
        "--warning-unary-request-duration=0s",
        "--grpc-keepalive-interval=0s",
        "--grpc-keepalive-timeout=-1s",
    ]);
    assert_eq!((config.snapshot_count, config.compaction_batch_limit), (10_000, 1000));
    assert_eq!(config.watch_progress_notify_interval, Duration::from_secs(600));
    assert_eq!(config.compaction_sleep_interval, Duration::from_millis(10));
    assert_eq!(config.warning_unary_request_duration, Duration::from_millis(300));
    assert_eq!(config.keepalive.interval, Duration::ZERO);
    assert_eq!(config.keepalive.timeout, Duration::ZERO);
}

#[test]
fn quotas() {
    for (given, expected) in [("0", Some(2 << 30)), ("-1", None), ("5", Some(5))] {
        let config = run(&["--quota-backend-bytes", given]);
        assert_eq!(config.quota_backend_bytes, expected, "{given}");
    }
    let config = run(&["--quota-backend-bytes=9000000000", "--max-request-bytes=99999999"]);
    notice(&config.notices, "quota exceeds the maximum value");
    notice(&config.notices, "exceeded recommended request limit");
}

#[test]
fn the_cluster_follows_the_name() {
    let config = run(&["--name=foo", "--initial-advertise-peer-urls=http://b:1,http://a:1"]);
    assert_eq!(config.initial_cluster.to_string(), "foo=http://a:1,foo=http://b:1");
    assert_eq!(config.data_dir, Path::new("foo.etcd"));
    let config = run(&["--initial-advertise-peer-urls=http://a:1"]);
    assert_eq!(config.initial_cluster.to_string(), "default=http://localhost:2380");
}

#[test]
fn listening_everywhere_advertises_the_machine() {
    let config = run(&["--name=foo", "--listen-peer-urls=http://0.0.0.0:3"]);
    let url = format!("http://{HOST}:3");
    assert_eq!(config.advertise_peer_urls[0].as_str(), url);
    assert_eq!(config.initial_cluster.to_string(), format!("foo={url}"));
    notice(&config.notices, "detected default host for advertise");
    let set = "--initial-advertise-peer-urls=http://127.0.0.1:3";
    let config = run(&["--listen-peer-urls=http://0.0.0.0:3", set]);
    assert_eq!(config.advertise_peer_urls[0].as_str(), "http://127.0.0.1:3");
}

#[test]
fn log_outputs() {
    let outputs = |text: &str| run(&["--log-outputs", text]).log.outputs;
    let file = |path: &str| Output::File(path.into());
    assert_eq!(outputs("stdout,stderr"), [Output::Stderr, Output::Stdout]);
    assert_eq!(outputs("b.log,file:///a.log,b.log"), [file("/a.log"), file("b.log")]);
    assert_eq!(outputs("stderr,/dev/null"), []);
    let log = run(&["--log-level=WARN", "--log-format=console"]).log;
    assert_eq!((log.level, log.format), (Level::Warn, Format::Console));
    assert_eq!(run(&["--debug"]).log.level, Level::Debug);
    assert_eq!(run(&["--debug", "--log-level=error"]).log.level, Level::Error);
    assert_eq!(run(&["--log-output=stdout"]).log.outputs, [Output::Stdout]);
}

#[test]
fn a_refusal_is_told_by_the_configured_logger() {
    let exit = super::exit(load(&["--log-outputs=a.log", "--heartbeat-interval=0"], &[], ""));
    assert_eq!(exit.log.outputs, [Output::File("a.log".into())]);
}

#[test]
fn raft_timeouts_have_a_floor() {
    let config = run(&["--raft-read-timeout=1s"]);
    notice(&config.notices, "raft-read-timeout increased to minimum value: 5s");
}

#[test]
fn metrics() {
    assert_eq!(run(&["--metrics=extensive"]).metrics, MetricsDetail::Extensive);
    let config = run(&["--metrics=foo"]);
    assert_eq!(config.metrics, MetricsDetail::Basic);
    notice(&config.notices, "unknown level of --metrics; basic is used");
}
