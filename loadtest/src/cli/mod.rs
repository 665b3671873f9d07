//! The command line.

mod chaos;
mod options;
mod parse;
mod sim;
mod watch;

pub(crate) use chaos::{ChaosArgs, NetworkKind};
pub(crate) use options::{
    CompareArgs, EmptyArgs, EmptyServerArgs, FillArgs, MixedArgs, OutputArgs, PutArgs, RangeArgs,
    TxnArgs, default_threads,
};
pub(crate) use parse::size;
pub(crate) use sim::{Faults, SimArgs, SimProfile};
pub(crate) use watch::WatchArgs;

use clap::{Parser, Subcommand};

/// Puts load on castd, etcd, or anything else that speaks etcd's v3 API, and measures it.
///
/// Each command prints a table; --json prints one line of JSON instead. Latencies come from
/// HDR histograms. With --pid the server's CPU time, memory and disk writes are reported too.
#[derive(Debug, Parser)]
#[command(name = "loadtest", version, propagate_version = true)]
pub(crate) struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Write keys.
    Put(PutArgs),
    /// Read single keys, pages of keys, or counts.
    Range(RangeArgs),
    /// Update keys the way Kubernetes does: compare the mod revision, put, else get.
    Txn(TxnArgs),
    /// Read and write keys in a given ratio.
    Mixed(MixedArgs),
    /// Watch keys while others put them, and account for every event.
    Watch(WatchArgs),
    /// Put every key of the key space once, quickly.
    Fill(FillArgs),
    /// Call a method that does nothing (see empty-server): the floor on this machine.
    Empty(EmptyArgs),
    /// Serve the method that does nothing.
    EmptyServer(EmptyServerArgs),
    /// Start castd and etcd in turns on fresh directories, and print ratios.
    Compare(CompareArgs),
    /// Start a cluster, do it harm, and check that it kept its promises.
    Chaos(ChaosArgs),
    /// Run whole simulated clusters through bad days, each under a seed of its own.
    Sim(SimArgs),
}
