//! The whole company on a real disk, through its door.

use std::num::NonZeroUsize;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use castd_actors::cluster::{ClusterState, MemberInfo};
use castd_actors::compactor::{AutoCompaction, ScrubPace};
use castd_actors::company::{
    Begin, Company, CompanyConfig, MembershipRules, Running, WatchThreads, open, start,
};
use castd_actors::mvcc::{Outcome, SealPolicy};
use castd_actors::shared::Error;
use castd_actors::wal_writer::{Identity, WalOptions};
use castd_actors::{Chunk, StreamRequest};
use castd_proto::castdpb::request::Op;
use castd_proto::etcdserverpb::{
    CompactionRequest, DeleteRangeRequest, LeaseGrantRequest, PutRequest, RangeRequest,
    WatchCreateRequest, WatchResponse,
};

use tokio::sync::mpsc;

const MEMBER: u64 = 7;

fn config(seal: SealPolicy) -> CompanyConfig {
    CompanyConfig {
        heartbeat: Duration::from_millis(100),
        election: Duration::from_millis(1000),
        pre_vote: true,
        campaign_at_once: true,
        rules: MembershipRules::default(),
        slow_apply: Duration::from_millis(100),
        snapshot_count: 10_000,
        catchup_entries: 5000,
        backlog_bytes_max: 128 << 20,
        seal,
        compaction: AutoCompaction::Off,
        scrub: ScrubPace { records: 1000, pause: Duration::from_millis(1) },
        watch_threads: WatchThreads::Own(NonZeroUsize::MIN.saturating_add(1)),
        watch_progress: Duration::from_secs(600),
        watch_fragment_bytes: 2 << 20,
        version: "3.7.1".to_owned(),
        registry: prometheus::Registry::new(),
        fatal: Arc::new(|actor, what| panic!("{actor}: {what}")),
    }
}

const LAZY: SealPolicy = SealPolicy { log_bytes: u64::MAX, entries: u64::MAX };
const EAGER: SealPolicy = SealPolicy { log_bytes: u64::MAX, entries: 20 };

fn begin(dir: &Path, seal: SealPolicy) -> (Company, Running) {
    let identity = Identity { cluster_id: 1, member_id: MEMBER };
    let member = MemberInfo { id: MEMBER, name: "m".to_owned(), ..MemberInfo::default() };
    let bootstrap = ClusterState { members: [(MEMBER, member)].into(), ..ClusterState::default() };
    let wal = WalOptions { segment_bytes: 1 << 20, ..WalOptions::new(dir.join("wal")) };
    let opened = open(wal, &dir.join("snap"), identity, &Begin::Bootstrap(bootstrap), false)
        .expect("a directory of our own opens");
    start(opened, &config(seal)).expect("what opened starts")
}

/// Ends a company, so that its directory can be opened again.
fn end(running: Running) {
    running.stop().stop().expect("no seal panicked");
}

fn put(key: &str, value: &str) -> Op {
    let (key, value) = (key.to_owned().into(), value.to_owned().into());
    Op::Put(PutRequest { key, value, ..PutRequest::default() })
}

fn all() -> RangeRequest {
    RangeRequest { key: "\0".into(), range_end: "\0".into(), ..RangeRequest::default() }
}

fn pairs(company: &Company) -> Vec<(String, String, i64)> {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let response = company.view().range(&all()).expect("the newest revision is there");
    response.kvs.iter().map(|kv| (text(&kv.key), text(&kv.value), kv.mod_revision)).collect()
}

/// A write may come before the first election; clients try again.
async fn write(company: &Company, op: Op) -> i64 {
    company.read_index().await.expect("the only member leads");
    company.propose(op).await.expect("the only member applies it").revision
}

#[actix::test]
async fn writes_are_read_and_survive_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let (company, running) = begin(dir.path(), LAZY);
    assert_eq!(write(&company, put("a", "1")).await, 2);
    assert_eq!(write(&company, put("b", "2")).await, 3);
    assert_eq!(write(&company, put("a", "3")).await, 4);
    let delete = DeleteRangeRequest { key: "b".into(), ..DeleteRangeRequest::default() };
    assert_eq!(write(&company, Op::DeleteRange(delete)).await, 5);
    let before = pairs(&company);
    let hash = company.view().hash_kv(0).unwrap();
    end(running);

    let (company, running) = begin(dir.path(), LAZY);
    company.read_index().await.unwrap();
    assert_eq!(pairs(&company), before);
    assert_eq!(company.view().hash_kv(0).unwrap(), hash);
    assert_eq!(write(&company, put("c", "4")).await, 6);
    end(running);
}

#[actix::test]
async fn a_state_that_was_sealed_many_times_comes_back() {
    let dir = tempfile::tempdir().unwrap();
    let mut expected = Vec::new();
    for run in 0..4 {
        let (company, running) = begin(dir.path(), EAGER);
        company.read_index().await.unwrap();
        assert_eq!(pairs(&company), expected, "at the start of run {run}");
        for n in 0..60 {
            write(&company, put(&format!("k{}", n % 7), &format!("{run}/{n}"))).await;
            if n % 5 == 0 {
                let key = format!("k{}", n % 3).into();
                let delete = DeleteRangeRequest { key, ..DeleteRangeRequest::default() };
                write(&company, Op::DeleteRange(delete)).await;
            }
        }
        let revision = company.view().revision() - 3;
        let compaction = CompactionRequest { revision, physical: true };
        write(&company, Op::Compaction(compaction)).await;
        expected = pairs(&company);
        end(running);
    }
}

/// The next responses of a watch stream.
async fn next(chunks: &mut mpsc::Receiver<Box<Chunk>>) -> Vec<WatchResponse> {
    let chunk = chunks.recv().await.expect("the stream goes on");
    chunk.decode().expect("whole responses")
}

#[actix::test]
async fn a_watcher_sees_what_happens_and_what_happened() {
    let dir = tempfile::tempdir().unwrap();
    let (company, running) = begin(dir.path(), LAZY);
    write(&company, put("k", "1")).await;
    let (handle, mut responses) = company.watch().await.unwrap();
    let request = WatchCreateRequest { key: "k".into(), start_revision: 2, ..Default::default() };
    assert!(handle.ask(vec![StreamRequest::Create(request)]).await);
    write(&company, put("k", "2")).await;
    write(&company, put("other", "x")).await;
    write(&company, put("k", "3")).await;
    let mut told = Vec::new();
    let mut seen = Vec::new();
    while seen.len() < 3 {
        let responses = next(&mut responses).await;
        told.extend(responses.iter().map(|response| response.created));
        let events = responses.into_iter().flat_map(|response| response.events);
        seen.extend(events.filter_map(|event| event.kv));
    }
    assert!(told[0] && told[1..].iter().all(|created| !created), "`created` comes first");
    let seen: Vec<(i64, &[u8])> =
        seen.iter().map(|kv| (kv.mod_revision, kv.value.as_ref())).collect();
    assert_eq!(seen, [(2, b"1".as_ref()), (3, b"2"), (5, b"3")]);
    drop(handle);
    assert!(responses.recv().await.is_none(), "the stream ends with its handle");
    end(running);
}

#[actix::test]
async fn a_lease_takes_its_keys_along() {
    let dir = tempfile::tempdir().unwrap();
    let (company, running) = begin(dir.path(), LAZY);
    let grant = LeaseGrantRequest { id: 9, ttl: 1 };
    write(&company, Op::LeaseGrant(grant)).await;
    let twice = company.propose(Op::LeaseGrant(grant)).await;
    assert_eq!(twice.unwrap_err(), Error::LeaseExists);
    let attached = PutRequest { key: "k".into(), lease: 9, ..PutRequest::default() };
    write(&company, Op::Put(attached)).await;
    let info = company.lease_time_to_live(9, true).await.unwrap().unwrap();
    assert_eq!((info.granted_ttl_s, info.keys), (2, vec!["k".into()]), "raised to the minimum");

    let (handle, mut responses) = company.watch().await.unwrap();
    let create = WatchCreateRequest { key: "k".into(), ..Default::default() };
    handle.ask(vec![StreamRequest::Create(create)]).await;
    let deleted = loop {
        let mut events =
            next(&mut responses).await.into_iter().flat_map(|response| response.events);
        if let Some(event) = events.next() {
            break event;
        }
    };
    assert_eq!(deleted.kv.unwrap().mod_revision, 3);
    assert_eq!(company.lease_keep_alive(9).await, Ok(0), "it is gone");
    end(running);
}

#[actix::test]
async fn outcomes_say_what_was_done() {
    let dir = tempfile::tempdir().unwrap();
    let (company, running) = begin(dir.path(), LAZY);
    write(&company, put("k", "old")).await;
    let request =
        PutRequest { key: "k".into(), value: "new".into(), prev_kv: true, ..Default::default() };
    let applied = company.propose(Op::Put(request)).await.unwrap();
    let Outcome::Put(response) = applied.outcome else { panic!("{applied:?}") };
    assert_eq!(response.prev_kv.unwrap().value.as_ref(), b"old");
    end(running);
}

#[actix::test]
async fn questions_that_nobody_waits_for_do_not_fill_a_mailbox() {
    let dir = tempfile::tempdir().unwrap();
    let (company, running) = begin(dir.path(), LAZY);
    write(&company, put("k", "1")).await;
    for _ in 0..5000 {
        // Asked, and given up at once, as by a client with a short deadline.
        let _ = futures::poll!(std::pin::pin!(company.defragment()));
    }
    assert_eq!(write(&company, put("k", "2")).await, 3);
    end(running);
}
