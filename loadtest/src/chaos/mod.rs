//! Faults, for real: a cluster of real processes, clients whose history is recorded, and a
//! checker that says whether every promise held.
//!
//! Owns: the order of a run's rounds, each with a fresh cluster, and its report.
//! Never does: work on any cluster it has not started itself.
//!
//! | module | what it is for |
//! |---|---|
//! | [`settings`] | what a run is to do |
//! | [`fault`], [`inject`] | the kinds of faults, the plan drawn from a seed; begin and end of each |
//! | [`network`], [`member`], [`cluster`] | namespaces and the switch between them; processes and disks; all of them together |
//! | [`session`], [`wire`] | a client's connection; keys, values and events as bytes |
//! | [`workload`], [`watchers`], [`leases`] | who reads and writes, who watches, who holds leases |
//! | [`history`] | how they write down what they were told; whether that can be is for [`castd_check`] |
//! | [`round`], [`report`], [`run_dir`] | one round, what is told about it, its directory |

mod cluster;
mod fault;
mod history;
mod inject;
mod leases;
mod member;
mod network;
mod report;
mod round;
mod run_dir;
mod session;
mod settings;
mod watchers;
mod wire;
mod workload;

use tokio::runtime::{Builder, LocalOptions};
use tokio::signal::unix::{SignalKind, signal};

use crate::cli::ChaosArgs;
use crate::commands::write_file;
use crate::error::LoadError;
use crate::process::cpu_time;
use report::{ChaosReport, RoundReport};
use settings::Settings;

/// Runs all rounds; answers whether every promise held.
///
/// # Errors
/// When a round could not be made: rights are missing, or the server does not start.
pub(crate) fn run(args: &ChaosArgs) -> Result<bool, LoadError> {
    let settings = Settings::new(args)?;
    let mut rounds = Vec::new();
    for seed in &settings.seeds {
        eprintln!("seed {seed}: {} members of {}", settings.members, settings.version);
        let round = in_own_thread(&settings, *seed)?;
        eprint!("{round}");
        rounds.push(round);
    }
    let report = ChaosReport::new(&settings.version, rounds, cpu_time(std::process::id())?);
    if report.rounds.len() > 1 {
        eprint!("{report}");
    }
    let line = serde_json::to_string(&report).expect("a report is numbers and texts");
    if args.json {
        println!("{line}");
    }
    if let Some(path) = &args.json_file {
        write_file(path, &format!("{line}\n"))?;
    }
    Ok(report.held())
}

/// A round moves its thread into a network namespace: that thread is not to be used again.
fn in_own_thread(settings: &Settings, seed: u64) -> Result<RoundReport, LoadError> {
    std::thread::scope(|scope| {
        let round = std::thread::Builder::new()
            .name("round".into())
            .spawn_scoped(scope, || run_round(settings, seed))
            .map_err(LoadError::Runtime)?;
        round.join().map_err(|_| LoadError::Thread)?
    })
}

fn run_round(settings: &Settings, seed: u64) -> Result<RoundReport, LoadError> {
    let runtime = Builder::new_current_thread()
        .enable_all()
        .build_local(LocalOptions::default())
        .map_err(LoadError::Runtime)?;
    runtime.block_on(async {
        let mut interrupt = signal(SignalKind::interrupt()).map_err(LoadError::Runtime)?;
        let mut terminate = signal(SignalKind::terminate()).map_err(LoadError::Runtime)?;
        tokio::select! {
            round = round::run(settings, seed) => round,
            _ = interrupt.recv() => Err(LoadError::Interrupted),
            _ = terminate.recv() => Err(LoadError::Interrupted),
        }
    })
}
