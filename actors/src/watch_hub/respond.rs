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

/// A response, or a fragment of one.
#[derive(Clone, Debug)]
pub(super) struct Part {
    /// The first revision whose events are in the whole response.
    pub(super) first: i64,
    /// The last one.
    pub(super) last: i64,
    /// It continues a response whose first fragment came before it.
    pub(super) continues: bool,
    pub(super) response: WatchResponse,
}

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
    let mut bytes = 0;
    for record in records {
        let event = wish.event(record, view);
        let size = record.key.len()
            + record.value.len()
            + event.prev_kv.as_ref().map_or(0, |previous| previous.value.len());
        let main = record.revision.main;
        match parts.last_mut() {
            Some(part) if main == part.last || bytes + size <= RESPONSE_BYTES => {
                part.response.events.push(event);
                part.last = main;
                bytes += size;
            }
            _ => {
                let header = Some(*header);
                let events = vec![event];
                let response = WatchResponse { header, watch_id, events, ..Default::default() };
                parts.push(Part { first: main, last: main, continues: false, response });
                bytes = size;
            }
        }
    }
    if wish.fragment_bytes > 0 {
        parts = parts.into_iter().flat_map(|part| fragments(wish.fragment_bytes, part)).collect();
    }
    parts
}

/// Cuts a response that is too large; all but the last say that more follows.
fn fragments(limit: usize, part: Part) -> Vec<Part> {
    if part.response.encoded_len() <= limit || part.response.events.len() < 2 {
        return vec![part];
    }
    let Part { first, last, response, .. } = part;
    let empty = WatchResponse { events: Vec::new(), fragment: true, ..response.clone() };
    let piece = |continues| Part { first, last, continues, response: empty.clone() };
    let mut parts = vec![piece(false)];
    let mut bytes = 0;
    for event in response.events {
        let size = event.encoded_len();
        if bytes > 0 && bytes + size > limit {
            parts.push(piece(true));
            bytes = 0;
        }
        bytes += size;
        if let Some(part) = parts.last_mut() {
            part.response.events.push(event);
        }
    }
    if let Some(part) = parts.last_mut() {
        part.response.fragment = false;
    }
    parts
}
