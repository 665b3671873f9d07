//! Reads: single keys, pages over many keys, counts.

use std::rc::Rc;

use bytes::{BufMut, Bytes, BytesMut};
use castd_proto::etcdserverpb::{RangeRequest, RangeResponse};

use super::KeyRoom;
use crate::driver::{Caller, Done, Share, Work};
use crate::grpc::{CallError, Route, Rpc};
use crate::keys::{KeySpace, Picker, Values};

/// The method's path.
pub(crate) const RANGE: &str = "/etcdserverpb.KV/Range";

/// What a read asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Shape {
    /// One key, which must be there.
    Get,
    /// All keys of the space in pages of so many, from the first again after the last.
    Pages {
        /// Keys a page.
        limit: u32,
    },
    /// The number of keys in the space.
    Count,
}

/// Reads the keys of a space, which must have been filled.
#[derive(Debug)]
pub(crate) struct RangeWork {
    /// The keys.
    pub(crate) space: KeySpace,
    /// What each call asks for.
    pub(crate) shape: Shape,
    /// Whether the member may answer from its own state, without asking the others.
    pub(crate) serializable: bool,
    /// Whether values are left out.
    pub(crate) keys_only: bool,
}

/// One reading client.
#[derive(Debug)]
pub(crate) struct RangeCaller {
    room: Rc<KeyRoom>,
    picker: Picker,
    shape: Shape,
    /// The request as far as it is the same each time.
    template: RangeRequest,
    /// Where the next page starts.
    cursor: Bytes,
    start: Bytes,
    keys_total: u64,
    route: Route,
    rpc: Rpc,
}

impl Work for RangeWork {
    const KINDS: &'static [&'static str] = &["range"];
    type Room = KeyRoom;
    type Caller = RangeCaller;
    type Harvest = ();

    fn room(&self, share: Share) -> KeyRoom {
        KeyRoom::new(&self.space, &Values::new(0), share)
    }

    fn caller(&self, room: &Rc<KeyRoom>, client: usize, rpc: Rpc) -> RangeCaller {
        let (start, end) = self.space.range();
        let mut template = RangeRequest {
            key: start.clone(),
            serializable: self.serializable,
            keys_only: self.keys_only,
            ..RangeRequest::default()
        };
        match self.shape {
            Shape::Get => {}
            Shape::Pages { limit } => {
                template.range_end = end;
                template.limit = i64::from(limit);
            }
            Shape::Count => {
                template.range_end = end;
                template.count_only = true;
            }
        }
        RangeCaller {
            room: Rc::clone(room),
            picker: room.picker(client),
            shape: self.shape,
            template,
            cursor: start.clone(),
            start,
            keys_total: self.space.count(),
            route: rpc.route(RANGE),
            rpc,
        }
    }

    fn harvest(&self, _: &KeyRoom) {}
}

impl Caller for RangeCaller {
    async fn call(&mut self) -> Result<Done, CallError> {
        match self.shape {
            Shape::Get => self.template.key = self.room.table.key(self.picker.pick()),
            Shape::Pages { .. } => self.template.key = self.cursor.clone(),
            Shape::Count => {}
        }
        let answer: RangeResponse = self.rpc.unary(&self.route, &self.template).await?;
        let items = match self.shape {
            Shape::Get => check_get(&answer)?,
            Shape::Pages { .. } => {
                self.cursor = next_page(&answer, &self.start)?;
                answer.kvs.len() as u64
            }
            Shape::Count => check_count(&answer, self.keys_total)?,
        };
        Ok(Done { kind: 0, items })
    }

    fn rpc(&self) -> &Rpc {
        &self.rpc
    }
}

/// A get of a filled key has that key in its answer.
pub(crate) fn check_get(answer: &RangeResponse) -> Result<u64, CallError> {
    match answer.kvs.len() {
        1 => Ok(1),
        keys => Err(CallError::WrongAnswer(format!("{keys} keys for a get, not one"))),
    }
}

/// A count of a filled space is its size.
fn check_count(answer: &RangeResponse, total: u64) -> Result<u64, CallError> {
    match u64::try_from(answer.count) {
        Ok(count) if count >= total => Ok(count),
        _ => Err(CallError::WrongAnswer(format!("count {}, {total} keys", answer.count))),
    }
}

/// Where the page behind this one starts.
pub(crate) fn next_page(answer: &RangeResponse, start: &Bytes) -> Result<Bytes, CallError> {
    let Some(last) = answer.kvs.last() else {
        return Err(CallError::WrongAnswer("a page without keys".into()));
    };
    if !answer.more {
        return Ok(start.clone());
    }
    let mut next = BytesMut::with_capacity(last.key.len() + 1);
    next.put_slice(&last.key);
    next.put_u8(0);
    Ok(next.freeze())
}

#[cfg(test)]
mod tests {
    use super::*;
    use castd_proto::mvccpb::KeyValue;

    fn page(keys: &[&'static str], more: bool) -> RangeResponse {
        let kv = |key: &&'static str| KeyValue {
            key: Bytes::from_static(key.as_bytes()),
            ..KeyValue::default()
        };
        RangeResponse { kvs: keys.iter().map(kv).collect(), more, ..RangeResponse::default() }
    }

    #[test]
    fn pages_go_on_behind_the_last_key_and_start_again_at_the_end() {
        let start = Bytes::from_static(b"0");
        assert_eq!(next_page(&page(&["a", "b"], true), &start).unwrap(), "b\0");
        assert_eq!(next_page(&page(&["c"], false), &start).unwrap(), "0");
        assert!(next_page(&page(&[], false), &start).is_err());
    }

    #[test]
    fn answers_that_are_too_small_are_errors() {
        assert!(check_get(&page(&[], false)).is_err());
        assert!(check_get(&page(&["a"], false)).is_ok());
        let count = |count| RangeResponse { count, ..RangeResponse::default() };
        assert!(check_count(&count(9), 10).is_err());
        assert_eq!(check_count(&count(10), 10).unwrap(), 10);
        assert!(check_count(&count(-1), 10).is_err());
    }
}
