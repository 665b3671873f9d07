//! The configuration file.

use super::{Outcome, exit, field, load, messages, notice, refused, started};
use crate::config::{AutoCompaction, Discovery};
use crate::logging::{Level, Output};
use std::time::Duration;

fn load_file(file: &str) -> Outcome {
    load(&["--config-file=/etc/castd.yml"], &[], file)
}

#[test]
fn keys_have_etcds_forms() {
    let config = started(load_file(
        "name: 'x'\n\
         data-dir:\n\
         heartbeat-interval: 50\n\
         grpc-keepalive-timeout: 10000000000\n\
         watch-progress-notify-interval: 60000000000\n\
         listen-client-urls: http://127.0.0.1:1,unix:///run/x\n\
         log-outputs: [stdout]\n\
         log-level: debug\n\
         pre-vote: no\n\
         quota-backend-bytes: -1\n\
         auto-compaction-retention: \"1\"\n\
         socket-options: {reuse-port: true}\n\
         client-transport-security:\n\
         \x20 cert-file:\n\
         \x20 client-cert-auth: false\n\
         discovery-config: {token: '', client: {endpoints: []}}\n\
         initial-cluster-state: ''\n\
         Max-Txn-Ops: 7\n\
         max-request-bytes: 1e6\n",
    ));
    assert_eq!((config.name.as_str(), config.data_dir.to_str()), ("x", Some("x.etcd")));
    assert_eq!((config.heartbeat_ms, config.max_txn_ops), (50, 7));
    assert_eq!(config.max_request_bytes, 1_000_000);
    assert_eq!(config.keepalive.timeout, Duration::from_secs(10));
    assert_eq!(config.watch_progress_notify_interval, Duration::from_secs(60));
    assert_eq!(config.listen.client_urls.len(), 2);
    assert_eq!(config.advertise_client_urls[0].as_str(), "http://localhost:2379");
    assert_eq!((config.log.level, config.log.outputs), (Level::Debug, vec![Output::Stdout]));
    assert!(!config.pre_vote && config.listen.reuse_port);
    assert_eq!(config.quota_backend_bytes, None);
    assert_eq!(config.auto_compaction, AutoCompaction::Periodic(Duration::from_secs(3600)));
    assert_eq!(config.initial_cluster.to_string(), "x=http://localhost:2380");
}

#[test]
fn json_is_read_too() {
    let config = started(load_file(r#"{"name": "j", "snapshot-count": 5, "log-outputs": null}"#));
    assert_eq!((config.name.as_str(), config.snapshot_count), ("j", 5));
}

#[test]
fn an_empty_file_is_all_defaults() {
    for file in ["", "\n# nothing\n", "---\n", "null"] {
        assert_eq!(started(load_file(file)).name, "default", "{file:?}");
    }
}

#[test]
fn flags_and_variables_are_ignored_with_a_file() {
    let args = ["--config-file=/etc/castd.yml", "--name=flag", "--heartbeat-interval=0"];
    let env = [("ETCD_NAME", "variable"), ("ETCD_MAX_WALS", "x")];
    let config = started(load(&args, &env, "name: file\n"));
    assert_eq!((config.name.as_str(), config.heartbeat_ms), ("file", 100));
    let line = notice(
        &config.notices,
        "loaded server configuration, other configuration command line flags and environment \
         variables will be ignored if provided",
    );
    assert_eq!(field(line, "path"), "/etc/castd.yml");
    let config = started(load(&[], &[("ETCD_CONFIG_FILE", "/etc/castd.yml")], "name: file\n"));
    assert_eq!(config.name, "file");
}

#[test]
fn wrong_values_are_told_with_key_and_line() {
    let cases = [
        (
            "name: a\ngrpc-keepalive-timeout: 10s\n",
            "grpc-keepalive-timeout: invalid type: string \"10s\", expected a duration in integer \
             nanoseconds for grpc-keepalive-timeout at line 2 column 25",
        ),
        (
            "heartbeat-interval: -1",
            "heartbeat-interval: invalid value: integer `-1`, expected a non-negative integer for \
             heartbeat-interval at line 1 column 21",
        ),
        (
            "name: 123",
            "name: invalid type: integer `123`, expected a string for name at line 1 column 7",
        ),
        (
            "pre-vote: 'true'",
            "pre-vote: invalid type: string \"true\", expected true or false for pre-vote at \
             line 1 column 11",
        ),
        (
            "max-concurrent-streams: 4294967296",
            "max-concurrent-streams: invalid value: integer `4294967296`, expected a non-negative \
             integer for max-concurrent-streams at line 1 column 25",
        ),
        (
            "log-outputs: stderr",
            "log-outputs: invalid type: string \"stderr\", expected a list of strings for \
             log-outputs at line 1 column 14",
        ),
        (
            "snapshot-count: 1.5",
            "snapshot-count: invalid type: floating point `1.5`, expected a non-negative integer \
             for snapshot-count at line 1 column 17",
        ),
        (
            "client-transport-security: 5",
            "client-transport-security: invalid type: integer `5`, expected an object for \
             client-transport-security at line 1 column 28",
        ),
        (
            "socket-options:\n  reuse-port: 1\n",
            "socket-options.reuse-port: invalid type: integer `1`, expected true or false for \
             socket-reuse-port at line 2 column 15",
        ),
        ("- a", "invalid type: sequence, expected settings, one to a key"),
        (
            "listen-client-urls: foo",
            "listen-client-urls: unexpected error setting up listen-client-urls: URL scheme must \
             be http, https, unix, or unixs: foo at line 1 column 21",
        ),
        (
            "initial-cluster-state: bar",
            "initial-cluster-state: unexpected clusterState \"bar\" at line 1 column 24",
        ),
        (
            "feature-gates: Foo=true",
            "feature-gates: unrecognized feature gate: Foo at line 1 column 16",
        ),
        ("a: b: c", "mapping values are not allowed in this context at line 1 column 5"),
    ];
    for (file, error) in cases {
        assert_eq!(refused(load_file(file)), format!("/etc/castd.yml: {error}"), "{file}");
    }
}

#[test]
fn what_is_not_there_yet_is_refused_by_its_key() {
    let cases = [
        (
            "client-transport-security: {cert-file: a}",
            "client-transport-security.cert-file is not supported by castd: TLS is not built in yet",
        ),
        (
            "peer-transport-security: {allowed-cn: [a]}",
            "peer-transport-security.allowed-cn is not supported by castd: TLS is not built in yet",
        ),
        (
            "client-transport-security: {allowed-cn: [a]}",
            "client-transport-security.allowed-cn is not supported by castd: \
             TLS is not built in yet",
        ),
        (
            "grpc-additional-server-options: [a]",
            "grpc-additional-server-options is not supported by castd: \
             castd's gRPC library takes no such options",
        ),
        ("enable-v2: true", "enable-v2 is not supported by castd: the v2 API is not built in yet"),
        (
            "proxy: readonly",
            "proxy is not supported by castd: etcd's v2 proxy is not part of castd",
        ),
    ];
    for (file, error) in cases {
        assert_eq!(refused(load_file(file)), error, "{file}");
    }
    let error = refused(load_file(
        "discovery-config: {token: t, client: {endpoints: ['d:1'], secure: {cert: c}}}",
    ));
    assert_eq!(
        error,
        "discovery-config.client.secure.cert is not supported by castd: TLS is not built in yet"
    );
}

#[test]
fn discovery_is_an_object_with_a_client_in_it() {
    let config = started(load_file(
        "name: a\ndiscovery-config:\n  token: t\n  client:\n    endpoints: ['d:1', 'http://e:2']\n\
         \x20   dial-timeout: 3000000000\n    auth: {username: u, password: p}\n",
    ));
    let Discovery::V3(service) = &config.discovery else { panic!("{:?}", config.discovery) };
    assert_eq!((service.token.as_str(), service.endpoints.len()), ("t", 2));
    assert_eq!(service.dial_timeout, Duration::from_secs(3));
    assert_eq!(service.credentials, Some(("u".to_owned(), "p".to_owned())));
    assert_eq!(config.initial_cluster.to_string(), "a=http://localhost:2380");
}

#[test]
fn unknown_keys_are_warned_of() {
    let config = started(load_file("nme: a\ncert-file: b\nsocket-options: {foo: 1}\n"));
    let keys: Vec<String> = config
        .notices
        .iter()
        .filter(|line| line.message == "unknown key in the configuration file, ignored")
        .map(|line| field(line, "key"))
        .collect();
    assert_eq!(keys, ["nme", "cert-file", "socket-options.foo"]);
    assert_eq!(messages(&config.notices, Level::Error).len(), 0);
}

#[test]
fn names_of_older_releases_at_their_defaults_are_taken() {
    let config = started(load_file(
        "discovery:\ndiscovery-proxy:\ndiscovery-fallback: 'proxy'\nproxy: 'off'\n\
         proxy-failure-wait: 5000\nenable-v2: false\nexperimental-memory-mlock: true\n",
    ));
    assert!(config.memory_mlock);
}

#[test]
fn a_file_that_cannot_be_read() {
    let outcome = load(&["--config-file=/nonexistent"], &[], "");
    assert_eq!(refused(outcome), "open /nonexistent: no such file or directory");
    let exit = exit(load(&["--config-file=/nonexistent"], &[], ""));
    assert_eq!(exit.notices[0].message, "Running: ");
}
