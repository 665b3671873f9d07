//! Latencies in a histogram of constant size and three significant digits.

use std::time::Duration;

use hdrhistogram::Histogram;
use serde::Serialize;

/// The longest latency told apart from longer ones: ten minutes.
const LATENCY_NS_MAX: u64 = 600_000_000_000;

/// A bag of latencies.
#[derive(Debug, Clone)]
pub(crate) struct Latencies(Histogram<u64>);

/// What a report says of a bag of latencies. All but `count` in milliseconds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize)]
pub(crate) struct LatencySummary {
    /// Latencies recorded.
    pub(crate) count: u64,
    /// Arithmetic mean.
    pub(crate) mean_ms: f64,
    /// Half of the calls took no longer.
    pub(crate) p50_ms: f64,
    /// 90 of 100 calls took no longer.
    pub(crate) p90_ms: f64,
    /// 99 of 100 calls took no longer.
    pub(crate) p99_ms: f64,
    /// 999 of 1000 calls took no longer.
    pub(crate) p999_ms: f64,
    /// The slowest call.
    pub(crate) max_ms: f64,
}

impl Latencies {
    /// An empty bag.
    pub(crate) fn new() -> Self {
        let histogram = Histogram::new_with_bounds(1, LATENCY_NS_MAX, 3);
        Self(histogram.expect("constant bounds, and they are valid"))
    }

    /// Adds one latency.
    pub(crate) fn record(&mut self, latency: Duration) {
        self.0.saturating_record(u64::try_from(latency.as_nanos()).unwrap_or(u64::MAX));
    }

    /// Adds the same latency, in nanoseconds, so many times.
    pub(crate) fn record_ns(&mut self, nanoseconds: u64, times: u64) {
        self.0.saturating_record_n(nanoseconds, times);
    }

    /// Adds all of another bag.
    pub(crate) fn merge(&mut self, other: &Self) {
        self.0.add(&other.0).expect("all bags have the same bounds");
    }

    /// Latencies recorded.
    pub(crate) fn len(&self) -> u64 {
        self.0.len()
    }

    /// Mean, percentiles and maximum.
    pub(crate) fn summary(&self) -> LatencySummary {
        if self.0.is_empty() {
            return LatencySummary::default();
        }
        let at = |quantile| milliseconds(self.0.value_at_quantile(quantile) as f64);
        LatencySummary {
            count: self.len(),
            mean_ms: milliseconds(self.0.mean()),
            p50_ms: at(0.5),
            p90_ms: at(0.9),
            p99_ms: at(0.99),
            p999_ms: at(0.999),
            max_ms: milliseconds(self.0.max() as f64),
        }
    }
}

/// Nanoseconds as milliseconds, to the microsecond.
fn milliseconds(nanoseconds: f64) -> f64 {
    (nanoseconds / 1e3).round() / 1e3
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_of_a_known_distribution() {
        let mut latencies = Latencies::new();
        for microseconds in 1..=10_000 {
            latencies.record(Duration::from_micros(microseconds));
        }
        let summary = latencies.summary();
        assert_eq!(summary.count, 10_000);
        let near = |value: f64, wanted: f64| (value - wanted).abs() <= wanted * 0.002;
        assert!(near(summary.mean_ms, 5.0), "{summary:?}");
        assert!(near(summary.p50_ms, 5.0), "{summary:?}");
        assert!(near(summary.p90_ms, 9.0), "{summary:?}");
        assert!(near(summary.p99_ms, 9.9), "{summary:?}");
        assert!(near(summary.p999_ms, 9.99), "{summary:?}");
        assert!(near(summary.max_ms, 10.0), "{summary:?}");
    }

    #[test]
    fn merging_is_the_same_as_recording_together() {
        let (mut left, mut right, mut both) =
            (Latencies::new(), Latencies::new(), Latencies::new());
        for number in 0..5000_u64 {
            let latency = Duration::from_nanos(number * number);
            if number % 3 == 0 { &mut left } else { &mut right }.record(latency);
            both.record(latency);
        }
        left.merge(&right);
        assert_eq!(left.summary(), both.summary());
    }

    #[test]
    fn nothing_recorded_is_all_zero_and_an_hour_is_not_lost() {
        assert_eq!(Latencies::new().summary(), LatencySummary::default());
        let mut latencies = Latencies::new();
        latencies.record(Duration::from_secs(3600));
        latencies.record_ns(7, 3);
        assert_eq!(latencies.len(), 4);
        assert!(latencies.summary().max_ms >= 599_000.0);
    }
}
