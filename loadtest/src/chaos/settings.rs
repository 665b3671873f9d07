//! What a run is to do, from the options.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use super::fault::{self, FaultKind};
use crate::cli::{ChaosArgs, NetworkKind};
use crate::error::LoadError;

/// The seeds of a short run: always the same, so that one run can be compared with the next.
const SHORT_SEEDS: [u64; 2] = [1, 2];
/// How long the faults of each of its rounds go on.
const SHORT_DURATION: Duration = Duration::from_secs(28);

/// What a run is to do.
#[derive(Debug, Clone)]
pub(crate) struct Settings {
    /// The server's program.
    pub(crate) binary: PathBuf,
    /// What it says about its version, in one line.
    pub(crate) version: String,
    /// Number of members.
    pub(crate) members: usize,
    /// One round each.
    pub(crate) seeds: Vec<u64>,
    /// How long the faults of a round go on.
    pub(crate) duration: Duration,
    /// The kinds of faults.
    pub(crate) faults: Vec<FaultKind>,
    /// Whether members live in network namespaces.
    pub(crate) isolated: bool,
    /// Clients.
    pub(crate) clients: usize,
    /// Calls a second, at most.
    pub(crate) rate: f64,
    /// How long a call is waited for.
    pub(crate) call_timeout: Duration,
    /// The members' election timeout.
    pub(crate) election: Duration,
    /// Flags for every member.
    pub(crate) args: Vec<String>,
    /// Where the directories of the rounds are made.
    pub(crate) dir: PathBuf,
    /// Whether they stay there even when nothing was wrong.
    pub(crate) keep: bool,
}

impl Settings {
    /// Reads the options.
    ///
    /// # Errors
    /// When they contradict each other, or the server cannot be run.
    pub(crate) fn new(args: &ChaosArgs) -> Result<Self, LoadError> {
        let isolated = args.network == NetworkKind::Namespaces;
        let duration = if args.short { SHORT_DURATION } else { args.duration };
        let mut faults = fault::parse(&args.faults, duration)?;
        if !isolated {
            faults.retain(|kind| !kind.needs_network() && !kind.needs_disk());
        }
        let seeds = match (args.short, args.seed.is_empty()) {
            (true, _) => SHORT_SEEDS.to_vec(),
            (false, true) => vec![u64::from(rand::random::<u32>())],
            (false, false) => args.seed.clone(),
        };
        let version = version(&args.server)?;
        Ok(Self {
            binary: args.server.clone(),
            args: server_args(args, &version),
            version,
            members: usize::from(args.members),
            seeds,
            duration,
            faults,
            isolated,
            clients: args.clients.get(),
            rate: args.rate,
            call_timeout: args.call_timeout,
            election: Duration::from_millis(args.election_timeout),
            dir: args.dir.clone().unwrap_or_else(std::env::temp_dir),
            keep: args.keep,
        })
    }
}

fn version(binary: &Path) -> Result<String, LoadError> {
    let output = Command::new(binary).arg("--version").output();
    let output = output.map_err(|source| LoadError::File {
        what: "cannot run",
        path: binary.to_owned(),
        source,
    })?;
    // castd names the etcd version it is compatible with first, and then its own.
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let own = text.lines().find(|line| line.starts_with("castd Version:"));
    Ok(own.or_else(|| text.lines().next()).unwrap_or_default().to_owned())
}

fn server_args(args: &ChaosArgs, version: &str) -> Vec<String> {
    let mut values = vec![
        ("--heartbeat-interval", args.heartbeat_interval),
        ("--election-timeout", args.election_timeout),
        ("--snapshot-count", args.snapshot_count),
    ];
    // etcd 3.4 and 3.5 have no such flag.
    let old = ["etcd Version: 3.4.", "etcd Version: 3.5."];
    if !old.iter().any(|old| version.starts_with(old)) {
        values.push(("--snapshot-catchup-entries", args.catchup_entries));
    }
    let mut all: Vec<String> =
        values.iter().map(|(flag, value)| format!("{flag}={value}")).collect();
    all.extend(args.server_arg.iter().cloned());
    all
}
