//! Go's flag syntax.

use super::{exit, load, notice, refused, run};
use crate::config::{CASTD_VERSION, Url};
use std::time::Duration;

#[test]
fn forms_of_a_flag() {
    for args in [
        &["--name=x", "--pre-vote=false"][..],
        &["-name=x", "-pre-vote=F"],
        &["--name", "x", "--pre-vote=0"],
        &["-name", "y", "--name", "x", "--pre-vote", "--pre-vote=False", "--"],
    ] {
        let config = run(args);
        assert_eq!((config.name.as_str(), config.pre_vote), ("x", false), "{args:?}");
    }
    assert_eq!(run(&["--wal-dir", "-odd"]).wal_dir().to_str(), Some("-odd"));
    assert_eq!(run(&["--wal-dir=a=b"]).wal_dir().to_str(), Some("a=b"));
}

#[test]
fn numbers_have_gos_bases() {
    let config = run(&["--heartbeat-interval=0x10", "--election-timeout=1_000"]);
    assert_eq!((config.heartbeat_ms, config.election_ms), (16, 1000));
    assert_eq!(config.election_ticks(), 62);
    assert_eq!(config.election_timeout(), Duration::from_millis(992));
}

#[test]
fn faults_of_the_command_line() {
    let cases: &[(&[&str], &str)] = &[
        (&["-foo"], "flag provided but not defined: -foo"),
        (&["--foo=3"], "flag provided but not defined: -foo"),
        (&["--client-cert-allowed-cn=a"], "flag provided but not defined: -client-cert-allowed-cn"),
        (&["--name"], "flag needs an argument: -name"),
        (&["---x"], "bad flag syntax: ---x"),
        (&["-=x"], "bad flag syntax: -=x"),
        (&["--=x"], "bad flag syntax: --=x"),
        (
            &["--heartbeat-interval=abc"],
            "invalid value \"abc\" for flag -heartbeat-interval: parse error",
        ),
        (
            &["--heartbeat-interval", "-1"],
            "invalid value \"-1\" for flag -heartbeat-interval: parse error",
        ),
        (
            &["--heartbeat-interval=99999999999999999999"],
            "invalid value \"99999999999999999999\" for flag -heartbeat-interval: value out of range",
        ),
        (
            &["--quota-backend-bytes=1x"],
            "invalid value \"1x\" for flag -quota-backend-bytes: parse error",
        ),
        (&["--pre-vote=maybe"], "invalid boolean value \"maybe\" for -pre-vote: parse error"),
        (
            &["--grpc-keepalive-timeout=5"],
            "invalid value \"5\" for flag -grpc-keepalive-timeout: parse error",
        ),
        (
            &["--max-concurrent-streams=-1"],
            "invalid value \"-1\" for flag -max-concurrent-streams: \
             strconv.ParseUint: parsing \"-1\": invalid syntax",
        ),
        (
            &["--max-concurrent-streams=4294967296"],
            "invalid value \"4294967296\" for flag -max-concurrent-streams: \
             strconv.ParseUint: parsing \"4294967296\": value out of range",
        ),
        (
            &["--initial-cluster-state=bar"],
            "invalid value \"bar\" for flag -initial-cluster-state: invalid value",
        ),
        (
            &["--v2-deprecation=x"],
            "invalid value \"x\" for flag -v2-deprecation: invalid value \"x\"",
        ),
        (
            &["--feature-gates=Foo=true"],
            "invalid value \"Foo=true\" for flag -feature-gates: unrecognized feature gate: Foo",
        ),
        (
            &["--feature-gates=AllAlpha"],
            "invalid value \"AllAlpha\" for flag -feature-gates: missing bool value for AllAlpha",
        ),
        (
            &["--feature-gates=AllAlpha=x"],
            "invalid value \"AllAlpha=x\" for flag -feature-gates: invalid value of AllAlpha=x, \
             err: strconv.ParseBool: parsing \"x\": invalid syntax",
        ),
    ];
    for (args, first_line) in cases {
        let exit = exit(load(args, &[], ""));
        assert_eq!(exit.code, 2, "{args:?}");
        assert_eq!(exit.stderr.lines().next(), Some(*first_line));
        assert!(exit.stderr.contains("\nUsage:\n"), "{}", exit.stderr);
        assert!(exit.stdout.is_empty() && exit.notices.is_empty());
    }
}

#[test]
fn faults_of_urls() {
    let cases = [
        ("foo", "URL scheme must be http, https, unix, or unixs: foo"),
        (
            "127.0.0.1:2379",
            "parse \"127.0.0.1:2379\": first path segment in URL cannot contain colon",
        ),
        ("localhost:2379", "URL scheme must be http, https, unix, or unixs: localhost:2379"),
        ("http://localhost", "URL address does not have the form \"host:port\": http://localhost"),
        ("http://localhost:1/a", "URL must not contain a path: http://localhost:1/a"),
        ("http://a:b", "parse \"http://a:b\": invalid port \":b\" after host"),
        ("http://a b:1", "parse \"http://a b:1\": invalid character \" \" in host name"),
        (":2379", "parse \":2379\": missing protocol scheme"),
        ("http://[::1:2379", "parse \"http://[::1:2379\": missing ']' in host"),
        ("unix://localhost:m0", "parse \"unix://localhost:m0\": invalid port \":m0\" after host"),
        ("http://a:1,", "URL scheme must be http, https, unix, or unixs: "),
    ];
    for (url, reason) in cases {
        let exit = exit(load(&["--listen-client-urls", url], &[], ""));
        let told = format!("invalid value \"{url}\" for flag -listen-client-urls: {reason}");
        assert_eq!((exit.code, exit.stderr.lines().next()), (2, Some(told.as_str())));
    }
}

#[test]
fn urls_are_sorted_and_unique_and_keep_their_parts() {
    let config = run(&[
        "--listen-client-urls",
        "unix:///run/b.sock,HTTP://[::1]:2379, http://127.0.0.1:1,http://127.0.0.1:1",
        "--advertise-client-urls=http://example.com:2379",
    ]);
    let texts: Vec<&str> = config.listen.client_urls.iter().map(Url::as_str).collect();
    assert_eq!(texts, ["http://127.0.0.1:1", "http://[::1]:2379", "unix:///run/b.sock"]);
    let [v4, v6, unix] = &config.listen.client_urls[..] else { panic!("{texts:?}") };
    assert_eq!((v4.host(), v4.port(), v4.socket_path()), ("127.0.0.1", Some(1), None));
    assert_eq!((v6.host(), v6.port()), ("::1", Some(2379)));
    let path = unix.socket_path().unwrap();
    assert_eq!((unix.port(), path.to_str()), (None, Some("/run/b.sock")));
    let relative = Url::parse("unix://a.sock").unwrap();
    assert_eq!(relative.socket_path().unwrap().to_str(), Some("a.sock"));
    assert_eq!(Url::parse("http://localhost:").unwrap().port(), Some(0));
}

#[test]
fn empty_urls_leave_the_default() {
    let config = run(&["--listen-peer-urls=", "--listen-metrics-urls="]);
    assert_eq!(config.listen.peer_urls[0].as_str(), "http://localhost:2380");
    assert!(config.listen.metrics_urls.is_empty());
}

#[test]
fn what_is_no_flag_is_refused() {
    for args in [&["foo"][..], &["--name=a", "--", "foo"], &["--pre-vote", "foo"]] {
        assert_eq!(refused(load(args, &[], "")), "\"foo\" is not a valid flag");
    }
    assert_eq!(refused(load(&["-"], &[], "")), "\"-\" is not a valid flag");
}

#[test]
fn help_and_version() {
    for args in [&["-h"][..], &["--help"], &["--name=x", "-h=3"]] {
        let exit = exit(load(args, &[], ""));
        assert_eq!(exit.code, 0);
        for section in ["\nMember:\n", "\nClustering:\n", "\nUnsafe feature:\n"] {
            assert!(exit.stdout.contains(section));
        }
        assert!(exit.stdout.contains("\n  --data-dir '${name}.etcd'\n"));
    }
    let exit = exit(load(&["--version", "--name=x"], &[], ""));
    let lines: Vec<&str> = exit.stdout.lines().collect();
    assert_eq!((exit.code, lines[0]), (0, "etcd Version: 3.7.1"));
    assert_eq!(lines[1], format!("castd Version: {CASTD_VERSION}"));
    assert!(lines[2].starts_with("Git SHA: "));
}

#[test]
fn the_start_tells_its_arguments() {
    let config = run(&["--name=x"]);
    let line = notice(&config.notices, "Running: ");
    assert_eq!(line.fields, [("args", serde_json::json!(["castd", "--name=x"]))]);
    let exit = exit(load(&["foo"], &[], ""));
    assert_eq!(exit.notices[0].message, "Running: ");
}

#[test]
fn other_programs_are_refused() {
    for name in ["gateway", "grpc-proxy"] {
        let exit = exit(load(&[name, "start"], &[], ""));
        assert_eq!((exit.code, exit.stderr), (1, format!("castd {name} is not built in yet\n")));
    }
}

#[test]
#[cfg(unix)]
fn arguments_are_utf8() {
    use std::os::unix::ffi::OsStringExt;
    let bad = std::ffi::OsString::from_vec(vec![b'-', 0xff]);
    let outcome = crate::config::load(["castd".into(), bad], []);
    let exit = exit(outcome);
    assert_eq!(exit.code, 2);
    assert!(exit.stderr.starts_with("argument \"-\\xFF\" is not valid UTF-8\n"));
}
