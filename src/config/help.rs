//! The texts of `--help` and `--version`.

use super::gates;
use super::table::{self, Flag, Section, Support};
use super::value::Kind;
use std::fmt::Write as _;

/// The release of etcd that castd stands in for.
pub const ETCD_VERSION: &str = "3.7.1";

/// castd's own version.
pub const CASTD_VERSION: &str = env!("CARGO_PKG_VERSION");

/// The commit the program was built from, when the build said so in `CASTD_GIT_SHA`.
pub const GIT_SHA: &str = match option_env!("CASTD_GIT_SHA") {
    Some(sha) => sha,
    None => "Not provided",
};

/// How castd is called: on standard error below a fault of the command line.
pub(crate) const USAGE: &str = "\
Usage:

  castd [flags]
    Start a member.

  castd --version
    Print the versions.

  castd -h | --help
    Explain every flag.

  castd --config-file FILE
    Read the configuration from a YAML or JSON file; all other flags and ETCD_
    variables are then ignored. Times in it are integer nanoseconds, except those
    that are milliseconds as flags.

Every flag is also a variable: --initial-cluster is ETCD_INITIAL_CLUSTER.
";

const SECTIONS: [(Section, &str); 10] = [
    (Section::Member, "Member"),
    (Section::Clustering, "Clustering"),
    (Section::Security, "Security"),
    (Section::Auth, "Auth"),
    (Section::Monitoring, "Profiling and Monitoring"),
    (Section::Logging, "Logging"),
    (Section::Tracing, "Distributed tracing"),
    (Section::Features, "Features"),
    (Section::Unsafe, "Unsafe feature"),
    (Section::Older, "Of older releases"),
];

/// The text of `--help`.
pub(crate) fn help() -> String {
    let mut out = String::new();
    for (section, title) in SECTIONS {
        // Writing to a String cannot fail.
        let _ = writeln!(out, "\n{title}:");
        for flag in table::all().filter(|flag| flag.section == section && flag.on_command_line()) {
            describe(&mut out, flag);
        }
    }
    out
}

fn describe(out: &mut String, flag: &Flag) {
    let default = if flag.name == "data-dir" { "${name}.etcd" } else { flag.default };
    let _ = writeln!(out, "  --{} '{default}'", flag.name);
    if !flag.help.is_empty() {
        let _ = writeln!(out, "    {}", flag.help);
    }
    if matches!(flag.kind, Kind::Gates) {
        for gate in &gates::GATES {
            let _ = writeln!(out, "    {}", gates::describe(gate));
        }
    }
    let _ = match flag.support {
        Support::NotYet(reason) => writeln!(out, "    Only the default so far: {reason}."),
        Support::AliasOf(today) => writeln!(out, "    Now --{today}."),
        Support::GateAlias(gate) => writeln!(out, "    Now a feature gate: {gate}."),
        Support::Works | Support::Holds(_) | Support::Ignored => Ok(()),
    };
}

/// The text of `--version`.
pub(crate) fn version() -> String {
    format!(
        "etcd Version: {ETCD_VERSION}\ncastd Version: {CASTD_VERSION}\nGit SHA: {GIT_SHA}\n\
         OS/Arch: {}/{}\n",
        std::env::consts::OS,
        std::env::consts::ARCH
    )
}
