//! Carries out one command of the command line.

use std::path::Path;

use crate::chaos;
use crate::cli::{
    Command, EmptyArgs, FillArgs, MixedArgs, OutputArgs, PutArgs, RangeArgs, TxnArgs, WatchArgs,
};
use crate::compare;
use crate::driver::{Plan, Work, measure};
use crate::error::LoadError;
use crate::keys::{KeySpace, Order, Values};
use crate::report::Report;
use crate::sim;
use crate::work::empty::{self, EmptyWork};
use crate::work::fill::{fill, prefill};
use crate::work::mixed::MixedWork;
use crate::work::put::PutWork;
use crate::work::range::{RangeWork, Shape};
use crate::work::txn::{self, TxnWork};
use crate::work::watch::{self, WatchOptions};

/// Digits of a watched key behind its prefix.
const WATCHED_KEY_DIGITS: usize = 8;

/// Carries out a command; answers whether its calls succeeded.
///
/// # Errors
/// When there was no run to speak of.
pub(crate) fn run(command: Command) -> Result<bool, LoadError> {
    match command {
        Command::Put(args) => run_put(&args),
        Command::Range(args) => run_range(&args),
        Command::Txn(args) => run_txn(&args),
        Command::Mixed(args) => run_mixed(&args),
        Command::Watch(args) => run_watch(&args),
        Command::Fill(args) => run_fill(&args),
        Command::Empty(args) => run_empty(&args),
        Command::EmptyServer(args) => empty::serve(args.listen).map(|()| true),
        Command::Compare(args) => compare::run(&args),
        Command::Chaos(args) => chaos::run(&args),
        Command::Sim(args) => sim::run(&args),
    }
}

fn run_put(args: &PutArgs) -> Result<bool, LoadError> {
    let work = PutWork { space: args.keys.space()?, values: args.values.values() };
    run_work("put", &work, &args.load.plan(&args.output), &args.output)
}

fn run_range(args: &RangeArgs) -> Result<bool, LoadError> {
    let plan = args.load.plan(&args.output);
    let space = args.keys.space()?;
    prefill_unless(args.prefill.no_prefill, &space, &args.values.values(), &plan)?;
    let shape = match (args.limit, args.count_only) {
        (Some(limit), _) => Shape::Pages { limit: limit.get() },
        (None, true) => Shape::Count,
        (None, false) => Shape::Get,
    };
    let (serializable, keys_only) = (args.serializable, args.keys_only);
    let work = RangeWork { space, shape, serializable, keys_only };
    run_work("range", &work, &plan, &args.output)
}

fn run_txn(args: &TxnArgs) -> Result<bool, LoadError> {
    let plan = args.load.plan(&args.output);
    let (space, values) = (args.keys.space()?, args.values.values());
    prefill_unless(args.prefill.no_prefill, &space, &values, &plan)?;
    let revisions = txn::learn(&space, &plan)?;
    run_work("txn", &TxnWork { space, values, revisions }, &plan, &args.output)
}

fn run_mixed(args: &MixedArgs) -> Result<bool, LoadError> {
    let plan = args.load.plan(&args.output);
    let (space, values) = (args.keys.space()?, args.values.values());
    prefill_unless(args.prefill.no_prefill, &space, &values, &plan)?;
    let (reads, serializable) = (args.reads, args.serializable);
    run_work("mixed", &MixedWork { space, values, reads, serializable }, &plan, &args.output)
}

fn run_watch(args: &WatchArgs) -> Result<bool, LoadError> {
    let scenario = args.scenario()?;
    let watchers = args.watchers.max(1) as usize;
    let key_bytes = args.key_prefix.len() + WATCHED_KEY_DIGITS;
    let keys = scenario.keys(watchers);
    let options = WatchOptions {
        scenario,
        watchers,
        streams: args.streams.get(),
        connections: args.load.connections.get(),
        space: KeySpace::new(&args.key_prefix, key_bytes, keys, Order::Sequential)?,
        value_bytes: args.values.value_size,
        ahead: args.ahead,
        grace: args.grace,
    };
    finish(&watch::run(&options, &args.load.plan(&args.output))?, &args.output)
}

fn run_fill(args: &FillArgs) -> Result<bool, LoadError> {
    let (space, values) = (args.keys.space()?, args.values.values());
    let measured = fill(&space, &values, args.batch.get(), &args.load.plan(&args.output))?;
    finish(&Report::new("fill", &measured), &args.output)
}

fn run_empty(args: &EmptyArgs) -> Result<bool, LoadError> {
    run_work("empty", &EmptyWork, &args.load.plan(&args.output), &args.output)
}

fn prefill_unless(
    there: bool,
    space: &KeySpace,
    values: &Values,
    plan: &Plan,
) -> Result<(), LoadError> {
    if there { Ok(()) } else { prefill(space, values, plan) }
}

fn run_work<W: Work>(
    name: &str,
    work: &W,
    plan: &Plan,
    output: &OutputArgs,
) -> Result<bool, LoadError> {
    finish(&Report::new(name, &measure(work, plan)?), output)
}

/// Hands the report over; answers whether few enough calls failed.
fn finish(report: &Report, output: &OutputArgs) -> Result<bool, LoadError> {
    let line = serde_json::to_string(report).expect("a report is numbers and texts");
    if output.json {
        println!("{line}");
        eprint!("{report}");
    } else {
        print!("{report}");
    }
    if let Some(path) = &output.json_file {
        write_file(path, &format!("{line}\n"))?;
    }
    Ok(report.faults() <= output.max_errors)
}

/// Writes a file that a command was asked for.
///
/// # Errors
/// When it cannot be written.
pub(crate) fn write_file(path: &Path, text: &str) -> Result<(), LoadError> {
    let what = "cannot write";
    std::fs::write(path, text).map_err(|source| LoadError::File { what, path: path.into(), source })
}
