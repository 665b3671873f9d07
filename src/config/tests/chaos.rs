//! Whatever is typed, `load` answers.

use super::load;
use crate::config::{Outcome, all_flags};
use proptest::prelude::*;

fn name() -> impl Strategy<Value = String> {
    let names: Vec<&str> = all_flags().map(|flag| flag.name).collect();
    prop_oneof![proptest::sample::select(names).prop_map(str::to_owned), "[a-z=-]{0,8}"]
}

fn value() -> impl Strategy<Value = String> {
    prop_oneof![
        "\\PC{0,12}",
        "-?[0-9a-fx_.]{0,22}",
        "-?[0-9.]{0,9}(ns|us|ms|s|m|h|d)",
        "(http|https|unix|foo)://?[a-z0-9.:\\[\\]/@]{0,12}(,http://[0-9.]{1,4}:[0-9]{0,6})?",
        "(true|false|new|existing|periodic|revision|default|stderr|TLS1.3|AllAlpha=true)",
    ]
}

fn arg() -> impl Strategy<Value = String> {
    prop_oneof![
        8 => (name(), value()).prop_map(|(name, value)| format!("--{name}={value}")),
        1 => name().prop_map(|name| format!("-{name}")),
        1 => value(),
    ]
}

fn yaml() -> impl Strategy<Value = String> {
    let line = (name(), value(), 0..6usize).prop_map(|(name, value, form)| match form {
        0 => format!("{name}: {value}\n"),
        1 => format!("{name}: '{}'\n", value.replace('\'', "")),
        2 => format!("{name}: [{value}]\n"),
        3 => format!("{name}:\n  {value}: {value}\n"),
        4 => format!("client-transport-security:\n  {name}: {value}\n"),
        _ => format!("{value}\n"),
    });
    proptest::collection::vec(line, 0..6).prop_map(|lines| lines.concat())
}

/// An answer is a configuration, or an exit that says something.
fn answered(outcome: Outcome) -> bool {
    match outcome {
        Outcome::Run(config) => config.heartbeat_ms * 5 <= config.election_ms,
        Outcome::Exit(exit) => {
            !(exit.stdout.is_empty() && exit.stderr.is_empty() && exit.notices.is_empty())
        }
    }
}

proptest! {
    #[test]
    fn any_arguments(args in proptest::collection::vec(arg(), 0..8)) {
        let args: Vec<&str> = args.iter().map(String::as_str).collect();
        prop_assert!(answered(load(&args, &[], "")));
    }

    #[test]
    fn any_variables(pairs in proptest::collection::vec((name(), value()), 0..6)) {
        let pairs: Vec<(String, String)> = pairs
            .into_iter()
            .map(|(name, value)| (format!("ETCD_{}", name.to_uppercase().replace('-', "_")), value))
            .collect();
        let env: Vec<(&str, &str)> =
            pairs.iter().map(|(key, value)| (key.as_str(), value.as_str())).collect();
        prop_assert!(answered(load(&[], &env, "")));
    }

    #[test]
    fn any_file(file in prop_oneof![yaml(), "\\PC{0,200}"]) {
        prop_assert!(answered(load(&["--config-file=/etc/castd.yml"], &[], &file)));
    }
}
