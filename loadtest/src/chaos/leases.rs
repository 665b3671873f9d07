//! Leases that are kept alive, and then left alone or revoked.
//!
//! Owns: the lease clients' tasks, and what each lease was promised.
//! Never does: judge. When a lease's key went is for the watchers to see, whether it might is
//! for the checker to say.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::Duration;

use castd_check::{Key, LEASE_KEYS, LeaseRecord};
use castd_proto::etcdserverpb::{
    LeaseGrantRequest, LeaseGrantResponse, LeaseKeepAliveRequest, LeaseKeepAliveResponse,
    LeaseRevokeRequest, LeaseRevokeResponse, PutRequest, PutResponse,
};
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::history::Recorder;
use super::session::{Failure, Session};
use super::wire::{key_bytes, value_bytes};
use crate::grpc::Endpoint;

const GRANT: &str = "/etcdserverpb.Lease/LeaseGrant";
const REVOKE: &str = "/etcdserverpb.Lease/LeaseRevoke";
const KEEP_ALIVE: &str = "/etcdserverpb.Lease/LeaseKeepAlive";
const PUT: &str = "/etcdserverpb.KV/Put";
/// Lease clients. Each holds one lease at a time.
const CLIENTS: u64 = 4;
/// How long a lease is asked to live, in seconds.
const TTL_SECONDS: std::ops::Range<i64> = 2..6;
/// How long a lease is kept alive, in milliseconds.
const KEPT_MILLIS: std::ops::Range<u64> = 3_000..15_000;
/// How long a call is waited for.
const CALL_TIMEOUT: Duration = Duration::from_secs(1);
/// Between two attempts.
const PAUSE: Duration = Duration::from_millis(100);
/// A lease is renewed when this part of its time is over: 1/4.
const RENEWALS: u32 = 4;

/// The running lease clients.
#[derive(Debug)]
pub(crate) struct Leases {
    records: Rc<RefCell<Vec<LeaseRecord>>>,
    stop: Rc<Cell<bool>>,
    tasks: JoinSet<()>,
}

impl Leases {
    /// Starts them.
    pub(crate) fn start(endpoints: &Rc<[Endpoint]>, recorder: &Recorder, seed: u64) -> Self {
        let (records, stop) = (Rc::default(), Rc::default());
        let mut leases = Self { records, stop, tasks: JoinSet::new() };
        for number in 0..CLIENTS {
            let holder = Holder {
                session: Session::new(endpoints, number as usize, CALL_TIMEOUT),
                recorder: recorder.clone(),
                records: Rc::clone(&leases.records),
                stop: Rc::clone(&leases.stop),
                random: SmallRng::seed_from_u64(seed ^ (0xFFFF_0000 + number)),
            };
            leases.tasks.spawn_local(holder.run());
        }
        leases
    }

    /// Leaves all leases alone; answers what they were promised.
    pub(crate) async fn stop(mut self) -> Vec<LeaseRecord> {
        self.stop.set(true);
        while self.tasks.join_next().await.is_some() {}
        std::mem::take(&mut *self.records.borrow_mut())
    }
}

struct Holder {
    session: Session,
    recorder: Recorder,
    records: Rc<RefCell<Vec<LeaseRecord>>>,
    stop: Rc<Cell<bool>>,
    random: SmallRng,
}

impl Holder {
    async fn run(mut self) {
        while !self.stop.get() {
            match self.grant().await {
                Ok(nth) => self.hold(nth).await,
                Err(_) => self.session.go_on(),
            }
            tokio::time::sleep(PAUSE).await;
        }
    }

    /// Gets a lease and attaches a key to it; answers its place in the records.
    async fn grant(&mut self) -> Result<usize, Failure> {
        let sent = self.recorder.now();
        let ttl = self.random.random_range(TTL_SECONDS);
        let request = LeaseGrantRequest { ttl, id: 0 };
        let grant: LeaseGrantResponse = self.session.call(GRANT, &request).await?;
        let value = self.recorder.next_value();
        let key = LEASE_KEYS + value as Key;
        let seconds = u64::try_from(grant.ttl).unwrap_or(0);
        self.records.borrow_mut().push(LeaseRecord {
            id: grant.id,
            keys: vec![key],
            ttl: Duration::from_secs(seconds),
            renewed: vec![(sent, self.recorder.now())],
            left: None,
            revoked: None,
            denied: None,
        });
        let nth = self.records.borrow().len() - 1;
        let put = PutRequest {
            key: key_bytes(key),
            value: value_bytes(value),
            lease: grant.id,
            ..PutRequest::default()
        };
        // Whether the key is there or not shows in what the watchers see.
        let _: Result<PutResponse, Failure> = self.session.call(PUT, &put).await;
        Ok(nth)
    }

    /// Keeps a lease alive for a while.
    async fn hold(&mut self, nth: usize) {
        let kept = self.random.random_range(KEPT_MILLIS) * 1_000_000;
        let until = self.recorder.now() + kept;
        let (id, ttl) = (self.records.borrow()[nth].id, self.records.borrow()[nth].ttl);
        while !self.stop.get() && self.recorder.now() < until {
            let sent = self.recorder.now();
            match self.renew(id).await {
                Ok(true) => {
                    let confirmed = self.recorder.now();
                    self.records.borrow_mut()[nth].renewed.push((sent, confirmed));
                    tokio::time::sleep(ttl / RENEWALS).await;
                }
                Ok(false) => {
                    let now = self.recorder.now();
                    let record = &mut self.records.borrow_mut()[nth];
                    (record.denied, record.left) = (Some(now), Some(now));
                    return;
                }
                Err(_) => {
                    self.session.go_on();
                    tokio::time::sleep(PAUSE).await;
                }
            }
        }
        let now = self.recorder.now();
        self.records.borrow_mut()[nth].left = Some(now);
        if self.random.random() {
            self.records.borrow_mut()[nth].revoked = Some(now);
            let request = LeaseRevokeRequest { id };
            // A lease whose revocation fails runs out.
            let _: Result<LeaseRevokeResponse, Failure> = self.session.call(REVOKE, &request).await;
        }
    }

    /// Renews a lease; answers whether it still lived.
    async fn renew(&mut self, id: i64) -> Result<bool, Failure> {
        let stream = self.session.open::<LeaseKeepAliveResponse>(KEEP_ALIVE).await;
        let (mut outbound, mut inbound) = stream?;
        let lost = |text: &str| Failure::Unknown(text.to_owned());
        let request = LeaseKeepAliveRequest { id };
        outbound.send(&request).map_err(|_| lost("connection lost"))?;
        match timeout(CALL_TIMEOUT, inbound.next()).await {
            Ok(Ok(Some(answer))) => Ok(answer.ttl > 0),
            Ok(_) => Err(lost("no renewal")),
            Err(_) => Err(lost("no renewal in time")),
        }
    }
}
