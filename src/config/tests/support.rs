//! What castd does not do yet is refused, and older names work.

use super::{load, messages, notice, refused, run};
use crate::config::{Discovery, Kind, Support, all_flags};
use crate::logging::Level;
use std::time::Duration;

/// Another value than the default, of the flag's kind.
fn other_value(kind: Kind, default: &str) -> String {
    match kind {
        Kind::Bool => (default == "false").to_string(),
        Kind::Uint | Kind::Uint32 | Kind::Int => "77".to_owned(),
        Kind::Duration => "77s".to_owned(),
        Kind::OneOf(words) => words[1].to_owned(),
        Kind::SomeOf(words) => words[0].to_owned(),
        Kind::Urls | Kind::Origins => "http://127.0.0.1:77".to_owned(),
        Kind::Gates => "AllAlpha=true".to_owned(),
        Kind::Text | Kind::List | Kind::UniqueList | Kind::Hosts | Kind::Ignored => "x".to_owned(),
    }
}

#[test]
fn everything_not_there_yet_is_refused_when_set() {
    // Those fail a rule of etcd's before; see `rules`.
    let ruled = ["discovery-token", "discovery-endpoints", "discovery-fallback"];
    let tls = ["tls-min-version", "tls-max-version"];
    let mut seen = 0;
    for flag in all_flags().filter(|flag| flag.on_command_line()) {
        let Support::NotYet(reason) = flag.support else { continue };
        if ruled.contains(&flag.name) {
            continue;
        }
        let value = match flag.name {
            name if tls.contains(&name) => "TLS1.3".to_owned(),
            _ => other_value(flag.kind, flag.default),
        };
        let arg = format!("--{}={value}", flag.name);
        let expected = format!("--{} is not supported by castd: {reason}", flag.name);
        assert_eq!(refused(load(&[&arg], &[], "")), expected);
        seen += 1;
    }
    assert!(seen > 60, "{seen}");
}

#[test]
fn several_refusals_are_told_at_once() {
    let error = refused(load(&["--enable-v2", "--cert-file=a"], &[], ""));
    assert_eq!(
        error,
        "--cert-file is not supported by castd: TLS is not built in yet; \
         --enable-v2 is not supported by castd: the v2 API is not built in yet"
    );
}

#[test]
fn gates() {
    run(&["--feature-gates=LeaseCheckpoint=false,TxnModeWriteWithSharedBuffer=true,AllAlpha=0"]);
    run(&["--feature-gates=,"]);
    run(&["--experimental-initial-corrupt-check=false"]);
    let shown = run(&["--feature-gates=AllBeta=true"]).features;
    let on = shown.iter().filter(|feature| feature.enabled);
    let on: Vec<(&str, &str)> = on.map(|feature| (feature.name, feature.stage)).collect();
    let beta = ["AllBeta", "FastLeaseKeepAlive", "TxnModeWriteWithSharedBuffer"];
    assert_eq!((on, shown.len()), (beta.map(|name| (name, "BETA")).to_vec(), 11));
    let cases: &[(&[&str], &str)] = &[
        (
            &["--feature-gates=PriorityRequest=true"],
            "feature gate PriorityRequest=true is not supported by castd: \
             there is one queue for proposals so far",
        ),
        (
            &["--feature-gates=AllBeta=false,FastLeaseKeepAlive=true"],
            "feature gate TxnModeWriteWithSharedBuffer=false is not supported by castd: \
             there is no other transaction mode",
        ),
        (
            &["--experimental-initial-corrupt-check"],
            "--experimental-initial-corrupt-check is not supported by castd: \
             comparing hashes at boot needs several members",
        ),
    ];
    for (args, error) in cases {
        assert_eq!(refused(load(args, &[], "")), *error);
    }
}

#[test]
fn listeners() {
    let cases: &[(&[&str], &str)] = &[
        (
            &["--listen-peer-urls=https://127.0.0.1:1"],
            "--listen-peer-urls https://127.0.0.1:1 is not supported by castd: \
             TLS is not built in yet",
        ),
        (
            &["--listen-peer-urls=unix:///a"],
            "--listen-peer-urls unix:///a is not supported by castd: \
             peers are reached over TCP only",
        ),
        (
            &["--listen-metrics-urls=unixs:///a"],
            "--listen-metrics-urls unixs:///a is not supported by castd: TLS is not built in yet",
        ),
    ];
    for (args, error) in cases {
        assert_eq!(refused(load(args, &[], "")), *error);
    }
}

#[test]
fn several_members() {
    let config = run(&["--initial-cluster=b=http://b:1,a=http://a:2,a=http://a:1", "--name=a"]);
    assert_eq!(config.initial_cluster.to_string(), "a=http://a:1,a=http://a:2,b=http://b:1");
    let config = run(&["--max-learners=3", "--force-new-cluster", "--strict-reconfig-check=false"]);
    assert_eq!(config.max_learners, 3);
    assert!(config.force_new_cluster && !config.strict_reconfig_check);
    assert_eq!(run(&["--max-learners=0"]).max_learners, 0);
    let error = refused(load(&["--max-learners=-1"], &[], ""));
    assert!(error.starts_with("--max-learners must not be negative"), "{error}");
}

#[test]
fn discovery() {
    let config = run(&["--discovery-srv=example.org", "--discovery-srv-name=x", "--name=a"]);
    let srv = Discovery::Srv { domain: "example.org".to_owned(), suffix: "-x".to_owned() };
    assert_eq!(config.discovery, srv);
    assert_eq!(config.initial_cluster.to_string(), "");
    let config = run(&[
        "--name=a",
        "--discovery-token=t",
        "--discovery-endpoints=http://d:1,d:2",
        "--discovery-user=u:p",
        "--initial-cluster-token=other",
    ]);
    let Discovery::V3(service) = &config.discovery else { panic!("{:?}", config.discovery) };
    assert_eq!((service.token.as_str(), config.initial_cluster_token.as_str()), ("t", "t"));
    assert_eq!(service.endpoints, ["d:2", "http://d:1"]);
    assert_eq!(service.credentials, Some(("u".to_owned(), "p".to_owned())));
    assert_eq!(config.initial_cluster.to_string(), "a=http://localhost:2380");
    let both = ["--discovery-token=t", "--discovery-endpoints=d:1", "--discovery-user=u"];
    assert_eq!(
        refused(load(&both, &[], "")),
        "--discovery-user without a password: give user:password, or --discovery-password"
    );
}

#[test]
fn limits_that_hold_by_design() {
    for value in ["0", "2", "100"] {
        run(&["--max-snapshots", value]);
    }
    let error = refused(load(&["--max-snapshots=1"], &[], ""));
    assert_eq!(error, "--max-snapshots 1 is not supported by castd: two checkpoints are kept");
    assert_eq!(run(&["--max-wals=3"]).max_wals, 3);
}

#[test]
fn older_names_set_what_they_stand_for() {
    let config = run(&[
        "--experimental-watch-progress-notify-interval=1m",
        "--experimental-compaction-batch-limit=7",
        "--experimental-snapshot-catchup-entries=8",
    ]);
    assert_eq!(config.watch_progress_notify_interval, Duration::from_secs(60));
    assert_eq!((config.compaction_batch_limit, config.snapshot_catchup_entries), (7, 8));
    let name = "experimental-compaction-batch-limit";
    notice(
        &config.notices,
        &format!("--{name} is an older name, use --compaction-batch-limit instead"),
    );
    let both = ["--experimental-memory-mlock", "--memory-mlock=false"];
    assert_eq!(
        refused(load(&both, &[], "")),
        "both --experimental-memory-mlock and --memory-mlock flags are set. \
         Use only --memory-mlock"
    );
    assert_eq!(
        refused(load(&["--experimental-corrupt-check-time=1m"], &[], "")),
        "--corrupt-check-time is not supported by castd: \
         the members' hashes are not compared yet"
    );
}

#[test]
fn every_older_name_is_of_the_kind_it_stands_for() {
    for flag in all_flags() {
        if let Support::AliasOf(today) = flag.support {
            let today = crate::config::find_flag(today).unwrap();
            assert_eq!((flag.kind, flag.default), (today.kind, today.default), "{}", flag.name);
        }
    }
}

#[test]
fn what_etcd_ignores_is_ignored_aloud() {
    let config =
        run(&["-v", "--vv=3", "--snapshot", "--config", "--max-result-buffer=8", "--name=x"]);
    let warned = messages(&config.notices, Level::Warn);
    let count = warned.iter().filter(|m| **m == "flag is no longer supported - ignoring").count();
    assert_eq!(count, 5);
    let config = run(&["--max-snapshots=3", "--v2-deprecation=write-only"]);
    let warned = messages(&config.notices, Level::Warn).join(" ");
    assert!(warned.contains("--max-snapshots is deprecated in 3.6"), "{warned}");
    assert!(warned.contains("--v2-deprecation is deprecated"), "{warned}");
}
