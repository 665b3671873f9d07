//! A member is killed, or its disk loses power, again and again under load.
//! Nothing that was acknowledged may be lost, and no write may be half there.

mod support;

#[path = "../actors/tests/support/powercut.rs"]
#[allow(dead_code, reason = "shared with tests that use more of it")]
mod powercut;

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use castd_proto::etcdserverpb::kv_client::KvClient;
use castd_proto::etcdserverpb::request_op::Request as Op;
use castd_proto::etcdserverpb::{PutRequest, RangeRequest, RequestOp, TxnRequest};
use rand::{Rng, SeedableRng, rngs::StdRng};
use support::Member;
use tonic::transport::Channel;

/// Enough to meet every moment of a write, a roll of the log and a checkpoint.
const ROUNDS: u64 = 50;
const WRITERS: u64 = 16;
const DISK_BYTES: u64 = 2 << 30;

/// What was acknowledged: for each writer, the number of its last write and
/// the revision it got.
type Acknowledged = HashMap<u64, (u64, i64)>;

/// Writes number `n` of a writer: two keys in one transaction.
fn write(writer: u64, n: u64) -> TxnRequest {
    // Large values now and then, so that the log rolls and checkpoints happen.
    let padding = if n.is_multiple_of(7) { 16_384 } else { 32 };
    let value = format!("{n}:{}", "x".repeat(padding));
    let put = |side: &str| {
        let key = format!("{side}/{writer}").into();
        let put = PutRequest { key, value: value.clone().into(), ..PutRequest::default() };
        RequestOp { request: Some(Op::RequestPut(put)) }
    };
    TxnRequest { success: vec![put("left"), put("right")], ..TxnRequest::default() }
}

/// Writes until the member is gone; gives what was acknowledged last.
async fn write_until_gone(
    mut kv: KvClient<Channel>,
    writer: u64,
    next: Arc<AtomicU64>,
) -> Option<(u64, i64)> {
    let mut last = None;
    loop {
        let n = next.fetch_add(1, Ordering::Relaxed);
        match kv.txn(write(writer, n)).await {
            Ok(response) => {
                let header = response.into_inner().header.expect("a reply has a header");
                last = Some((n, header.revision));
            }
            Err(_) => return last,
        }
    }
}

/// A key's value number and mod revision, at a revision or now (0).
async fn read(kv: &mut KvClient<Channel>, key: &str, revision: i64) -> Option<(u64, i64)> {
    let key = key.to_owned().into();
    let request = RangeRequest { key, revision, ..RangeRequest::default() };
    let response = kv.range(request).await.expect("a read is answered").into_inner();
    let kv = response.kvs.into_iter().next()?;
    let text = String::from_utf8(kv.value.to_vec()).expect("we wrote text");
    let number = text.split(':').next().and_then(|n| n.parse().ok()).expect("we wrote a number");
    Some((number, kv.mod_revision))
}

async fn check(member: &Member, acknowledged: &Acknowledged, round: u64) {
    let mut kv = member.kv().await;
    for (writer, (n, revision)) in acknowledged {
        let (left, right) = (format!("left/{writer}"), format!("right/{writer}"));
        for key in [&left, &right] {
            let then = read(&mut kv, key, *revision).await;
            assert_eq!(then, Some((*n, *revision)), "{key} of round {round}");
        }
        let (left, right) = (read(&mut kv, &left, 0).await, read(&mut kv, &right, 0).await);
        assert_eq!(left, right, "half a transaction of writer {writer} in round {round}");
        assert!(left.is_some_and(|(now, _)| now >= *n), "writer {writer} went back");
    }
}

/// One life of the member: started, checked, written to until `end` is over.
async fn live(
    dir: &Path,
    acknowledged: &mut Acknowledged,
    next: &Arc<AtomicU64>,
    round: u64,
    end: impl FnOnce(Member),
) {
    let member = Member::start(dir);
    check(&member, acknowledged, round).await;
    let mut writers = Vec::new();
    for writer in 0..WRITERS {
        let kv = member.kv().await;
        let next = Arc::clone(next);
        writers.push((writer, tokio::spawn(write_until_gone(kv, writer, next))));
    }
    tokio::task::block_in_place(|| end(member));
    for (writer, task) in writers {
        if let Some(last) = task.await.expect("a writer does not panic") {
            acknowledged.insert(writer, last);
        }
    }
}

fn rounds() -> u64 {
    std::env::var("CASTD_CRASH_ROUNDS").ok().and_then(|n| n.parse().ok()).unwrap_or(ROUNDS)
}

/// Moments between a start and its end. This is the one sleep that is not a
/// wait for something: it is the chance in the test.
fn moment(chance: &mut StdRng) -> Duration {
    Duration::from_millis(chance.random_range(5..400))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_acknowledged_is_lost_when_the_process_is_killed() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    let mut chance = StdRng::seed_from_u64(7);
    let next = Arc::new(AtomicU64::new(1));
    let mut acknowledged = Acknowledged::new();
    for round in 0..rounds() {
        let wait = moment(&mut chance);
        let end = |member: Member| {
            std::thread::sleep(wait);
            member.kill();
        };
        live(&data, &mut acknowledged, &next, round, end).await;
    }
    check(&Member::start(&data), &acknowledged, ROUNDS).await;
    assert_eq!(acknowledged.len() as u64, WRITERS, "every writer was acknowledged something");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_acknowledged_is_lost_when_the_power_is_cut() {
    let Some(mut disk) = powercut::Disk::or_skip(DISK_BYTES) else { return };
    let data = disk.path().join("data");
    let mut chance = StdRng::seed_from_u64(8);
    let next = Arc::new(AtomicU64::new(1));
    let mut acknowledged = Acknowledged::new();
    for round in 0..rounds() {
        let wait = moment(&mut chance);
        let end = |member: Member| {
            std::thread::sleep(wait);
            disk.cut_power().expect("the power can be cut");
            member.kill();
        };
        live(&data, &mut acknowledged, &next, round, end).await;
        disk.power_on().expect("the disk comes back");
    }
    check(&Member::start(&data), &acknowledged, ROUNDS).await;
}
