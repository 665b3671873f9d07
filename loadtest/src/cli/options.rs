//! The options of each command, and how they become plans.

use std::net::SocketAddr;
use std::num::{NonZeroU32, NonZeroUsize};
use std::path::PathBuf;
use std::time::Duration;

use clap::Args;

use super::parse::{duration, rate, ratio, size};
use crate::driver::{Pace, Plan};
use crate::error::LoadError;
use crate::grpc::Endpoint;
use crate::keys::{KeySpace, Order, Values};

/// A run that is limited by its number of calls may still not take longer than this.
const COUNTED_RUN_TIME_MAX: Duration = Duration::from_secs(3600);
/// Length of a run that nothing limits.
const DEFAULT_DURATION: Duration = Duration::from_secs(10);

/// How much load, from where, for how long.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Load")]
pub(crate) struct LoadArgs {
    /// Servers; connections are dealt out to them in turn.
    #[arg(long, value_delimiter = ',', default_value = "http://127.0.0.1:2379")]
    pub(crate) endpoints: Vec<Endpoint>,
    /// Clients: calls in flight, in the open loop at most.
    #[arg(long, default_value = "64")]
    pub(crate) clients: NonZeroUsize,
    /// Connections the clients share.
    #[arg(long, default_value = "8")]
    pub(crate) connections: NonZeroUsize,
    /// Generator threads, each with connections of its own [default: 1, or 2 on more than 2 cores].
    #[arg(long)]
    pub(crate) threads: Option<NonZeroUsize>,
    /// Open loop: so many calls a second fall due whatever the server does, and latencies count
    /// from then. Without it the loop is closed: each client calls again when it has its answer.
    #[arg(long, value_parser = rate)]
    pub(crate) rate: Option<f64>,
    /// Length of the measured window, as in 500ms, 10s, 2m [default: 10s, without --total].
    #[arg(long, value_parser = duration)]
    pub(crate) duration: Option<Duration>,
    /// End after so many calls (k and m allowed).
    #[arg(long, value_parser = size)]
    pub(crate) total: Option<u64>,
    /// Load before anything counts.
    #[arg(long, value_parser = duration, default_value = "0s")]
    pub(crate) warmup: Duration,
    /// How long calls still in flight at the end are waited for.
    #[arg(long, value_parser = duration, default_value = "10s")]
    pub(crate) drain: Duration,
    /// Process ids of the server, or of a cluster's members, to report their CPU time, memory
    /// and disk writes (Linux).
    #[arg(long, value_delimiter = ',')]
    pub(crate) pid: Vec<u32>,
}

/// Where the result goes, and when it counts as a failure.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Output")]
pub(crate) struct OutputArgs {
    /// Print one line of JSON to standard output; the table goes to standard error.
    #[arg(long)]
    pub(crate) json: bool,
    /// Write the line of JSON to this file.
    #[arg(long, value_name = "FILE")]
    pub(crate) json_file: Option<PathBuf>,
    /// No progress bar. There is none either where standard error is not a terminal.
    #[arg(long)]
    pub(crate) no_progress: bool,
    /// More failed calls than this make the exit status 1.
    #[arg(long, default_value_t = 0)]
    pub(crate) max_errors: u64,
}

/// The keys.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Keys")]
pub(crate) struct KeyArgs {
    /// Number of keys (k and m allowed).
    #[arg(long, value_parser = size, default_value = "10000")]
    pub(crate) keys: u64,
    /// Size of a key in bytes, prefix included: the prefix, then a number with leading zeros.
    #[arg(long, default_value_t = 8)]
    pub(crate) key_size: usize,
    /// What every key starts with.
    #[arg(long, default_value = "")]
    pub(crate) key_prefix: String,
    /// The order in which keys are used.
    #[arg(long, value_enum, default_value = "random")]
    pub(crate) order: Order,
}

/// The values.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Keys")]
pub(crate) struct ValueArgs {
    /// Size of a value in bytes.
    #[arg(long, default_value_t = 256)]
    pub(crate) value_size: usize,
}

/// Whether the keys are there already.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Keys")]
pub(crate) struct PrefillArgs {
    /// Do not put the keys first: they are there already.
    #[arg(long)]
    pub(crate) no_prefill: bool,
}

/// Options of `put`.
#[derive(Debug, Clone, Args)]
pub(crate) struct PutArgs {
    #[command(flatten)]
    pub(crate) load: LoadArgs,
    #[command(flatten)]
    pub(crate) keys: KeyArgs,
    #[command(flatten)]
    pub(crate) values: ValueArgs,
    #[command(flatten)]
    pub(crate) output: OutputArgs,
}

/// Options of `range`.
#[derive(Debug, Clone, Args)]
pub(crate) struct RangeArgs {
    /// Let the member answer from its own state, possibly stale. Without it reads are
    /// linearizable.
    #[arg(long)]
    pub(crate) serializable: bool,
    /// Read all keys in pages of so many, instead of single keys.
    #[arg(long, conflicts_with = "count_only")]
    pub(crate) limit: Option<NonZeroU32>,
    /// Ask only how many keys there are.
    #[arg(long)]
    pub(crate) count_only: bool,
    /// Leave the values out of the answers.
    #[arg(long)]
    pub(crate) keys_only: bool,
    #[command(flatten)]
    pub(crate) load: LoadArgs,
    #[command(flatten)]
    pub(crate) keys: KeyArgs,
    #[command(flatten)]
    pub(crate) values: ValueArgs,
    #[command(flatten)]
    pub(crate) prefill: PrefillArgs,
    #[command(flatten)]
    pub(crate) output: OutputArgs,
}

/// Options of `txn`.
#[derive(Debug, Clone, Args)]
pub(crate) struct TxnArgs {
    #[command(flatten)]
    pub(crate) load: LoadArgs,
    #[command(flatten)]
    pub(crate) keys: KeyArgs,
    #[command(flatten)]
    pub(crate) values: ValueArgs,
    #[command(flatten)]
    pub(crate) prefill: PrefillArgs,
    #[command(flatten)]
    pub(crate) output: OutputArgs,
}

/// Options of `mixed`.
#[derive(Debug, Clone, Args)]
pub(crate) struct MixedArgs {
    /// Share of reads, from 0 to 1.
    #[arg(long, value_parser = ratio, default_value = "0.9")]
    pub(crate) reads: f64,
    /// Let the member answer reads from its own state, possibly stale.
    #[arg(long)]
    pub(crate) serializable: bool,
    #[command(flatten)]
    pub(crate) load: LoadArgs,
    #[command(flatten)]
    pub(crate) keys: KeyArgs,
    #[command(flatten)]
    pub(crate) values: ValueArgs,
    #[command(flatten)]
    pub(crate) prefill: PrefillArgs,
    #[command(flatten)]
    pub(crate) output: OutputArgs,
}

/// Options of `fill`. It ends when all keys are there, whatever the load options say.
#[derive(Debug, Clone, Args)]
pub(crate) struct FillArgs {
    /// Puts in one transaction; 1 for plain puts, and a server refuses more than its limit,
    /// by default 128.
    #[arg(long, default_value = "100")]
    pub(crate) batch: NonZeroU32,
    #[command(flatten)]
    pub(crate) load: LoadArgs,
    #[command(flatten)]
    pub(crate) keys: KeyArgs,
    #[command(flatten)]
    pub(crate) values: ValueArgs,
    #[command(flatten)]
    pub(crate) output: OutputArgs,
}

/// Options of `empty`.
#[derive(Debug, Clone, Args)]
pub(crate) struct EmptyArgs {
    #[command(flatten)]
    pub(crate) load: LoadArgs,
    #[command(flatten)]
    pub(crate) output: OutputArgs,
}

/// Options of `empty-server`.
#[derive(Debug, Clone, Args)]
pub(crate) struct EmptyServerArgs {
    /// Where to listen; port 0 takes a free one, which is printed.
    #[arg(long, default_value = "127.0.0.1:2379")]
    pub(crate) listen: SocketAddr,
}

/// Options of `compare`.
#[derive(Debug, Clone, Args)]
pub(crate) struct CompareArgs {
    /// The castd binary: ratios are its figures over the others'.
    #[arg(long, value_name = "PATH")]
    pub(crate) castd: Option<PathBuf>,
    /// An etcd binary to compare with; may be given several times.
    #[arg(long, value_name = "PATH", required_unless_present = "castd")]
    pub(crate) etcd: Vec<PathBuf>,
    /// Members of each server, all on this machine; calls are spread over them.
    #[arg(long, default_value = "1")]
    pub(crate) members: NonZeroUsize,
    /// Rounds; in each, every server runs every work. Medians are reported.
    #[arg(long, default_value = "5")]
    pub(crate) rounds: NonZeroUsize,
    /// Length of the measured window of each work.
    #[arg(long, value_parser = duration, default_value = "10")]
    pub(crate) seconds: Duration,
    /// Load before each window.
    #[arg(long, value_parser = duration, default_value = "1s")]
    pub(crate) warmup: Duration,
    /// The works: put-N, get-ser-N, get-lin-N, txn-N, mixed-N (N clients), pages, fill-SIZE (as
    /// in 1m), count, restart. count and restart use the keys of fill, or fill 1m themselves.
    /// Watchers of one key: watch-N (50 puts a second), watch-flat-N (puts as fast as they are
    /// seen), watch-paced-N (50,000 events a second). Of a key each: watch-own-N (16 writers,
    /// also without watchers), watch-create-N, watch-memory-SxN (N on each of S streams).
    /// watch-slow-N: N watchers stop reading for 30 s. watch-past-N: one watcher from N revisions
    /// ago. With three members and more also
    /// failover-kill and failover-stop (the leader goes while others write) and catch-up-SIZE (a
    /// member comes back so many entries behind).
    #[arg(
        long,
        value_delimiter = ',',
        default_value = "put-1,put-64,put-256,put-1000,get-ser-64,get-ser-256,get-lin-64,\
                         get-lin-256,txn-64,txn-256,mixed-256,pages"
    )]
    pub(crate) work: Vec<String>,
    /// Calls a second during failover and catch-up.
    #[arg(long, value_parser = rate, default_value = "500")]
    pub(crate) rate: f64,
    /// Connections of each work.
    #[arg(long, default_value = "8")]
    pub(crate) connections: NonZeroUsize,
    /// Generator threads [default: 1, or 2 on more than 2 cores].
    #[arg(long)]
    pub(crate) threads: Option<NonZeroUsize>,
    /// Where the servers' fresh data directories are made (and removed) [default: the
    /// system's temporary directory]. It should be on the disk in question, not in memory;
    /// it is made when it is not there.
    #[arg(long)]
    pub(crate) dir: Option<PathBuf>,
    /// A further flag for castd; may be given several times.
    #[arg(long, value_name = "FLAG", allow_hyphen_values = true)]
    pub(crate) castd_arg: Vec<String>,
    /// A further flag for every etcd; may be given several times.
    #[arg(long, value_name = "FLAG", allow_hyphen_values = true)]
    pub(crate) etcd_arg: Vec<String>,
    /// Leave out the empty call that is measured beside the works.
    #[arg(long)]
    pub(crate) no_empty: bool,
    /// Write every figure of every round to this file, as JSON.
    #[arg(long, value_name = "FILE")]
    pub(crate) json_file: Option<PathBuf>,
    /// Write the medians and ratios to this file, as Markdown.
    #[arg(long, value_name = "FILE")]
    pub(crate) markdown: Option<PathBuf>,
    /// Draw how watch-flat-N and watch-paced-N grow with N, as SVG into this file.
    #[arg(long, value_name = "FILE")]
    pub(crate) picture: Option<PathBuf>,
    /// More failed calls than this make the exit status 1.
    #[arg(long, default_value_t = 0)]
    pub(crate) max_errors: u64,
}

/// Threads of the generator when nobody says otherwise: it should not crowd out the server.
pub(crate) fn default_threads() -> usize {
    let cores = std::thread::available_parallelism().map_or(1, NonZeroUsize::get);
    if cores > 2 { 2 } else { 1 }
}

impl LoadArgs {
    /// The plan these options describe.
    pub(crate) fn plan(&self, output: &OutputArgs) -> Plan {
        let unlimited = if self.total.is_some() { COUNTED_RUN_TIME_MAX } else { DEFAULT_DURATION };
        Plan {
            endpoints: self.endpoints.clone(),
            connections: self.connections.get(),
            clients: self.clients.get(),
            threads: self.threads.map_or_else(default_threads, NonZeroUsize::get),
            pace: self.rate.map_or(Pace::Closed, |rate| Pace::Open { rate }),
            warmup: self.warmup,
            duration: self.duration.unwrap_or(unlimited),
            total: self.total,
            drain: self.drain,
            pids: self.pid.clone(),
            progress: !output.no_progress,
            stop: None,
        }
    }
}

impl KeyArgs {
    /// The key space these options describe.
    ///
    /// # Errors
    /// When the keys' size does not suffice for their number.
    pub(crate) fn space(&self) -> Result<KeySpace, LoadError> {
        KeySpace::new(&self.key_prefix, self.key_size, self.keys, self.order)
    }
}

impl ValueArgs {
    /// The values these options describe.
    pub(crate) fn values(&self) -> Values {
        Values::new(self.value_size)
    }
}
