//! Fills a key space, every key once, as fast as the server takes it.

use std::ops::Range;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use castd_proto::etcdserverpb::request_op::Request;
use castd_proto::etcdserverpb::{PutRequest, RequestOp, TxnRequest, TxnResponse};
use rand::SeedableRng;
use rand::rngs::SmallRng;

use super::KeyRoom;
use super::put::{PUT, put};
use super::txn::TXN;
use crate::driver::{Caller, Done, Measured, Pace, Plan, Share, Work, measure};
use crate::error::LoadError;
use crate::grpc::{CallError, Route, Rpc};
use crate::keys::{KeySpace, Values};

/// The longest a fill may take.
const FILL_TIME_MAX: Duration = Duration::from_secs(3600);
/// Clients of a fill that precedes another work.
const PREFILL_CLIENTS: usize = 64;
/// Puts in one of its transactions; a server allows 128 unless told otherwise.
pub(crate) const PREFILL_BATCH: u32 = 100;
/// How often one batch is tried: a server under load may refuse it now and then.
const ATTEMPTS: u32 = 50;
/// Pause between two tries.
const RETRY_PAUSE: Duration = Duration::from_millis(20);

/// Puts every key of a space once.
#[derive(Debug)]
pub(crate) struct FillWork {
    space: KeySpace,
    values: Values,
    batch: u64,
    next: Arc<AtomicU64>,
}

/// One filling client.
#[derive(Debug)]
pub(crate) struct FillCaller {
    room: Rc<KeyRoom>,
    count: u64,
    batch: u64,
    next: Arc<AtomicU64>,
    random: SmallRng,
    put: Route,
    txn: Route,
    rpc: Rpc,
}

/// Fills `space` as `plan` says, apart from its pace and duration: `batch` keys in each call,
/// one by plain puts, more in a transaction.
///
/// # Errors
/// When the run cannot be made. Keys that could not be put are counted as errors.
pub(crate) fn fill(
    space: &KeySpace,
    values: &Values,
    batch: u32,
    plan: &Plan,
) -> Result<Measured<()>, LoadError> {
    let batch = u64::from(batch.max(1));
    let plan = Plan {
        pace: Pace::Closed,
        warmup: Duration::ZERO,
        duration: FILL_TIME_MAX,
        total: Some(space.count().div_ceil(batch)),
        ..plan.clone()
    };
    let next = Arc::default();
    measure(&FillWork { space: space.clone(), values: values.clone(), batch, next }, &plan)
}

/// Fills `space` before another work that needs its keys.
///
/// # Errors
/// When any key could not be put.
pub(crate) fn prefill(space: &KeySpace, values: &Values, plan: &Plan) -> Result<(), LoadError> {
    let plan = Plan { clients: PREFILL_CLIENTS, pids: Vec::new(), ..plan.clone() };
    let filled = fill(space, values, PREFILL_BATCH, &plan)?;
    match filled.recorder.errors.into_iter().next() {
        None => Ok(()),
        Some((text, times)) => {
            Err(LoadError::Usage(format!("cannot fill the keys: {text} ({times} times)")))
        }
    }
}

impl Work for FillWork {
    const KINDS: &'static [&'static str] = &["fill"];
    type Room = KeyRoom;
    type Caller = FillCaller;
    type Harvest = ();

    fn room(&self, share: Share) -> KeyRoom {
        KeyRoom::new(&self.space, &self.values, share)
    }

    fn caller(&self, room: &Rc<KeyRoom>, client: usize, rpc: Rpc) -> FillCaller {
        FillCaller {
            room: Rc::clone(room),
            count: self.space.count(),
            batch: self.batch,
            next: Arc::clone(&self.next),
            random: SmallRng::seed_from_u64(client as u64),
            put: rpc.route(PUT),
            txn: rpc.route(TXN),
            rpc,
        }
    }

    fn harvest(&self, _: &KeyRoom) {}
}

impl FillCaller {
    async fn put_all(&mut self, keys: Range<u64>) -> Result<(), CallError> {
        if self.batch == 1 {
            let value = self.room.values.value(&mut self.random);
            put(&mut self.rpc, &self.put, self.room.table.key(keys.start), value).await?;
            return Ok(());
        }
        let mut success = Vec::with_capacity(self.batch as usize);
        for index in keys {
            let key = self.room.table.key(index);
            let value = self.room.values.value(&mut self.random);
            let put = PutRequest { key, value, ..PutRequest::default() };
            success.push(RequestOp { request: Some(Request::RequestPut(put)) });
        }
        let request = TxnRequest { success, ..TxnRequest::default() };
        let answer: TxnResponse = self.rpc.unary(&self.txn, &request).await?;
        match answer.succeeded {
            true => Ok(()),
            false => Err(CallError::WrongAnswer("a txn without compares did not succeed".into())),
        }
    }
}

impl Caller for FillCaller {
    async fn call(&mut self) -> Result<Done, CallError> {
        let start = self.next.fetch_add(self.batch, Ordering::Relaxed);
        let keys = start.min(self.count)..(start + self.batch).min(self.count);
        let items = keys.end - keys.start;
        let mut attempt = 1;
        while let Err(error) = self.put_all(keys.clone()).await {
            if attempt == ATTEMPTS {
                return Err(error);
            }
            attempt += 1;
            tokio::time::sleep(RETRY_PAUSE).await;
            if error.lost_connection() {
                self.rpc.revive().await;
            }
        }
        Ok(Done { kind: 0, items })
    }

    fn rpc(&self) -> &Rpc {
        &self.rpc
    }
}
