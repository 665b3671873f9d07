//! The options of `chaos`.

use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, ValueEnum};

use super::parse::{duration, rate};

/// The network between the members.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum NetworkKind {
    /// Namespaces, with this program as the switch between them: every fault is possible.
    Namespaces,
    /// The machine's loopback: no faults of the network and of disks.
    Plain,
}

/// Options of `chaos`.
#[derive(Debug, Clone, Args)]
pub(crate) struct ChaosArgs {
    /// The server's program: castd, or etcd.
    #[arg(long, value_name = "PATH")]
    pub(crate) server: PathBuf,
    /// Members of the cluster.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u8).range(1..=7))]
    pub(crate) members: u8,
    /// How long faults go on, in each round.
    #[arg(long, value_parser = duration, default_value = "60s")]
    pub(crate) duration: Duration,
    /// What chance begins with; several make several rounds, each with a fresh cluster. The
    /// same seed gives the same faults in the same order [default: a random one].
    #[arg(long, value_delimiter = ',')]
    pub(crate) seed: Vec<u64>,
    /// Two short rounds with always the same seeds, as for CI: 90 s in all.
    #[arg(long, conflicts_with_all = ["seed", "duration"])]
    pub(crate) short: bool,
    /// Kinds of faults, by name or group: network, process, disk, membership, all, none. auto
    /// is all, without the slow ones in rounds of less than 2 minutes. sabotage is in no group:
    /// it destroys data, to see that this is found.
    #[arg(long, value_delimiter = ',', default_value = "auto")]
    pub(crate) faults: Vec<String>,
    /// The network between the members. Namespaces need root.
    #[arg(long, value_enum, default_value = "namespaces")]
    pub(crate) network: NetworkKind,
    /// Clients, each with a connection of its own.
    #[arg(long, default_value = "10")]
    pub(crate) clients: NonZeroUsize,
    /// Calls a second, all clients together, at most.
    #[arg(long, value_parser = rate, default_value = "400")]
    pub(crate) rate: f64,
    /// How long a call is waited for.
    #[arg(long, value_parser = duration, default_value = "3s")]
    pub(crate) call_timeout: Duration,
    /// The members' heartbeat interval, in milliseconds.
    #[arg(long, default_value_t = 100)]
    pub(crate) heartbeat_interval: u64,
    /// The members' election timeout, in milliseconds.
    #[arg(long, default_value_t = 1000)]
    pub(crate) election_timeout: u64,
    /// Log entries between two snapshots of a member: few, so that there are many.
    #[arg(long, default_value_t = 500)]
    pub(crate) snapshot_count: u64,
    /// Log entries kept behind a snapshot: few, so that members left behind need snapshots.
    #[arg(long, default_value_t = 100)]
    pub(crate) catchup_entries: u64,
    /// A further flag for every member; may be given several times.
    #[arg(long, value_name = "FLAG", allow_hyphen_values = true)]
    pub(crate) server_arg: Vec<String>,
    /// Where each round's directory is made [default: the system's temporary directory].
    #[arg(long)]
    pub(crate) dir: Option<PathBuf>,
    /// Keep data and logs even when every promise held.
    #[arg(long)]
    pub(crate) keep: bool,
    /// Print one line of JSON to standard output; the table goes to standard error either way.
    #[arg(long)]
    pub(crate) json: bool,
    /// Write the line of JSON to this file.
    #[arg(long, value_name = "FILE")]
    pub(crate) json_file: Option<PathBuf>,
}
