//! The harness: puts load on any server that speaks etcd's v3 API, and compares servers.
//!
//! | module | what it is for |
//! |---|---|
//! | [`cli`] | options, and how they become plans |
//! | [`work`] | what the calls of a workload are |
//! | [`driver`] | threads, clients, closed and open loop, the measured window |
//! | [`grpc`] | the cheapest client that still speaks gRPC |
//! | [`keys`], [`latency`], [`process`] | keys and values; histograms; CPU, memory, disk writes |
//! | [`report`], [`progress`] | what people and programs get to read |
//! | [`compare`] | starts servers in turns and prints ratios |
//! | [`chaos`] | starts a cluster, does it harm, checks what it promised |
//! | [`sim`] | runs simulated clusters, a seed each, tells and shrinks what fails |

mod chaos;
mod cli;
mod commands;
mod compare;
mod driver;
mod error;
mod grpc;
mod keys;
mod latency;
mod process;
mod progress;
mod report;
mod sim;
mod work;

use std::process::ExitCode;

use clap::Parser;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Exit status of a run with more failed calls than allowed.
const FAILED_CALLS: u8 = 1;
/// Exit status when there was no run. The same as for options that cannot be read.
const NO_RUN: u8 = 2;
/// Exit status when the rights for a run are missing.
const NO_RIGHTS: u8 = 3;

fn main() -> ExitCode {
    match commands::run(cli::Cli::parse().command) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::from(FAILED_CALLS),
        Err(error) => {
            eprintln!("loadtest: {error}");
            let is_rights = matches!(error, error::LoadError::Rights { .. });
            ExitCode::from(if is_rights { NO_RIGHTS } else { NO_RUN })
        }
    }
}
