//! A failure: what it does not need is left out, it is run again, and told.

use std::collections::HashSet;
use std::fmt;

use castd_check::Problem;
use castd_sim::{Attempt, Outcome, Settings, shrink};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde::Serialize;

use super::pool::Finished;
use super::work::{command, seconds};

/// Lines of the story that are told, the last before the problem.
const LINES: usize = 40;
/// Milestones that are told of what was before.
const MILESTONES: usize = 20;
/// What is no milestone: messages, links that stand up.
const SMALL: [&str; 2] = [" -> m", " connected to "];
/// Problems that are told; one often leads to others.
const PROBLEMS: usize = 3;
/// Messages that are left out of what is told: they come all the time.
const NOISE: [&str; 2] = [" Heartbeat ", " HeartbeatResponse "];

/// A seed that failed.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(super) struct Failure {
    seed: u64,
    profile: String,
    /// What must not be, the first first.
    problems: Vec<Problem>,
    /// The command that runs it again.
    replay: String,
    /// The faults of the plan that happened, with their numbers.
    faults: Vec<(usize, String)>,
    /// When the world ended, in virtual seconds.
    ended_seconds: f64,
    /// What shrinking it came to, where that was wished for.
    shrunk: Option<Shrunk>,
    /// What happened last before the problem.
    transcript: Vec<String>,
}

/// What shrinking came to.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
struct Shrunk {
    runs: usize,
    faults_before: usize,
    faults: usize,
    span_seconds_before: f64,
    span_seconds: f64,
}

/// Looks into a failure, in at most so many runs for shrinking it; 0 for none.
pub(super) fn examine(failed: Finished, shrink_runs: usize, no_progress: bool) -> Failure {
    let settings = failed.settings;
    let before = match failed.outcome {
        Ok(outcome) => outcome,
        Err(said) => return panicked(&settings, said),
    };
    let shrinks = shrink_runs > 0;
    let (least, runs) = if shrinks {
        shrink_shown(&settings, shrink_runs, no_progress)
    } else {
        (settings.clone(), 0)
    };
    let again = Finished::run(Settings { verbose: true, ..least.clone() });
    let outcome = match again.outcome {
        Ok(outcome) => outcome,
        Err(said) => return panicked(&least, said),
    };
    let shrunk = shrinks.then(|| Shrunk {
        runs,
        faults_before: before.plan.len().saturating_sub(settings.without.len()),
        faults: kept(&least, &outcome).len(),
        span_seconds_before: seconds(settings.span),
        span_seconds: seconds(least.span),
    });
    let mut failure = Failure::new(&least, &outcome, shrunk);
    let is_same = least.span != settings.span
        || least.without != settings.without
        || outcome.digest == before.digest;
    if failure.problems.is_empty() || !is_same {
        let text = "a second run of this seed went another way".to_owned();
        failure.problems = before.problems;
        failure.problems.insert(0, Problem::new("a seed is a world", text));
    }
    failure
}

fn shrink_shown(settings: &Settings, runs_max: usize, no_progress: bool) -> (Settings, usize) {
    let seed = settings.seed;
    eprintln!("seed {seed} failed; looking for what its failure does not need");
    let bar = match no_progress {
        true => ProgressBar::hidden(),
        false => {
            let target = ProgressDrawTarget::stderr();
            let style = ProgressStyle::with_template("shrinking: {pos}/{len} runs  {msg}");
            ProgressBar::with_draw_target(Some(runs_max as u64), target)
                .with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()))
        }
    };
    let mut runs = 0;
    let least = shrink(settings, runs_max, |Attempt { settings, runs: before, faults }| {
        runs = before + 1;
        bar.set_position(*before as u64);
        bar.set_message(format!("trying {faults} faults in {} s", seconds(settings.span)));
    });
    bar.finish_and_clear();
    (least, runs)
}

fn panicked(settings: &Settings, said: String) -> Failure {
    Failure {
        seed: settings.seed,
        profile: settings.profile.to_string(),
        problems: vec![Problem::new("the simulator itself goes on", said)],
        replay: command(settings),
        faults: Vec::new(),
        ended_seconds: 0.0,
        shrunk: None,
        transcript: Vec::new(),
    }
}

/// The faults that were not left out.
fn kept(settings: &Settings, outcome: &Outcome) -> Vec<(usize, String)> {
    let plan = outcome.plan.iter().cloned().enumerate();
    plan.filter(|(number, _)| !settings.without.contains(number)).collect()
}

impl Failure {
    /// The seed.
    pub(super) fn seed(&self) -> u64 {
        self.seed
    }

    fn new(settings: &Settings, outcome: &Outcome, shrunk: Option<Shrunk>) -> Self {
        let text = outcome.problems.first().map_or("", |problem| &problem.text);
        Self {
            seed: settings.seed,
            profile: settings.profile.to_string(),
            problems: outcome.problems.clone(),
            replay: command(settings),
            faults: kept(settings, outcome),
            ended_seconds: seconds(outcome.ended),
            shrunk,
            transcript: transcript(&outcome.story, text),
        }
    }
}

/// What led to a problem: the last milestones (faults, starts, leaders), then the last lines
/// of all before the last moment that the problem names, or before the end.
fn transcript(story: &[String], problem: &str) -> Vec<String> {
    let time = |line: &String| line.split_whitespace().next().and_then(moment);
    let Some(end) = story.last().and_then(time) else { return story.to_vec() };
    let until = last_moment(problem, end).unwrap_or(end);
    let before = story.iter().filter(|line| time(line).is_none_or(|time| time <= until));
    let telling = before.filter(|line| !NOISE.iter().any(|noise| line.contains(noise)));
    let telling = latest_of_each(telling.collect());
    let (earlier, last) = telling.split_at(telling.len().saturating_sub(LINES));
    let milestones = earlier.iter().filter(|line| !SMALL.iter().any(|small| line.contains(small)));
    let mut milestones: Vec<&String> = milestones.copied().collect();
    let skipped = milestones.len().saturating_sub(MILESTONES);
    milestones.drain(..skipped);
    let gap = (earlier.len() > milestones.len()).then(|| format!("{:>14}", "..."));
    let told = milestones.into_iter().cloned().chain(gap);
    told.chain(last.iter().map(|line| (*line).clone())).collect()
}

/// What is said again and again, as it was last said.
fn latest_of_each(mut lines: Vec<&String>) -> Vec<&String> {
    let mut said = HashSet::new();
    lines.reverse();
    lines
        .retain(|line| said.insert(line.trim_start().split_once(' ').map_or("", |(_, what)| what)));
    lines.reverse();
    lines
}

/// A time as the story has it: seconds with six places.
fn moment(text: &str) -> Option<f64> {
    let (_, places) = text.split_once('.')?;
    if places.len() == 6 { text.parse().ok() } else { None }
}

fn last_moment(text: &str, end: f64) -> Option<f64> {
    let words = text.split(|c: char| !c.is_ascii_digit() && c != '.');
    words.filter_map(moment).filter(|time| *time <= end).max_by(f64::total_cmp)
}

impl fmt::Display for Failure {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(out, "\nFAILED: seed {}, {}", self.seed, self.profile)?;
        for Problem { promise, text } in self.problems.iter().take(PROBLEMS) {
            writeln!(out, "  broken      {promise}")?;
            let mut lines = text.lines().filter(|line| !line.trim().is_empty());
            lines.try_for_each(|line| writeln!(out, "              {line}"))?;
        }
        if self.problems.len() > PROBLEMS {
            writeln!(out, "              and {} more", self.problems.len() - PROBLEMS)?;
        }
        writeln!(out, "  replay      {}", self.replay)?;
        if let Some(shrunk) = &self.shrunk {
            let Shrunk { runs, faults_before, faults, span_seconds_before, span_seconds } = shrunk;
            writeln!(
                out,
                "  shrunk      from {faults_before} faults in {span_seconds_before} s \
                 to {faults} in {span_seconds} s; {runs} runs"
            )?;
        }
        if self.transcript.is_empty() {
            return Ok(());
        }
        writeln!(out, "  faults{}", if self.faults.is_empty() { "      none" } else { "" })?;
        for (number, fault) in &self.faults {
            writeln!(out, "        {number:>4}  {fault}")?;
        }
        writeln!(out, "  milestones, then the last lines before it: no heartbeats, nothing twice")?;
        self.transcript.iter().try_for_each(|line| writeln!(out, "{line}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn story() -> Vec<String> {
        let line = |at: usize| match at % 4 {
            0 => format!("m1 leads in term {at}"),
            1 => format!("m1 -> m2 Append term {at}"),
            2 => "m1 -> m2 Heartbeat term 1".to_owned(),
            _ => "m1 connected to m2".to_owned(),
        };
        (0..400).map(|at| format!("{:>14} {}", format!("{at}.000000"), line(at))).collect()
    }

    #[test]
    fn a_transcript_ends_with_the_problem() {
        let told = transcript(&story(), "");
        assert_eq!(told.len(), MILESTONES + 1 + LINES);
        assert!(told.last().unwrap().contains(" 399.000000 "), "{told:?}");
        assert!(told[..MILESTONES].iter().all(|line| line.contains("leads")), "{told:?}");
        assert_eq!(told[MILESTONES].trim(), "...");
        assert!(!told.iter().any(|line| line.contains("Heartbeat")));
        let told = transcript(&story(), "[  7.500000   8.000001] client 1 saw 400 of 900.000000");
        assert_eq!(told.len(), 6, "what is said twice is told once: {told:?}");
        assert!(told.last().unwrap().contains(" 8.000000 m1 leads in term 8"), "{told:?}");
        assert_eq!(transcript(&[], "x"), Vec::<String>::new());
    }

    #[test]
    fn what_does_not_come_again_is_told() {
        let settings =
            Settings { span: castd_sim::SECOND, ..Settings::new(1, castd_sim::Profile::Quiet) };
        let mut finished = Finished::run(settings);
        let problem = Problem::new("made up", "it is\nnot there");
        finished.outcome.as_mut().unwrap().problems.push(problem.clone());
        assert!(finished.fails());
        let failure = examine(finished, 0, true);
        assert_eq!(failure.problems.len(), 2, "{failure}");
        assert_eq!(failure.problems[0].promise, "a seed is a world");
        assert_eq!(failure.problems[1], problem);
        assert_eq!(failure.replay, "loadtest sim --seed 1 --profile quiet --span 1 --verbose");
        assert!(failure.to_string().contains("\n              not there\n"), "{failure}");
    }

    #[test]
    fn a_panic_has_its_command_too() {
        let settings = Settings::new(5, castd_sim::Profile::Wild);
        let failure = panicked(&settings, "oh".to_owned());
        assert_eq!(failure.replay, "loadtest sim --seed 5 --verbose");
        assert!(failure.to_string().contains("oh"), "{failure}");
    }
}
