//! Tables of cases: each rule of the command line, the environment and the file, with
//! the words a user of etcd knows.

mod bootstrap;
mod chaos;
mod command_line;
mod environment;
mod file;
mod names;
mod rules;
mod support;

use super::{Config, Exit, Outcome, Surroundings, load_with};
use crate::logging::{Level, Notice};
use std::io;
use std::net::{IpAddr, Ipv4Addr};
use std::path::Path;

/// The address the tests' machine is reached at.
const HOST: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 9, 8, 7));

/// Loads with these arguments, variables and configuration file.
fn load(args: &[&str], env: &[(&str, &str)], file: &str) -> Outcome {
    let read_file = |path: &Path| match path.to_str() {
        Some("/etc/castd.yml") => Ok(file.as_bytes().to_vec()),
        _ => Err(io::Error::from_raw_os_error(2)),
    };
    let surroundings = Surroundings { read_file: &read_file, default_host: &|| Ok(HOST) };
    let args = std::iter::once("castd").chain(args.iter().copied()).map(Into::into);
    let env = env.iter().map(|(key, value)| ((*key).into(), (*value).into()));
    load_with(args, env, &surroundings)
}

#[track_caller]
fn run(args: &[&str]) -> Config {
    started(load(args, &[], ""))
}

#[track_caller]
fn started(outcome: Outcome) -> Config {
    match outcome {
        Outcome::Run(config) => *config,
        Outcome::Exit(exit) => panic!("refused: {exit:?}"),
    }
}

#[track_caller]
fn exit(outcome: Outcome) -> Exit {
    match outcome {
        Outcome::Run(_) => panic!("accepted"),
        Outcome::Exit(exit) => exit,
    }
}

/// The error of a start that was refused with exit code 1.
#[track_caller]
fn refused(outcome: Outcome) -> String {
    let exit = exit(outcome);
    assert_eq!((exit.code, exit.stdout.as_str(), exit.stderr.as_str()), (1, "", ""));
    let line = exit.notices.iter().find(|line| line.message == "failed to verify flags");
    field(line.unwrap_or_else(|| panic!("{:?}", exit.notices)), "error")
}

fn field(line: &Notice, name: &str) -> String {
    let found = line.fields.iter().find(|(key, _)| *key == name);
    found.unwrap_or_else(|| panic!("{line:?}")).1.as_str().unwrap_or("").to_owned()
}

/// The notice with that message.
#[track_caller]
fn notice<'a>(notices: &'a [Notice], message: &str) -> &'a Notice {
    notices.iter().find(|line| line.message == message).unwrap_or_else(|| panic!("{notices:?}"))
}

/// The messages at that level.
fn messages(notices: &[Notice], level: Level) -> Vec<&str> {
    notices.iter().filter(|n| n.level == level).map(|n| n.message.as_str()).collect()
}
