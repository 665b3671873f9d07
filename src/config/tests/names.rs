//! Every flag of etcd 3.4 to 3.7 is known, as of the releases that have it.

use crate::config::{FileKey, Versions, all_flags, find_flag};
use std::collections::BTreeSet;

/// The flags of etcd's latest patches of 3.4, 3.5, 3.6 and 3.7, by the first and the last
/// minor release that has them. 4 also stands for what is older.
const FLAGS: &[(u8, u8, &[&str])] = &[
    (
        4,
        4,
        &[
            "next-cluster-version-compatible",
            "log-output",
            "log-package-levels",
            "debug",
            "experimental-backend-bbolt-freelist-type",
        ],
    ),
    (
        4,
        5,
        &[
            "enable-v2",
            "experimental-enable-v2v3",
            "proxy",
            "proxy-failure-wait",
            "proxy-refresh-interval",
            "proxy-dial-timeout",
            "proxy-write-timeout",
            "proxy-read-timeout",
        ],
    ),
    (
        4,
        6,
        &[
            "discovery",
            "discovery-proxy",
            "experimental-compaction-batch-limit",
            "experimental-corrupt-check-time",
            "experimental-enable-lease-checkpoint",
            "experimental-enable-lease-checkpoint-persist",
            "experimental-initial-corrupt-check",
            "experimental-peer-skip-client-san-verification",
            "experimental-warning-apply-duration",
            "experimental-watch-progress-notify-interval",
        ],
    ),
    (
        4,
        7,
        &[
            "name",
            "data-dir",
            "wal-dir",
            "snapshot-count",
            "heartbeat-interval",
            "election-timeout",
            "initial-election-tick-advance",
            "listen-peer-urls",
            "listen-client-urls",
            "listen-client-http-urls",
            "listen-metrics-urls",
            "max-wals",
            "max-snapshots",
            "quota-backend-bytes",
            "backend-batch-interval",
            "backend-batch-limit",
            "max-txn-ops",
            "max-request-bytes",
            "max-concurrent-streams",
            "grpc-keepalive-min-time",
            "grpc-keepalive-interval",
            "grpc-keepalive-timeout",
            "enable-grpc-gateway",
            "unsafe-no-fsync",
            "force-new-cluster",
            "version",
            "config-file",
            "initial-advertise-peer-urls",
            "initial-cluster",
            "initial-cluster-state",
            "initial-cluster-token",
            "advertise-client-urls",
            "discovery-srv",
            "discovery-srv-name",
            "discovery-fallback",
            "strict-reconfig-check",
            "pre-vote",
            "auto-compaction-mode",
            "auto-compaction-retention",
            "cert-file",
            "key-file",
            "client-cert-auth",
            "client-crl-file",
            "client-cert-allowed-hostname",
            "trusted-ca-file",
            "auto-tls",
            "peer-cert-file",
            "peer-key-file",
            "peer-client-cert-auth",
            "peer-trusted-ca-file",
            "peer-cert-allowed-cn",
            "peer-cert-allowed-hostname",
            "peer-auto-tls",
            "peer-crl-file",
            "cipher-suites",
            "cors",
            "host-whitelist",
            "tls-min-version",
            "tls-max-version",
            "auth-token",
            "bcrypt-cost",
            "auth-token-ttl",
            "logger",
            "log-outputs",
            "log-level",
            "enable-pprof",
            "metrics",
            "cluster-active-size",
            "cluster-remove-delay",
            "cluster-sync-interval",
            "config",
            "force",
            "max-result-buffer",
            "max-retry-attempts",
            "peer-election-timeout",
            "peer-heartbeat-interval",
            "retry-interval",
            "snapshot",
            "test.coverprofile",
            "test.outputdir",
            "v",
            "vv",
        ],
    ),
    (
        5,
        6,
        &[
            "experimental-bootstrap-defrag-threshold-megabytes",
            "experimental-compact-hash-check-enabled",
            "experimental-compact-hash-check-time",
            "experimental-compaction-sleep-interval",
            "experimental-distributed-tracing-address",
            "experimental-distributed-tracing-instance-id",
            "experimental-distributed-tracing-sampling-rate",
            "experimental-distributed-tracing-service-name",
            "experimental-downgrade-check-time",
            "experimental-enable-distributed-tracing",
            "experimental-memory-mlock",
            "experimental-snapshot-catchup-entries",
            "experimental-stop-grpc-service-on-defrag",
            "experimental-txn-mode-write-with-shared-buffer",
        ],
    ),
    (
        5,
        7,
        &[
            "backend-bbolt-freelist-type",
            "socket-reuse-port",
            "socket-reuse-address",
            "raft-read-timeout",
            "raft-write-timeout",
            "client-cert-file",
            "client-key-file",
            "peer-client-cert-file",
            "peer-client-key-file",
            "self-signed-cert-validity",
            "enable-log-rotation",
            "log-rotation-config-json",
            "v2-deprecation",
        ],
    ),
    (6, 6, &["experimental-warning-unary-request-duration"]),
    (
        6,
        7,
        &[
            "snapshot-catchup-entries",
            "memory-mlock",
            "feature-gates",
            "max-learners",
            "discovery-token",
            "discovery-endpoints",
            "discovery-dial-timeout",
            "discovery-request-timeout",
            "discovery-keepalive-time",
            "discovery-keepalive-timeout",
            "discovery-insecure-transport",
            "discovery-insecure-skip-tls-verify",
            "discovery-cert",
            "discovery-key",
            "discovery-cacert",
            "discovery-user",
            "discovery-password",
            "peer-skip-client-san-verification",
            "log-format",
            "warning-apply-duration",
            "warning-unary-request-duration",
            "enable-distributed-tracing",
            "distributed-tracing-address",
            "distributed-tracing-service-name",
            "distributed-tracing-instance-id",
            "distributed-tracing-sampling-rate",
            "corrupt-check-time",
            "compact-hash-check-time",
            "compaction-batch-limit",
            "compaction-sleep-interval",
            "watch-progress-notify-interval",
            "bootstrap-defrag-threshold-megabytes",
            "downgrade-check-time",
        ],
    ),
];

#[test]
fn every_flag_is_known() {
    for (since, until, names) in FLAGS {
        for name in *names {
            let flag = find_flag(name).unwrap_or_else(|| panic!("--{name} is not known"));
            let expected = Versions { since: *since, until: *until };
            assert_eq!(flag.versions, expected, "--{name}");
            assert!(flag.on_command_line(), "--{name}");
        }
    }
}

#[test]
fn no_flag_is_made_up() {
    let of_etcd: BTreeSet<&str> =
        FLAGS.iter().flat_map(|(_, _, names)| names.iter().copied()).collect();
    for flag in all_flags().filter(|flag| flag.on_command_line()) {
        assert!(of_etcd.contains(flag.name), "--{} is not etcd's", flag.name);
    }
}

#[test]
fn names_and_keys_are_unique_and_defaults_are_of_their_kinds() {
    let mut names = BTreeSet::new();
    let mut keys = BTreeSet::new();
    for flag in all_flags() {
        assert!(names.insert(flag.name), "{} comes twice", flag.name);
        let key = match flag.file {
            FileKey::SameName => ("", flag.name),
            FileKey::Inside(object, key) | FileKey::OnlyInside(object, key) => (object, key),
            FileKey::None => continue,
        };
        assert!(keys.insert(key), "{key:?} comes twice");
    }
    // Reads every default; one that is not of its kind would panic.
    crate::config::settings::Settings::defaults();
}

#[test]
fn variables_are_named_after_flags() {
    assert_eq!(find_flag("initial-cluster").unwrap().variable(), "ETCD_INITIAL_CLUSTER");
}
