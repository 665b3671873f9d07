//! `KV/RangeStream`: a range in pieces, so that neither side holds all of it.

use castd_actors::Error;
use castd_proto::etcdserverpb::range_request::{SortOrder, SortTarget};
use castd_proto::etcdserverpb::{RangeRequest, RangeResponse, RangeStreamResponse};
use futures::stream;
use prost::Message;

use super::call::{Call, Responses};
use super::error::{Failure, status};
use super::validate;

/// The keys of the first piece. Later ones follow the size of what was found.
const FIRST_KEYS: i64 = 10;

pub(super) async fn range_stream(
    call: Call,
    request: RangeRequest,
) -> Result<Responses<RangeStreamResponse>, Failure> {
    validate::range_stream(&request)?;
    if !request.serializable {
        call.read_index().await?;
    }
    let pieces = stream::unfold(Some(Pieces::new(call, request)), |pieces| async {
        let mut pieces = pieces?;
        match pieces.next() {
            Ok((response, last)) => Some((Ok(response), (!last).then_some(pieces))),
            Err(error) => Some((Err(status(error)), None)),
        }
    });
    Ok(Box::pin(pieces))
}

/// What is still to be read. Each piece takes the newest view: a slow client keeps no
/// old one alive, and hears of a compaction of what it reads.
struct Pieces {
    call: Call,
    /// From where the next piece begins.
    request: RangeRequest,
    /// How many keys the client still wants.
    left: i64,
    /// How many it has.
    sent: i64,
    /// The store's revision when the stream began.
    revision: i64,
}

impl Pieces {
    fn new(call: Call, mut request: RangeRequest) -> Self {
        let left = if request.limit > 0 { request.limit } else { i64::MAX };
        let revision = call.faces.company.view().revision();
        if request.revision <= 0 {
            request.revision = revision;
        }
        // Pieces continue after their last key, so they come in the keys' order.
        request.set_sort_order(SortOrder::None);
        request.set_sort_target(SortTarget::Key);
        request.limit = FIRST_KEYS.min(left);
        Self { call, request, left, sent: 0, revision }
    }

    /// The next piece, and whether it is the last one.
    fn next(&mut self) -> Result<(RangeStreamResponse, bool), Error> {
        let view = self.call.faces.company.view();
        self.call.faces.metrics.faces.ranges.inc();
        let found = view.range(&self.request)?;
        let total = self.sent.saturating_add(found.count);
        let keys = found.kvs.len() as i64;
        let last = self.request.count_only || !found.more || keys >= self.left;
        if !last {
            self.advance(&found);
        }
        let mut response = RangeResponse { kvs: found.kvs, ..RangeResponse::default() };
        if last {
            response.header = self.call.header(self.revision);
            response.more = found.more;
            response.count = total;
        }
        Ok((RangeStreamResponse { range_response: Some(response) }, last))
    }

    fn advance(&mut self, found: &RangeResponse) {
        let Some(last) = found.kvs.last() else { return };
        let keys = found.kvs.len() as i64;
        self.sent += keys;
        self.left -= keys;
        self.request.key = [&last.key[..], b"\0"].concat().into();
        let target = self.call.faces.options.max_request_bytes;
        let limit = next_limit(self.request.limit, found.encoded_len(), target);
        self.request.limit = limit.min(self.left);
    }
}

/// How many keys to ask for, when the last time `limit` keys took `bytes`: twice or half
/// as many when that was far off `target`.
fn next_limit(limit: i64, bytes: usize, target: usize) -> i64 {
    if bytes < target / 2 {
        limit.saturating_mul(2)
    } else if bytes > target.saturating_mul(2) {
        (limit / 2).max(1)
    } else {
        limit
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_grow_and_shrink_towards_the_target() {
        assert_eq!(next_limit(10, 100, 1000), 20);
        assert_eq!(next_limit(10, 500, 1000), 10);
        assert_eq!(next_limit(10, 2000, 1000), 10);
        assert_eq!(next_limit(10, 2001, 1000), 5);
        assert_eq!(next_limit(1, 5000, 1000), 1);
        assert_eq!(next_limit(i64::MAX, 0, 1000), i64::MAX);
    }
}
