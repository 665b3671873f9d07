//! Transactions as Kubernetes writes: if the key is still as it was read, put, else get.

use std::cell::RefCell;
use std::rc::Rc;

use bytes::Bytes;
use castd_proto::etcdserverpb::compare::{CompareResult, CompareTarget, TargetUnion};
use castd_proto::etcdserverpb::request_op::Request;
use castd_proto::etcdserverpb::response_op::Response;
use castd_proto::etcdserverpb::{
    Compare, PutRequest, RangeRequest, RangeResponse, RequestOp, TxnRequest, TxnResponse,
};
use tokio::runtime::{Builder, LocalOptions};

use super::KeyRoom;
use super::range::{RANGE, next_page};
use crate::driver::{Caller, Done, Plan, Share, Work};
use crate::error::LoadError;
use crate::grpc::{CallError, Link, Route, Rpc};
use crate::keys::{KeySpace, Picker, Values};

/// The method's path.
pub(crate) const TXN: &str = "/etcdserverpb.KV/Txn";
/// Keys read at once when their revisions are learned.
const LEARNED_PAGE_KEYS: i64 = 10_000;
/// The put went through.
const UPDATED: usize = 0;
/// The key had changed (or was never read): the answer tells its present revision.
const CONFLICT: usize = 1;

/// Updates the keys of a space, each under the condition that nobody did meanwhile.
#[derive(Debug)]
pub(crate) struct TxnWork {
    /// The keys.
    pub(crate) space: KeySpace,
    /// The values.
    pub(crate) values: Values,
    /// Each key's mod revision at the start (see [`learn`]), 0 for one that is not there.
    pub(crate) revisions: Vec<i64>,
}

/// A thread's keys and the mod revision last seen of each (0: not there, as far as is known).
#[derive(Debug)]
pub(crate) struct TxnRoom {
    keys: Rc<KeyRoom>,
    seen: RefCell<Vec<i64>>,
}

/// One client that updates.
#[derive(Debug)]
pub(crate) struct TxnCaller {
    room: Rc<TxnRoom>,
    picker: Picker,
    route: Route,
    rpc: Rpc,
}

impl Work for TxnWork {
    const KINDS: &'static [&'static str] = &["update", "conflict"];
    type Room = TxnRoom;
    type Caller = TxnCaller;
    type Harvest = ();

    fn room(&self, share: Share) -> TxnRoom {
        let seen = RefCell::new(self.revisions.clone());
        TxnRoom { keys: Rc::new(KeyRoom::new(&self.space, &self.values, share)), seen }
    }

    fn caller(&self, room: &Rc<TxnRoom>, client: usize, rpc: Rpc) -> TxnCaller {
        let (route, picker) = (rpc.route(TXN), room.keys.picker(client));
        TxnCaller { room: Rc::clone(room), picker, route, rpc }
    }

    fn harvest(&self, _: &TxnRoom) {}
}

impl Caller for TxnCaller {
    async fn call(&mut self) -> Result<Done, CallError> {
        let index = self.picker.pick();
        let key = self.room.keys.table.key(index);
        let value = self.room.keys.values.value(self.picker.random());
        let seen = self.room.seen.borrow()[index as usize];
        let answer = self.rpc.unary(&self.route, &update_if(key, value, seen)).await?;
        let (kind, revision) = outcome(&answer)?;
        self.room.seen.borrow_mut()[index as usize] = revision;
        Ok(Done::one(kind))
    }

    fn rpc(&self) -> &Rpc {
        &self.rpc
    }
}

/// Reads the mod revision of every key of a space, so that the first update of each goes
/// through like all others.
///
/// # Errors
/// When the keys cannot be read.
pub(crate) fn learn(space: &KeySpace, plan: &Plan) -> Result<Vec<i64>, LoadError> {
    let runtime = Builder::new_current_thread()
        .enable_all()
        .build_local(LocalOptions::default())
        .map_err(LoadError::Runtime)?;
    let endpoint = plan.endpoint_of(0).clone();
    runtime.block_on(async {
        let link = Link::connect(endpoint).await.map_err(LoadError::Connect)?;
        let read = revisions(space, Rpc::new(&link)).await;
        read.map_err(|source| LoadError::Call { what: "cannot read the keys", source })
    })
}

async fn revisions(space: &KeySpace, mut rpc: Rpc) -> Result<Vec<i64>, CallError> {
    let route = rpc.route(RANGE);
    let mut revisions = vec![0; space.count() as usize];
    let (start, range_end) = space.range();
    let limit = LEARNED_PAGE_KEYS;
    let mut page = RangeRequest {
        key: start.clone(),
        range_end,
        limit,
        keys_only: true,
        ..RangeRequest::default()
    };
    loop {
        let answer: RangeResponse = rpc.unary(&route, &page).await?;
        for kv in &answer.kvs {
            if let Some(index) = space.index(&kv.key) {
                revisions[index as usize] = kv.mod_revision;
            }
        }
        if !answer.more {
            return Ok(revisions);
        }
        page.key = next_page(&answer, &start)?;
    }
}

/// Put `value` if the key's mod revision is `seen`, else read the key.
fn update_if(key: Bytes, value: Bytes, seen: i64) -> TxnRequest {
    let compare = Compare {
        result: CompareResult::Equal.into(),
        target: CompareTarget::Mod.into(),
        key: key.clone(),
        target_union: Some(TargetUnion::ModRevision(seen)),
        ..Compare::default()
    };
    let put = PutRequest { key: key.clone(), value, ..PutRequest::default() };
    let get = RangeRequest { key, ..RangeRequest::default() };
    TxnRequest {
        compare: vec![compare],
        success: vec![RequestOp { request: Some(Request::RequestPut(put)) }],
        failure: vec![RequestOp { request: Some(Request::RequestRange(get)) }],
    }
}

/// Which branch was taken, and the key's mod revision now.
fn outcome(answer: &TxnResponse) -> Result<(usize, i64), CallError> {
    let wrong = |what: &str| CallError::WrongAnswer(format!("txn: {what}"));
    if answer.succeeded {
        let header = answer.header.as_ref().ok_or_else(|| wrong("no header"))?;
        return Ok((UPDATED, header.revision));
    }
    match answer.responses.first().and_then(|op| op.response.as_ref()) {
        Some(Response::ResponseRange(range)) => {
            Ok((CONFLICT, range.kvs.first().map_or(0, |kv| kv.mod_revision)))
        }
        _ => Err(wrong("the failure branch did not answer with a range")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use castd_proto::etcdserverpb::{ResponseHeader, ResponseOp};
    use castd_proto::mvccpb::KeyValue;

    #[test]
    fn the_outcome_tells_the_revision_for_the_next_time() {
        let header = Some(ResponseHeader { revision: 7, ..ResponseHeader::default() });
        let mut answer = TxnResponse { header, succeeded: true, responses: vec![] };
        assert_eq!(outcome(&answer).unwrap(), (UPDATED, 7));

        answer.succeeded = false;
        assert!(outcome(&answer).is_err());

        let kv = KeyValue { mod_revision: 5, ..KeyValue::default() };
        let range = RangeResponse { kvs: vec![kv], ..RangeResponse::default() };
        answer.responses = vec![ResponseOp { response: Some(Response::ResponseRange(range)) }];
        assert_eq!(outcome(&answer).unwrap(), (CONFLICT, 5));
    }

    #[test]
    fn the_condition_is_on_the_mod_revision() {
        let txn = update_if(Bytes::from_static(b"k"), Bytes::from_static(b"v"), 3);
        assert_eq!(txn.compare[0].target(), CompareTarget::Mod);
        assert_eq!(txn.compare[0].target_union, Some(TargetUnion::ModRevision(3)));
        assert_eq!((txn.success.len(), txn.failure.len()), (1, 1));
    }
}
