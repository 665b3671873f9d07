//! Whole clusters in virtual time, a seed each: [`castd_sim`] runs them, this tells of it.
//!
//! Owns: which seeds are run, in which threads, and what is said about them.
//! Never does: decide anything of what happens in a world. That follows from its settings.
//!
//! | module | what it is for |
//! |---|---|
//! | [`work`] | what is to be run |
//! | [`pool`] | threads that take one seed after the other |
//! | [`replay`] | one seed, told from beginning to end |
//! | [`failure`] | a failure: shrunk, run again, told |
//! | [`summary`] | everything that was seen, and what was not |

mod failure;
mod pool;
mod replay;
mod summary;
mod work;

use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::cli::SimArgs;
use crate::commands::write_file;
use crate::error::LoadError;
use crate::process::cpu_time;
use pool::Finished;
use summary::Summary;
use work::Work;

/// How the progress of seeds is drawn.
const SEEDS_BAR: &str = "{bar:30} {pos}/{len} seeds  {msg}";

/// Runs the seeds; answers whether every promise held.
///
/// # Errors
/// When the options make no sense, or a file cannot be written.
pub(crate) fn run(args: &SimArgs) -> Result<bool, LoadError> {
    let work = Work::new(args)?;
    let cpu_before = cpu_time(std::process::id())?;
    let begun = Instant::now();
    let mut summary = Summary::new(&work);
    let mut failed = run_seeds(args, &work, begun, &mut summary)?;
    let cpu = cpu_time(std::process::id())?.saturating_sub(cpu_before);
    summary.finish(begun.elapsed(), cpu);
    failed.sort_unstable_by_key(|failed| failed.settings.seed);
    for (number, failed) in failed.into_iter().enumerate() {
        let shrinks = args.shrink || (number == 0 && work.shrinks);
        let runs = if shrinks { args.shrink_runs.get() } else { 0 };
        let failure = failure::examine(failed, runs, args.no_progress);
        match args.json || args.verbose {
            true => eprintln!("{failure}"),
            false => println!("{failure}"),
        }
        summary.failures.push(failure);
    }
    hand_over(args, &summary)?;
    Ok(summary.failures.is_empty())
}

/// Runs the seeds, and gives those that failed.
fn run_seeds(
    args: &SimArgs,
    work: &Work,
    begun: Instant,
    summary: &mut Summary,
) -> Result<Vec<Finished>, LoadError> {
    let mut failed = Vec::new();
    let bar = bar(work.count(), args.no_progress || args.verbose);
    pool::run(work, begun, |finished| {
        summary.add(&finished);
        let fails = finished.fails();
        if args.verbose {
            replay::tell(&finished);
        }
        if fails {
            failed.push(finished);
        }
        bar.inc(1);
        bar.set_message(progress(summary, begun.elapsed(), failed.len()));
        !fails || args.keep_going
    })?;
    bar.finish_and_clear();
    Ok(failed)
}

fn bar(seeds: u64, hidden: bool) -> ProgressBar {
    if hidden {
        return ProgressBar::hidden();
    }
    let bar = ProgressBar::with_draw_target(Some(seeds), ProgressDrawTarget::stderr());
    let style = ProgressStyle::with_template(SEEDS_BAR);
    bar.with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()))
}

fn progress(summary: &Summary, passed: Duration, failures: usize) -> String {
    let hours = summary.virtual_hours();
    let ratio = hours * 3600.0 / passed.as_secs_f64().max(1e-3);
    format!("{hours:.2} virtual hours, {ratio:.0}:1, {failures} failures")
}

fn hand_over(args: &SimArgs, summary: &Summary) -> Result<(), LoadError> {
    let line = serde_json::to_string(summary).expect("a summary is numbers and texts");
    match args.json || args.verbose {
        true => eprint!("{summary}"),
        false => print!("{summary}"),
    }
    if args.json {
        println!("{line}");
    }
    match &args.json_file {
        Some(path) => write_file(path, &format!("{line}\n")),
        None => Ok(()),
    }
}
