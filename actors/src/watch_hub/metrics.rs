//! The hub's figures, under etcd's names where etcd has them.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use prometheus::{IntCounter, IntGauge, IntGaugeVec, Opts, Registry};

/// The figures of all shards together, and of each where that says more.
#[derive(Clone, Debug)]
pub struct HubMetrics {
    streams: IntGauge,
    watchers: IntGauge,
    slow: IntGauge,
    pending: IntGauge,
    events: IntCounter,
    lag_revisions: IntGaugeVec,
    lag_milliseconds: IntGaugeVec,
}

impl HubMetrics {
    /// Makes the figures and registers them.
    ///
    /// # Errors
    /// When a name is taken.
    pub fn new(registry: &Registry) -> Result<Self, prometheus::Error> {
        let gauge = |name: &str, help: &str| -> Result<IntGauge, prometheus::Error> {
            let gauge = IntGauge::new(name, help)?;
            registry.register(Box::new(gauge.clone()))?;
            Ok(gauge)
        };
        let by_shard = |name: &str, help: &str| -> Result<IntGaugeVec, prometheus::Error> {
            let gauges = IntGaugeVec::new(Opts::new(name, help), &["shard"])?;
            registry.register(Box::new(gauges.clone()))?;
            Ok(gauges)
        };
        let events = IntCounter::new(
            "etcd_debugging_mvcc_events_total",
            "Events sent to watchers of this member.",
        )?;
        registry.register(Box::new(events.clone()))?;
        Ok(Self {
            streams: gauge("etcd_debugging_mvcc_watch_stream_total", "Open watch streams.")?,
            watchers: gauge("etcd_debugging_mvcc_watcher_total", "Watchers.")?,
            slow: gauge("etcd_debugging_mvcc_slow_watcher_total", "Watchers that lag.")?,
            pending: gauge(
                "etcd_debugging_mvcc_pending_events_total",
                "Revisions that lagging watchers have still to look at, summed up.",
            )?,
            events,
            lag_revisions: by_shard(
                "castd_watch_lag_revisions",
                "How many revisions the watcher that is furthest behind has not been sent.",
            )?,
            lag_milliseconds: by_shard(
                "castd_watch_lag_milliseconds",
                "For how long there has been what that watcher has not been sent.",
            )?,
        })
    }

    #[cfg(test)]
    pub(super) fn lagging(&self) -> (i64, i64) {
        (self.slow.get(), self.pending.get())
    }

    /// Shows how far behind a shard's last watcher is.
    pub(super) fn lag(&self, shard: &str, revisions: i64, time: Duration) {
        let milliseconds = i64::try_from(time.as_millis()).unwrap_or(i64::MAX);
        self.lag_revisions.with_label_values(&[shard]).set(revisions);
        self.lag_milliseconds.with_label_values(&[shard]).set(milliseconds);
    }
}

/// One shard's part of the figures, kept up at every change because counting
/// would be a walk through all watchers. What it has shown goes with it.
#[derive(Debug)]
pub(super) struct Backlog {
    metrics: HubMetrics,
    streams: i64,
    watchers: i64,
    slow: i64,
    /// The sum of the first revisions that each slow watcher must see.
    next_sum: i64,
    /// The newest revision.
    revision: i64,
    events: u64,
    /// Streams, watchers, slow ones and pending revisions as last shown.
    shown: [i64; 4],
}

impl Backlog {
    /// Nobody lags at `revision`.
    pub(super) fn new(metrics: HubMetrics, revision: i64) -> Self {
        let (streams, watchers, slow, next_sum, events) = (0, 0, 0, 0, 0);
        Self { metrics, streams, watchers, slow, next_sum, revision, events, shown: [0; 4] }
    }

    /// There are so many more streams.
    pub(super) fn streams(&mut self, more: i64) {
        self.streams += more;
    }

    /// There are so many more watchers.
    pub(super) fn watchers(&mut self, more: i64) {
        self.watchers += more;
    }

    /// So many events were sent.
    pub(super) fn sent(&mut self, events: usize) {
        self.events += events as u64;
    }

    /// There are changes up to `revision` now.
    pub(super) fn advance(&mut self, revision: i64) {
        self.revision = revision;
    }

    /// Watchers that must see everything from `next` on begin to lag.
    pub(super) fn enter(&mut self, watchers: usize, next: i64) {
        self.slow += watchers as i64;
        self.next_sum += next * watchers as i64;
    }

    /// Watchers that were at `next` lag no more, or are gone.
    pub(super) fn leave(&mut self, watchers: usize, next: i64) {
        self.slow -= watchers as i64;
        self.next_sum -= next * watchers as i64;
    }

    /// Watchers that lag have come from one revision to another.
    pub(super) fn advance_some(&mut self, watchers: usize, from: i64, to: i64) {
        self.next_sum += (to - from) * watchers as i64;
    }

    /// Brings the figures up to date.
    pub(super) fn show(&mut self) {
        let pending = self.slow * (self.revision + 1) - self.next_sum;
        let now = [self.streams, self.watchers, self.slow, pending];
        self.show_all(now);
        if self.events > 0 {
            self.metrics.events.inc_by(std::mem::take(&mut self.events));
        }
    }

    fn show_all(&mut self, now: [i64; 4]) {
        let HubMetrics { streams, watchers, slow, pending, .. } = &self.metrics;
        for (at, gauge) in [streams, watchers, slow, pending].into_iter().enumerate() {
            if now[at] != self.shown[at] {
                gauge.add(now[at] - self.shown[at]);
            }
        }
        self.shown = now;
    }
}

impl Drop for Backlog {
    fn drop(&mut self) {
        self.show_all([0; 4]);
    }
}

/// Marks that are kept at most.
const MARKS: usize = 4096;

/// When revisions came to be known. With time the older ones are known less exactly.
#[derive(Debug, Default)]
pub(super) struct Timeline(VecDeque<(i64, Instant)>);

impl Timeline {
    /// Everything up to `revision` is known since `now`.
    pub(super) fn mark(&mut self, revision: i64, now: Instant) {
        if self.0.back().is_some_and(|(last, _)| *last >= revision) {
            return;
        }
        if self.0.len() == MARKS {
            let mut keep = false;
            self.0.retain(|_| {
                keep = !keep;
                keep
            });
        }
        self.0.push_back((revision, now));
    }

    /// Nobody asks for revisions before `next` any more.
    pub(super) fn forget(&mut self, next: i64) {
        let known = self.0.partition_point(|(revision, _)| *revision < next);
        self.0.drain(..known);
    }

    /// How long `revision` has been known, or at least the oldest one still marked.
    pub(super) fn age(&self, revision: i64, now: Instant) -> Duration {
        let at = self.0.partition_point(|(marked, _)| *marked < revision);
        self.0.get(at).map_or(Duration::ZERO, |(_, since)| now.saturating_duration_since(*since))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_revision_is_as_old_as_the_mark_that_covers_it() {
        let mut timeline = Timeline::default();
        let begin = Instant::now();
        let at = |ms| begin + Duration::from_millis(ms);
        timeline.mark(5, at(0));
        timeline.mark(5, at(1));
        timeline.mark(9, at(10));
        assert_eq!(timeline.age(4, at(20)), Duration::from_millis(20));
        assert_eq!(timeline.age(6, at(20)), Duration::from_millis(10));
        assert_eq!(timeline.age(10, at(20)), Duration::ZERO, "nobody knows it yet");
        timeline.forget(6);
        assert_eq!(timeline.age(4, at(20)), Duration::from_millis(10), "the oldest still marked");
    }

    #[test]
    fn marks_are_thinned_out_and_the_oldest_one_stays() {
        let mut timeline = Timeline::default();
        let begin = Instant::now();
        for revision in 0..3 * MARKS as i64 {
            timeline.mark(revision, begin);
        }
        assert!(timeline.0.len() <= MARKS);
        assert_eq!(timeline.0.front().map(|(revision, _)| *revision), Some(0));
    }

    #[test]
    fn what_a_shard_has_shown_goes_with_it() {
        let metrics = HubMetrics::new(&Registry::new()).unwrap();
        let mut shards = [1, 2].map(|_| Backlog::new(metrics.clone(), 10));
        for shard in &mut shards {
            shard.watchers(3);
            shard.enter(2, 5);
            shard.show();
        }
        assert_eq!((metrics.watchers.get(), metrics.lagging()), (6, (4, 24)));
        drop(shards);
        assert_eq!((metrics.watchers.get(), metrics.lagging()), (0, (0, 0)));
    }
}
