//! raft's own log lines, on their way into ours.

use std::fmt::{Arguments, Write};

use slog::{Drain, KV, Key, Level, OwnedKVList, Record, Serializer};

struct ToTracing;

impl Drain for ToTracing {
    type Ok = ();
    type Err = slog::Never;

    fn log(&self, record: &Record<'_>, _values: &OwnedKVList) -> Result<(), slog::Never> {
        let mut details = Details::default();
        // A detail that cannot be written is left out.
        let _ = record.kv().serialize(record, &mut details);
        let (message, details) = (record.msg(), details.0);
        match record.level() {
            Level::Critical | Level::Error => tracing::error!(target: "raft", "{message}{details}"),
            Level::Warning => tracing::warn!(target: "raft", "{message}{details}"),
            Level::Info => tracing::info!(target: "raft", "{message}{details}"),
            Level::Debug | Level::Trace => tracing::debug!(target: "raft", "{message}{details}"),
        }
        Ok(())
    }
}

/// What raft says beside its message, as text.
#[derive(Default)]
struct Details(String);

/// Numbers from here on are ids of members, which are written in hexadecimal
/// everywhere else; terms and indexes do not come this far.
const IDS_FROM: u64 = 1 << 48;

impl Serializer for Details {
    fn emit_arguments(&mut self, key: Key, value: &Arguments<'_>) -> slog::Result {
        let between = if self.0.is_empty() { ": " } else { ", " };
        write!(self.0, "{between}{key} {value}")?;
        Ok(())
    }

    fn emit_u64(&mut self, key: Key, value: u64) -> slog::Result {
        match value {
            IDS_FROM.. => self.emit_arguments(key, &format_args!("{value:x}")),
            _ => self.emit_arguments(key, &format_args!("{value}")),
        }
    }
}

/// A logger for raft whose lines come out with the member's others.
pub(super) fn logger() -> slog::Logger {
    slog::Logger::root(ToTracing, slog::o!())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn details_are_told_and_ids_are_hexadecimal() {
        let mut details = Details::default();
        details.emit_u64("term", 7).unwrap();
        details.emit_u64("from", 0x9e73_7feb_b6b9_9eee).unwrap();
        details.emit_str("type", "vote").unwrap();
        assert_eq!(details.0, ": term 7, from 9e737febb6b99eee, type vote");
    }
}
