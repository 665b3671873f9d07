//! `ETCD_` variables.

use super::{exit, field, load, messages, notice, refused, started};
use crate::config::Discovery;
use crate::logging::Level;

#[test]
fn a_variable_sets_what_its_flag_sets() {
    let env = [("ETCD_NAME", "x"), ("ETCD_PRE_VOTE", "false"), ("ETCD_LISTEN_PEER_URLS", "")];
    let config = started(load(&[], &env, ""));
    assert_eq!((config.name.as_str(), config.pre_vote), ("x", false));
    let line = notice(&config.notices, "recognized and used environment variable");
    assert_eq!(line.level, Level::Info);
    assert_eq!(
        (field(line, "variable-name").as_str(), field(line, "variable-value").as_str()),
        ("ETCD_NAME", "x")
    );
}

#[test]
fn a_flag_and_its_variable_conflict() {
    for value in ["b", "", "c"] {
        let exit = exit(load(&["--name=c"], &[("ETCD_NAME", value)], ""));
        let line = exit.notices.last().unwrap();
        assert_eq!((exit.code, line.level), (1, Level::Fatal));
        assert_eq!(
            line.message,
            "conflicting environment variable is shadowed by corresponding command-line flag \
             (either unset environment variable or disable flag))"
        );
        assert_eq!(field(line, "environment-variable"), "ETCD_NAME");
    }
}

#[test]
fn strange_variables_are_warned_of() {
    let env = [("ETCD_FOO", "1"), ("PATH", "/bin"), ("ETCD_VERSION", "3.4"), ("ETCDCTL_API", "3")];
    let config = started(load(&["--name=x", "--data-dir=d"], &env, ""));
    let line = notice(&config.notices, "unrecognized environment variable");
    assert_eq!(field(line, "environment-variable"), "ETCD_FOO=1");
    let line = notice(&config.notices, "cannot set special environment variable");
    assert_eq!((field(line, "key"), field(line, "value")), ("ETCD_VERSION".into(), "3.4".into()));
    assert_eq!(messages(&config.notices, Level::Warn).len(), 3);
}

#[test]
fn bad_values() {
    let cases: &[(&[(&str, &str)], &str)] = &[
        (
            &[("ETCD_HEARTBEAT_INTERVAL", "b")],
            "invalid value \"b\" for ETCD_HEARTBEAT_INTERVAL: parse error",
        ),
        // The last in the order of flags is the one told.
        (
            &[("ETCD_HEARTBEAT_INTERVAL", "b"), ("ETCD_ELECTION_TIMEOUT", "c")],
            "invalid value \"b\" for ETCD_HEARTBEAT_INTERVAL: parse error",
        ),
        (
            &[("ETCD_LISTEN_CLIENT_URLS", "foo")],
            "invalid value \"foo\" for ETCD_LISTEN_CLIENT_URLS: \
             URL scheme must be http, https, unix, or unixs: foo",
        ),
        (
            &[("ETCD_LISTEN_CLIENT_URLS", "http://127.0.0.1:1")],
            "--advertise-client-urls is required when --listen-client-urls is set explicitly",
        ),
        (
            &[("ETCD_CERT_FILE", "a")],
            "ETCD_CERT_FILE is not supported by castd: TLS is not built in yet",
        ),
    ];
    for (env, error) in cases {
        assert_eq!(refused(load(&[], env, "")), *error);
    }
}

#[test]
fn passwords_are_not_logged() {
    let env = [
        ("ETCD_DISCOVERY_PASSWORD", "hunter2"),
        ("ETCD_DISCOVERY_USER", "u"),
        ("ETCD_DISCOVERY_TOKEN", "t"),
        ("ETCD_DISCOVERY_ENDPOINTS", "d:1"),
    ];
    let config = started(load(&[], &env, ""));
    let Discovery::V3(service) = &config.discovery else { panic!("{:?}", config.discovery) };
    assert_eq!(service.credentials, Some(("u".to_owned(), "hunter2".to_owned())));
    assert!(!format!("{config:?}").contains("hunter2"), "{:?}", config.notices);
}

#[test]
#[cfg(unix)]
fn only_our_variables_must_be_utf8() {
    use std::ffi::OsString;
    use std::os::unix::ffi::OsStringExt;
    let bad = || OsString::from_vec(vec![0xff]);
    started(crate::config::load(["castd".into()], [("LANG".into(), bad()), (bad(), bad())]));
    let outcome = crate::config::load(["castd".into()], [("ETCD_NAME".into(), bad())]);
    assert_eq!(refused(outcome), "invalid value \"\\xFF\" for ETCD_NAME: not UTF-8");
}
