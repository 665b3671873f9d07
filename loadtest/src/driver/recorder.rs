//! What one thread's clients write down.

use std::collections::BTreeMap;
use std::time::Instant;

use super::Done;
use super::window::{Counted, Window};
use crate::grpc::CallError;
use crate::latency::Latencies;

/// The most different error texts kept; what comes beyond is counted together.
const ERROR_TEXTS_MAX: usize = 100;
/// Under this text.
const OTHER_ERRORS: &str = "(other errors)";

/// Figures of one kind of call.
#[derive(Debug, Clone)]
pub(crate) struct Track {
    /// The kind's name.
    pub(crate) kind: &'static str,
    /// Calls that ended in the window.
    pub(crate) calls: u64,
    /// Keys those calls touched.
    pub(crate) items: u64,
    /// Latencies, of calls that ended late too.
    pub(crate) latencies: Latencies,
}

/// All figures of one thread, or, merged, of a run.
#[derive(Debug, Clone)]
pub(crate) struct Recorder {
    window: Window,
    /// One for each kind of call.
    pub(crate) tracks: Vec<Track>,
    /// Failed calls by text, warm-up included.
    pub(crate) errors: BTreeMap<String, u64>,
    /// The end of the last call that counted.
    pub(crate) last_end: Option<Instant>,
    /// Calls that were due and never made (open loop).
    pub(crate) unsent: u64,
}

impl Recorder {
    /// An empty record.
    pub(crate) fn new(window: Window, kinds: &[&'static str]) -> Self {
        let track =
            |kind: &&'static str| Track { kind, calls: 0, items: 0, latencies: Latencies::new() };
        Self {
            window,
            tracks: kinds.iter().map(track).collect(),
            errors: BTreeMap::new(),
            last_end: None,
            unsent: 0,
        }
    }

    /// Writes down a call that succeeded.
    pub(crate) fn success(&mut self, done: Done, begun: Instant, ended: Instant) {
        let counted = self.window.counted(begun, ended);
        if counted == Counted::No {
            return;
        }
        let track = &mut self.tracks[done.kind];
        track.latencies.record(ended.saturating_duration_since(begun));
        if counted == Counted::Fully {
            track.calls += 1;
            track.items += done.items;
            self.last_end = self.last_end.max(Some(ended));
        }
    }

    /// Writes down a call that failed.
    pub(crate) fn failure(&mut self, error: &CallError) {
        self.count_error(error.to_string(), 1);
    }

    /// Counts `times` errors with the same text.
    pub(crate) fn count_error(&mut self, text: String, times: u64) {
        let known = self.errors.contains_key(&text) || self.errors.len() < ERROR_TEXTS_MAX;
        let text = if known { text } else { OTHER_ERRORS.to_owned() };
        *self.errors.entry(text).or_default() += times;
    }

    /// Adds another thread's record to this one.
    pub(crate) fn merge(&mut self, other: Self) {
        for (mine, theirs) in self.tracks.iter_mut().zip(other.tracks) {
            mine.calls += theirs.calls;
            mine.items += theirs.items;
            mine.latencies.merge(&theirs.latencies);
        }
        for (text, times) in other.errors {
            self.count_error(text, times);
        }
        self.last_end = self.last_end.max(other.last_end);
        self.unsent += other.unsent;
    }

    /// Calls that count, of all kinds.
    pub(crate) fn calls(&self) -> u64 {
        self.tracks.iter().map(|track| track.calls).sum()
    }

    /// Failed calls.
    pub(crate) fn error_count(&self) -> u64 {
        self.errors.values().sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn window() -> Window {
        Window::new(Instant::now(), Duration::from_secs(1), Duration::from_secs(1), false)
    }

    #[test]
    fn only_the_window_counts_and_late_answers_stay_in_the_latencies() {
        let window = window();
        let mut recorder = Recorder::new(window, &["get", "put"]);
        let ms = Duration::from_millis;
        recorder.success(Done::one(1), window.start, window.start + ms(5));
        recorder.success(Done { kind: 1, items: 7 }, window.begin, window.begin + ms(2));
        recorder.success(Done::one(1), window.begin, window.end + ms(3000));
        assert_eq!(recorder.calls(), 1);
        assert_eq!(recorder.tracks[1].items, 7);
        assert_eq!(recorder.tracks[1].latencies.len(), 2);
        assert_eq!(recorder.tracks[0].latencies.len(), 0);
        assert_eq!(recorder.last_end, Some(window.begin + ms(2)));
    }

    #[test]
    fn threads_merge_into_one() {
        let window = window();
        let mut whole = Recorder::new(window, &["put"]);
        for thread in 1..=3 {
            let mut part = Recorder::new(window, &["put"]);
            for _ in 0..thread {
                part.success(Done::one(0), window.begin, window.begin);
            }
            part.failure(&CallError::WrongAnswer("x".into()));
            part.unsent = thread;
            whole.merge(part);
        }
        assert_eq!(whole.calls(), 6);
        assert_eq!(whole.unsent, 6);
        assert_eq!(whole.error_count(), 3);
        assert_eq!(whole.errors.len(), 1);
    }

    #[test]
    fn endless_different_error_texts_stay_bounded() {
        let mut recorder = Recorder::new(window(), &["put"]);
        for number in 0..1000 {
            recorder.count_error(format!("error {number}"), 1);
        }
        assert_eq!(recorder.errors.len(), ERROR_TEXTS_MAX + 1);
        assert_eq!(recorder.error_count(), 1000);
    }
}
