//! What a watcher missed, in pieces.

use super::record::Record;
use super::revision::{KeyRange, Revision};
use super::view::View;

/// A piece of what a watcher missed.
pub struct Changes {
    /// The wanted records, in order.
    pub records: Vec<Record>,
    /// The first revision that was not looked at.
    pub next: i64,
}

/// How large a piece is.
#[derive(Clone, Copy, Debug)]
pub struct PieceLimits {
    /// Records looked at.
    pub records: usize,
    /// Bytes of the records given.
    pub bytes: usize,
}

impl View {
    /// A piece of the changes in `range` from revision `from` on.
    pub fn changes(&self, range: &KeyRange, from: i64, limits: PieceLimits) -> Changes {
        let (mut records, mut last, mut bytes) = (Vec::new(), 0, 0);
        for (looked, record) in self.records_from(Revision::start_of(from)).enumerate() {
            let main = record.revision.main;
            if (looked >= limits.records || bytes >= limits.bytes) && main != last {
                return Changes { records, next: main };
            }
            last = main;
            if range.contains(&record.key) {
                bytes += record.key.len() + record.value.len();
                records.push(record);
            }
        }
        Changes { records, next: self.revision() + 1 }
    }
}
