//! A progress bar on a terminal; nothing where there is none.

use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::driver::Plan;

/// The bar of one run: of its calls where their number is given, else of its time.
pub(crate) struct Progress {
    bar: ProgressBar,
    counts_calls: bool,
}

impl Progress {
    /// Draws an empty bar, if the plan wants one and standard error is a terminal.
    pub(crate) fn start(plan: &Plan) -> Self {
        let counts_calls = plan.total.is_some();
        if !plan.progress {
            return Self { bar: ProgressBar::hidden(), counts_calls };
        }
        let length = plan.total.unwrap_or_else(|| millis(plan.warmup + plan.duration));
        let template = match counts_calls {
            true => "{bar:30} {pos}/{len} calls  {msg}",
            false => "{bar:30} {elapsed}  {msg}",
        };
        let bar = ProgressBar::with_draw_target(Some(length), ProgressDrawTarget::stderr());
        let style = ProgressStyle::with_template(template);
        let bar = bar.with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
        Self { bar, counts_calls }
    }

    /// Brings the bar up to date: `calls` have been answered since `start`.
    pub(crate) fn update(&self, start: Instant, calls: u64) {
        let passed = start.elapsed();
        let rate = calls as f64 / passed.as_secs_f64().max(1e-3);
        self.bar.set_message(format!("{rate:.0} calls/s"));
        self.bar.set_position(if self.counts_calls { calls } else { millis(passed) });
    }

    /// Takes the bar away.
    pub(crate) fn finish(&self) {
        self.bar.finish_and_clear();
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
