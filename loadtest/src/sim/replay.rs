//! One seed, told from beginning to end: the same bytes every time.

use std::io::{self, BufWriter, Write};

use super::pool::Finished;
use super::work::seconds;

/// Prints everything that happened. Who reads may stop reading.
pub(super) fn tell(finished: &Finished) {
    let mut out = BufWriter::new(io::stdout().lock());
    let _ = write(&mut out, finished).and_then(|()| out.flush());
}

fn write(out: &mut impl Write, finished: &Finished) -> io::Result<()> {
    let settings = &finished.settings;
    let (seed, profile, span) = (settings.seed, settings.profile, seconds(settings.span));
    writeln!(out, "seed {seed}, {profile}, {span} s")?;
    let outcome = match &finished.outcome {
        Ok(outcome) => outcome,
        Err(said) => return writeln!(out, "the simulator panicked: {said}"),
    };
    writeln!(out, "\n==== plan")?;
    for (number, fault) in outcome.plan.iter().enumerate() {
        let left_out = if settings.without.contains(&number) { "  (left out)" } else { "" };
        writeln!(out, "{number:>4}  {fault}{left_out}")?;
    }
    writeln!(out, "\n==== story")?;
    outcome.story.iter().try_for_each(|line| writeln!(out, "{line}"))?;
    writeln!(out, "\n==== history\n{}", outcome.history)?;
    writeln!(out, "\n==== end")?;
    let (ended, steps, digest) = (seconds(outcome.ended), outcome.steps, outcome.digest);
    writeln!(out, "{ended:.6} s, {steps} steps, digest {digest:016x}")?;
    match outcome.problems.is_empty() {
        true => writeln!(out, "every promise held"),
        false => outcome.problems.iter().try_for_each(|problem| writeln!(out, "{problem}")),
    }
}
