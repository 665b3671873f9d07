//! From records to bytes: events once, responses around them for each watcher.
//!
//! A response is its stream's header, the watcher's id, and the events. The
//! events' bytes are the same for all who watch the same, so they are made once
//! and put behind each watcher's own few bytes. What protocol buffers make of a
//! message is the concatenation of its fields, which is what makes this possible.

use std::sync::OnceLock;

use bytes::{BufMut, Bytes, BytesMut};
use castd_proto::etcdserverpb::{ResponseHeader, WatchResponse};
use castd_proto::mvccpb::{Event, event::EventType};
use prost::Message;
use prost::encoding::{encode_varint, encoded_len_varint};

use super::{Chunk, PREFIX_BYTES};
use crate::mvcc::{Record, Revision, View};

/// A chunk is about as large as one HTTP/2 frame.
pub(super) const CHUNK_BYTES: usize = 16 * 1024;

/// Events of several revisions go into one response up to about this size.
pub(super) const SECTION_BYTES: usize = CHUNK_BYTES - 256;

/// Events of at least this size are passed on as they are; smaller ones are
/// copied behind each watcher's header, which is less work than another buffer.
const SHARED_BYTES: usize = 4 * 1024;

/// What gRPC clients take at most, less the rest of the response.
const SECTION_BYTES_MAX: usize = i32::MAX as usize - HEAD_BYTES;

/// Room for what a response has besides its events.
const HEAD_BYTES: usize = 80;

// Field numbers and wire types of WatchResponse.
const HEADER_TAG: u8 = 1 << 3 | 2;
const WATCH_ID_TAG: u8 = 2 << 3;
const FRAGMENT_TAG: u8 = 7 << 3;
const EVENTS_TAG: u8 = 11 << 3 | 2;

/// The changes of one batch with their encodings, which all shards share.
#[derive(Debug)]
pub struct EventBlock {
    /// The changes, in order.
    pub records: Vec<Record>,
    plain: Box<[OnceLock<Bytes>]>,
    with_previous: Box<[OnceLock<Bytes>]>,
}

impl EventBlock {
    /// A block of changes, none of them encoded yet.
    pub fn new(records: Vec<Record>) -> Self {
        let none = || records.iter().map(|_| OnceLock::new()).collect();
        Self { plain: none(), with_previous: none(), records }
    }

    /// The event of a change, as it stands in a response.
    pub(super) fn plain(&self, at: usize) -> Bytes {
        self.plain[at].get_or_init(|| encode(&self.records[at], None)).clone()
    }

    /// As [`EventBlock::plain`], with what the key was before, read from `view`.
    pub(super) fn with_previous(&self, at: usize, view: &View) -> Bytes {
        let encode = || encode_with_previous(&self.records[at], view);
        self.with_previous[at].get_or_init(encode).clone()
    }
}

pub(super) fn encode_with_previous(record: &Record, view: &View) -> Bytes {
    let previous = (record.previous != Revision::ZERO)
        .then(|| view.record(record.previous))
        .flatten()
        .filter(|previous| !previous.is_tombstone());
    encode(record, previous.as_ref())
}

/// A record as an element of a response's list of events.
pub(super) fn encode(record: &Record, previous: Option<&Record>) -> Bytes {
    let kind = if record.is_tombstone() { EventType::Delete } else { EventType::Put };
    let event = Event {
        r#type: kind as i32,
        kv: Some(record.to_key_value()),
        prev_kv: previous.map(Record::to_key_value),
    };
    let length = event.encoded_len();
    let mut bytes = BytesMut::with_capacity(1 + encoded_len_varint(length as u64) + length);
    bytes.put_u8(EVENTS_TAG);
    encode_varint(length as u64, &mut bytes);
    event.encode_raw(&mut bytes);
    bytes.freeze()
}

/// Encoded events for one response.
#[derive(Clone, Debug, Default)]
pub(super) struct Section {
    /// The events, one after the other.
    bytes: Bytes,
    /// Where each event ends.
    ends: Vec<usize>,
}

impl Section {
    /// Puts events together; one alone is not copied.
    pub(super) fn of(events: &[Bytes]) -> Self {
        let mut end = 0;
        let ends = events.iter().map(|event| {
            end += event.len();
            end
        });
        let ends = ends.collect();
        let bytes = match events {
            [only] => only.clone(),
            events => Bytes::from(events.concat()),
        };
        Self { bytes, ends }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }

    /// Whether a response can have it.
    pub(super) fn is_sendable(&self) -> bool {
        self.bytes.len() <= SECTION_BYTES_MAX
    }

    /// Events in it.
    pub(super) fn events(&self) -> usize {
        self.ends.len()
    }

    /// Its events in pieces of at most `limit` bytes, or of one event.
    fn pieces(&self, limit: usize) -> Vec<Bytes> {
        let mut pieces = Vec::new();
        let (mut begin, mut end) = (0, 0);
        for next in self.ends.iter().copied() {
            if end > begin && next - begin > limit {
                pieces.push(self.bytes.slice(begin..end));
                begin = end;
            }
            end = next;
        }
        pieces.push(self.bytes.slice(begin..end));
        pieces
    }
}

/// The header of a stream's responses, encoded.
#[derive(Clone, Debug, Default)]
pub(super) struct Head(Vec<u8>);

impl Head {
    pub(super) fn new(header: &ResponseHeader) -> Self {
        let length = header.encoded_len();
        let mut bytes = Vec::with_capacity(2 + length);
        bytes.push(HEADER_TAG);
        encode_varint(length as u64, &mut bytes);
        header.encode_raw(&mut bytes);
        Self(bytes)
    }
}

/// Puts responses together until there is enough for one chunk.
#[derive(Debug, Default)]
pub(super) struct ChunkBuilder {
    parts: Vec<Bytes>,
    buffer: BytesMut,
    bytes: usize,
    responses: u32,
    /// Whether some of them have events.
    has_events: bool,
}

impl ChunkBuilder {
    /// Whether something may be added.
    pub(super) fn has_space(&self) -> bool {
        self.bytes < CHUNK_BYTES
    }

    /// Whether events may be added: one response with events is always taken, or
    /// answers could keep them away for ever.
    pub(super) fn takes_events(&self) -> bool {
        self.has_space() || !self.has_events
    }

    pub(super) fn is_empty(&self) -> bool {
        self.responses == 0
    }

    /// Whether it is much larger than it should be, because one response is.
    pub(super) fn is_large(&self) -> bool {
        self.bytes > 4 * CHUNK_BYTES
    }

    /// Makes room at once for the responses of up to `watchers` watchers.
    pub(super) fn expect(&mut self, section: &Section, watchers: usize) {
        let each = HEAD_BYTES + section.bytes.len();
        if section.bytes.len() < SHARED_BYTES {
            let space = CHUNK_BYTES.saturating_sub(self.bytes).max(each);
            self.buffer.reserve(space.min(each.saturating_mul(watchers)));
        }
    }

    /// Adds a watcher's events, in fragments where they are larger than
    /// `fragment` bytes. False, and nothing is added, when there is no space.
    pub(super) fn events(
        &mut self,
        head: &Head,
        watch_id: i64,
        section: &Section,
        fragment: Option<usize>,
    ) -> bool {
        let length = head.0.len() + section.bytes.len();
        let space = !self.has_events || self.bytes + PREFIX_BYTES + length <= CHUNK_BYTES;
        if !space {
            return false;
        }
        self.has_events = true;
        match fragment.filter(|limit| length > *limit) {
            None => self.response(head, watch_id, &section.bytes, false),
            Some(limit) => {
                let pieces = section.pieces(limit);
                let last = pieces.len() - 1;
                for (at, piece) in pieces.iter().enumerate() {
                    self.response(head, watch_id, piece, at < last);
                }
            }
        }
        true
    }

    fn response(&mut self, head: &Head, watch_id: i64, events: &Bytes, more: bool) {
        let id = watch_id.cast_unsigned();
        let id_bytes = if id == 0 { 0 } else { 1 + encoded_len_varint(id) };
        let length = head.0.len() + id_bytes + if more { 2 } else { 0 } + events.len();
        prefix(length, &mut self.buffer);
        self.buffer.put_slice(&head.0);
        if id != 0 {
            self.buffer.put_u8(WATCH_ID_TAG);
            encode_varint(id, &mut self.buffer);
        }
        if more {
            self.buffer.put_slice(&[FRAGMENT_TAG, 1]);
        }
        if events.len() < SHARED_BYTES {
            self.buffer.put_slice(events);
        } else {
            self.parts.push(self.buffer.split().freeze());
            self.parts.push(events.clone());
        }
        self.bytes += PREFIX_BYTES + length;
        self.responses += 1;
    }

    /// Adds a response without events.
    pub(super) fn message(&mut self, response: &WatchResponse) {
        let before = self.buffer.len();
        frame(response, &mut self.buffer);
        self.bytes += self.buffer.len() - before;
        self.responses += 1;
    }

    /// Adds the response that ends a watcher, in the place of its events.
    pub(super) fn end(&mut self, response: &WatchResponse) {
        self.message(response);
        self.has_events = true;
    }

    pub(super) fn build(mut self) -> Chunk {
        if !self.buffer.is_empty() {
            self.parts.reserve_exact(1);
            self.parts.push(self.buffer.freeze());
        }
        Chunk { parts: self.parts, responses: self.responses }
    }
}

/// Writes a response as gRPC frames it.
fn frame(response: &WatchResponse, bytes: &mut BytesMut) {
    let length = response.encoded_len();
    bytes.reserve(PREFIX_BYTES + length);
    prefix(length, bytes);
    response.encode_raw(bytes);
}

/// Writes what gRPC has in front of a message that is not compressed.
fn prefix(length: usize, bytes: &mut BytesMut) {
    bytes.put_u8(0);
    bytes.put_u32(u32::try_from(length).expect("only what can be sent is put together"));
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(n: i64, value: usize) -> Record {
        Record {
            revision: Revision::new(n, 0),
            previous: Revision::ZERO,
            create_revision: n,
            version: 1,
            lease: 0,
            key: format!("k{n}").into(),
            value: vec![b'v'; value].into(),
        }
    }

    fn header() -> ResponseHeader {
        ResponseHeader { cluster_id: u64::MAX, member_id: 1, revision: 77, raft_term: 3 }
    }

    fn events(values: &[usize]) -> (Vec<Record>, Section) {
        let records: Vec<Record> =
            (2..).zip(values).map(|(revision, value)| record(revision, *value)).collect();
        let events: Vec<Bytes> = records.iter().map(|record| encode(record, None)).collect();
        (records, Section::of(&events))
    }

    #[test]
    fn what_is_put_together_is_what_prost_makes_of_it() {
        for values in [&[3][..], &[0, 100], &[SHARED_BYTES], &[10, 2 * SHARED_BYTES, 5]] {
            let (records, section) = events(values);
            for watch_id in [0, 1, 300, i64::MAX, -2] {
                let mut chunk = ChunkBuilder::default();
                assert!(chunk.events(&Head::new(&header()), watch_id, &section, None));
                let event = |record: &Record| Event {
                    r#type: 0,
                    kv: Some(record.to_key_value()),
                    prev_kv: None,
                };
                let expected = WatchResponse {
                    header: Some(header()),
                    watch_id,
                    events: records.iter().map(event).collect(),
                    ..WatchResponse::default()
                };
                assert_eq!(chunk.build().decode(), Some(vec![expected]));
            }
        }
    }

    #[test]
    fn fragments_are_cut_between_events_and_say_that_more_follows() {
        let (_, section) = events(&[400, 400, 5000, 1, 1, 1]);
        let mut chunk = ChunkBuilder::default();
        assert!(chunk.events(&Head::new(&header()), 1, &section, Some(1000)));
        let responses = chunk.build().decode().unwrap();
        let shape: Vec<(usize, bool)> =
            responses.iter().map(|response| (response.events.len(), response.fragment)).collect();
        assert_eq!(shape, [(2, true), (1, true), (3, false)]);
    }

    #[test]
    fn a_chunk_takes_one_response_of_any_size_and_no_second_one_beyond_its_size() {
        let (_, section) = events(&[2 * CHUNK_BYTES]);
        let (_, small) = events(&[1]);
        let head = Head::new(&header());
        let mut chunk = ChunkBuilder::default();
        assert!(chunk.events(&head, 1, &section, None));
        assert!(!chunk.has_space());
        assert!(!chunk.events(&head, 2, &small, None));
        assert_eq!(chunk.build().responses, 1);
    }
}
