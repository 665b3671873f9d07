//! From records to a watcher's responses.

use castd_proto::etcdserverpb::{ResponseHeader, WatchResponse};
use castd_proto::mvccpb::{Event, event::EventType};
use prost::Message;

use crate::mvcc::{KeyRange, Record, Revision, View};

/// Events of several revisions go into one response up to about this size.
const RESPONSE_BYTES: usize = 1 << 20;

/// What a watcher wants to see.
#[derive(Clone, Debug)]
pub(super) struct Wish {
    pub(super) range: KeyRange,
    pub(super) prev_kv: bool,
    pub(super) no_put: bool,
    pub(super) no_delete: bool,
    /// Responses above this size are sent in fragments; 0 for never.
    pub(super) fragment_bytes: usize,
}

impl Wish {
    pub(super) fn wants(&self, record: &Record) -> bool {
        let filtered = if record.is_tombstone() { self.no_delete } else { self.no_put };
        !filtered && self.range.contains(&record.key)
    }

    fn event(&self, record: &Record, view: &View) -> Event {
        let kind = if record.is_tombstone() { EventType::Delete } else { EventType::Put };
        let previous = (self.prev_kv && record.previous != Revision::ZERO)
            .then(|| view.record(record.previous))
            .flatten()
            .filter(|previous| !previous.is_tombstone());
        Event {
            r#type: kind as i32,
            kv: Some(record.to_key_value()),
            prev_kv: previous.map(|previous| previous.to_key_value()),
        }
    }
}

/// A response and the revision to go on from if it cannot be sent.
pub(super) type Part = (i64, WatchResponse);

/// Packs wanted records, in order, into responses. Events of one revision stay
/// in one response, unless the watcher asked for fragments.
pub(super) fn pack<'a>(
    wish: &Wish,
    watch_id: i64,
    header: &ResponseHeader,
    view: &View,
    records: impl Iterator<Item = &'a Record>,
) -> Vec<Part> {
    let mut parts: Vec<Part> = Vec::new();
    let (mut bytes, mut last) = (0, 0);
    for record in records {
        let event = wish.event(record, view);
        let size = record.key.len()
            + record.value.len()
            + event.prev_kv.as_ref().map_or(0, |previous| previous.value.len());
        let main = record.revision.main;
        match parts.last_mut() {
            Some((_, response)) if main == last || bytes + size <= RESPONSE_BYTES => {
                response.events.push(event);
                bytes += size;
            }
            _ => {
                let header = Some(*header);
                let events = vec![event];
                parts
                    .push((main, WatchResponse { header, watch_id, events, ..Default::default() }));
                bytes = size;
            }
        }
        last = main;
    }
    if wish.fragment_bytes > 0 {
        parts = parts.into_iter().flat_map(|part| fragments(wish.fragment_bytes, part)).collect();
    }
    parts
}

/// Cuts a response that is too large; all but the last say that more follows.
fn fragments(limit: usize, (main, response): Part) -> Vec<Part> {
    if response.encoded_len() <= limit || response.events.len() < 2 {
        return vec![(main, response)];
    }
    let empty = WatchResponse { events: Vec::new(), fragment: true, ..response.clone() };
    let mut parts = vec![(main, empty.clone())];
    let mut bytes = 0;
    for event in response.events {
        let size = event.encoded_len();
        if bytes > 0 && bytes + size > limit {
            parts.push((main, empty.clone()));
            bytes = 0;
        }
        bytes += size;
        if let Some((_, part)) = parts.last_mut() {
            part.events.push(event);
        }
    }
    if let Some((_, last)) = parts.last_mut() {
        last.fragment = false;
    }
    parts
}
