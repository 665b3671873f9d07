//! Starts servers in turns on fresh directories, runs the same works on them, and sums up.
//!
//! In each round every work is run by every server, one server at a time, and the order of the
//! servers changes from round to round: whatever else the machine does falls on all of them.

mod ask;
mod catch_up;
mod cluster;
mod contender;
mod facts;
mod failover;
mod figures;
mod markdown;
mod picture;
mod server;
mod stage;
mod summary;
mod watches;
mod works;
mod writers;

use serde::Serialize;

use crate::cli::CompareArgs;
use crate::commands::write_file;
use crate::error::LoadError;
use contender::Contender;
use facts::Facts;
use figures::Row;
use stage::{Bench, Stage};
use summary::Summary;

/// Everything a comparison found out.
#[derive(Debug, Serialize)]
struct Comparison {
    facts: Facts,
    summary: Summary,
    /// Each figure of each round.
    rounds: Vec<Row>,
}

/// Runs the comparison; answers whether few enough calls failed.
///
/// # Errors
/// When a server does not start, stop or answer, or a file cannot be written.
pub(crate) fn run(args: &CompareArgs) -> Result<bool, LoadError> {
    let contenders = Contender::all(args)?;
    let stages = works::stages(&args.work, args.members.get())?;
    if args.picture.is_some() {
        picture::check(&stages)?;
    }
    let bench = Bench::new(args)?;
    let facts = Facts::gather(&contenders, &bench);
    let mut rows = Vec::new();
    for round in 1..=args.rounds.get() {
        for stage in &stages {
            run_stage(stage, round, &contenders, &bench, &mut rows)?;
        }
        if !args.no_empty {
            run_empty_calls(&stages, round, &bench, &mut rows)?;
        }
    }
    let summary = Summary::of(&rows, &contenders);
    let comparison = Comparison { facts: facts.finished(), summary, rounds: rows };
    publish(&comparison, args)?;
    let errors: u64 = comparison.rounds.iter().map(|row| row.errors).sum();
    if errors > 0 {
        eprintln!("{errors} faults, see the rounds");
    }
    Ok(errors <= args.max_errors)
}

/// One stage by every server; the one that begins is another one in each round.
fn run_stage(
    stage: &Stage,
    round: usize,
    contenders: &[Contender],
    bench: &Bench,
    rows: &mut Vec<Row>,
) -> Result<(), LoadError> {
    for turn in 0..contenders.len() {
        let contender = &contenders[(turn + round - 1) % contenders.len()];
        for row in stage.run(contender, bench)? {
            keep(row, round, rows);
        }
    }
    Ok(())
}

/// The empty call with each number of clients that a work of the round had.
fn run_empty_calls(
    stages: &[Stage],
    round: usize,
    bench: &Bench,
    rows: &mut Vec<Row>,
) -> Result<(), LoadError> {
    let mut counts: Vec<usize> = stages.iter().filter_map(Stage::clients).collect();
    counts.sort_unstable();
    counts.dedup();
    for clients in counts {
        keep(stage::run_empty(clients, bench)?, round, rows);
    }
    Ok(())
}

fn keep(row: Row, round: usize, rows: &mut Vec<Row>) {
    let row = Row { round, ..row };
    eprintln!("round {round}  {row}");
    rows.push(row);
}

fn publish(comparison: &Comparison, args: &CompareArgs) -> Result<(), LoadError> {
    let text = markdown::document(&comparison.facts, &comparison.summary);
    println!("{text}");
    if let Some(path) = &args.markdown {
        write_file(path, &text)?;
    }
    if let Some(path) = &args.picture {
        write_file(path, &picture::document(&comparison.summary))?;
    }
    if let Some(path) = &args.json_file {
        let json = serde_json::to_string(comparison).expect("numbers and texts");
        write_file(path, &format!("{json}\n"))?;
    }
    Ok(())
}
