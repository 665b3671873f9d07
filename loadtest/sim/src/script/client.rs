//! The client that makes a transcript's calls.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;

use castd_actors::watch_hub::StreamRequest;
use castd_actors::{Chunk, Error, Outcome, WatchHandle};
use castd_check::Evidence;
use castd_proto::castdpb::MemberChange;
use castd_proto::castdpb::member_change::Kind;
use castd_proto::castdpb::request::Op;
use castd_proto::etcdserverpb::compare::{CompareResult, CompareTarget, TargetUnion};
use castd_proto::etcdserverpb::request_op::Request as TxnOp;
use castd_proto::etcdserverpb::response_op::Response as TxnAnswer;
use castd_proto::etcdserverpb::{
    CompactionRequest, Compare, DeleteRangeRequest, LeaseGrantRequest, LeaseRevokeRequest,
    PutRequest, RangeRequest, RequestOp, TxnRequest, WatchCreateRequest, WatchResponse,
};
use castd_proto::mvccpb::KeyValue;
use castd_proto::mvccpb::event::EventType;
use tokio::sync::mpsc::Receiver;
use tokio::sync::mpsc::error::TryRecvError;

use super::command::{Ask, Call};
use crate::clients::Client;
use crate::door::{CallId, Failure, Reply, Request};
use crate::world::{World, later_member};

/// Values that are longer are told by their length.
const VALUE_TOLD: usize = 40;

/// What the client has asked and what it listens to; the stage looks at it, too.
#[derive(Default)]
pub(super) struct Desk {
    pub(super) asked: BTreeMap<CallId, Call>,
    watches: Vec<Watch>,
}

struct Watch {
    number: usize,
    member: u64,
    chunks: Receiver<Box<Chunk>>,
    /// The stream ends with it.
    _handle: WatchHandle,
    ended: bool,
}

/// The client.
pub(super) struct ScriptClient(pub(super) Rc<RefCell<Desk>>);

impl Client for ScriptClient {
    fn wake(&mut self, _world: &mut World, _number: usize, _token: u64) {}

    fn answer(
        &mut self,
        world: &mut World,
        _number: usize,
        call: CallId,
        outcome: Result<Reply, Failure>,
    ) {
        let mut desk = self.0.borrow_mut();
        let Some(call) = desk.asked.remove(&call) else { return };
        let told = match outcome {
            Ok(Reply::Stream(handle, chunks)) => desk.watch(call.member, handle, chunks),
            Ok(reply) => answer(&reply),
            Err(failure) => return world.story.tell(world.now, || failed(&call, failure)),
        };
        world
            .story
            .tell(world.now, || format!("m{} -> client: {}: {told}", call.member, call.text));
    }

    fn retire(&mut self) {}

    fn describe(&self) -> String {
        "the script".to_owned()
    }

    fn is_content(&self, _world: &World) -> bool {
        self.0.borrow().asked.is_empty()
    }

    fn testify(&mut self, _evidence: &mut Evidence) {}
}

impl Desk {
    fn watch(&mut self, member: u64, handle: WatchHandle, chunks: Receiver<Box<Chunk>>) -> String {
        let number = self.watches.len() + 1;
        self.watches.push(Watch { number, member, chunks, _handle: handle, ended: false });
        format!("watcher {number}")
    }

    /// What watchers have been told since this was last asked.
    pub(super) fn listen(&mut self) -> Vec<String> {
        self.watches.iter_mut().flat_map(Watch::listen).collect()
    }
}

impl Watch {
    fn listen(&mut self) -> Vec<String> {
        let mut told = Vec::new();
        let (number, member) = (self.number, self.member);
        while !self.ended {
            match self.chunks.try_recv() {
                Ok(chunk) => {
                    let responses = chunk.decode().unwrap_or_default();
                    let lines = responses.iter().flat_map(response);
                    told.extend(lines.map(|line| format!("m{member} -> watcher {number}: {line}")));
                }
                Err(TryRecvError::Empty) => break,
                Err(TryRecvError::Disconnected) => {
                    self.ended = true;
                    told.push(format!("watcher {number} lost its connection to m{member}"));
                }
            }
        }
        told
    }
}

fn response(response: &WatchResponse) -> Vec<String> {
    let revision = response.header.as_ref().map_or(0, |header| header.revision);
    if response.canceled {
        return match response.compact_revision {
            0 => vec![format!("cancelled: {}", response.cancel_reason)],
            oldest => vec![format!("cancelled: compacted, the oldest revision is {oldest}")],
        };
    }
    if response.created {
        return vec![format!("created at revision {revision}")];
    }
    if response.events.is_empty() {
        return vec![format!("nothing new up to revision {revision}")];
    }
    let events = response.events.iter().map(|event| {
        let pair = event.kv.clone().unwrap_or_default();
        match event.r#type() {
            EventType::Put => format!("put {}", told_pair(&pair)),
            EventType::Delete => {
                format!("delete {} at revision {}", text(&pair.key), pair.mod_revision)
            }
        }
    });
    events.collect()
}

/// What a member is asked.
pub(super) fn request(ask: &Ask) -> Request {
    match ask {
        Ask::Put { key, value, lease } => Request::Write(Op::Put(put(key, value, *lease))),
        Ask::Delete(key) => {
            let delete = DeleteRangeRequest { key: bytes(key), ..Default::default() };
            Request::Write(Op::DeleteRange(delete))
        }
        Ask::Get { key, serializable, revision } => Request::Read(RangeRequest {
            serializable: *serializable,
            revision: *revision,
            ..get(key)
        }),
        Ask::Txn { key, expected, then } => {
            let success = TxnOp::RequestPut(put(&then.0, &then.1, 0));
            Request::Write(Op::Txn(TxnRequest {
                compare: vec![compare(key, expected.as_deref())],
                success: vec![RequestOp { request: Some(success) }],
                failure: vec![RequestOp { request: Some(TxnOp::RequestRange(get(key))) }],
            }))
        }
        Ask::Watch { keys, from } => {
            Request::Watch(vec![StreamRequest::Create(watch(keys, *from))])
        }
        Ask::Grant { lease, ttl } => {
            Request::Write(Op::LeaseGrant(LeaseGrantRequest { id: *lease, ttl: *ttl }))
        }
        Ask::KeepAlive(lease) => Request::KeepAlive(*lease),
        Ask::Revoke(lease) => Request::Write(Op::LeaseRevoke(LeaseRevokeRequest { id: *lease })),
        Ask::Compact(revision) => Request::Write(Op::Compaction(CompactionRequest {
            revision: *revision,
            physical: false,
        })),
        Ask::Transfer(to) => Request::TransferLeader(*to),
        Ask::AddLearner(id) => Request::ChangeMembers(MemberChange {
            peer_urls: later_member(*id, true).peer_urls,
            is_learner: true,
            ..member_change(Kind::Add, *id)
        }),
        Ask::Promote(id) => Request::Promote(*id),
        Ask::Remove(id) => Request::ChangeMembers(member_change(Kind::Remove, *id)),
    }
}

fn member_change(kind: Kind, member_id: u64) -> MemberChange {
    MemberChange { kind: kind.into(), member_id, ..Default::default() }
}

fn bytes(text: &str) -> bytes::Bytes {
    text.to_owned().into()
}

fn put(key: &str, value: &str, lease: i64) -> PutRequest {
    PutRequest { key: bytes(key), value: bytes(value), lease, ..Default::default() }
}

fn get(key: &str) -> RangeRequest {
    RangeRequest { key: bytes(key), ..Default::default() }
}

fn compare(key: &str, expected: Option<&str>) -> Compare {
    let (target, union) = match expected {
        Some(value) => (CompareTarget::Value, TargetUnion::Value(bytes(value))),
        None => (CompareTarget::Version, TargetUnion::Version(0)),
    };
    Compare {
        result: CompareResult::Equal.into(),
        target: target.into(),
        key: bytes(key),
        target_union: Some(union),
        ..Default::default()
    }
}

/// A key, or all that begin with what is before a star.
fn watch(keys: &str, start_revision: i64) -> WatchCreateRequest {
    let (key, range_end) = match keys.strip_suffix('*') {
        None => (bytes(keys), bytes::Bytes::new()),
        Some(prefix) => {
            let mut end = prefix.as_bytes().to_vec();
            if let Some(last) = end.last_mut() {
                *last += 1;
            }
            (bytes(prefix), end.into())
        }
    };
    WatchCreateRequest { key, range_end, start_revision, ..Default::default() }
}

fn text(bytes: &[u8]) -> String {
    match bytes.len() {
        0..=VALUE_TOLD => String::from_utf8_lossy(bytes).into_owned(),
        length => format!("({length} bytes)"),
    }
}

fn told_pair(pair: &KeyValue) -> String {
    format!("{} = {} at revision {}", text(&pair.key), text(&pair.value), pair.mod_revision)
}

/// What was read of one key.
fn read(pairs: &[KeyValue]) -> String {
    let told: Vec<String> = pairs.iter().map(told_pair).collect();
    if told.is_empty() { "there is nothing".to_owned() } else { told.join(", ") }
}

fn answer(reply: &Reply) -> String {
    match reply {
        Reply::Applied(applied) => match &applied.outcome {
            Outcome::Txn(txn) if txn.succeeded => {
                format!("it was so, and is done at revision {}", applied.revision)
            }
            Outcome::Txn(txn) => {
                let ranges = txn.responses.iter().filter_map(|part| match &part.response {
                    Some(TxnAnswer::ResponseRange(range)) => Some(read(&range.kvs)),
                    _ => None,
                });
                format!("it was not so: {}", ranges.collect::<Vec<_>>().join(", "))
            }
            Outcome::LeaseGrant(grant) => format!("granted for {} s", grant.ttl),
            _ => format!("done, revision {}", applied.revision),
        },
        Reply::Range(revision, found) => {
            format!("{}, as of revision {revision}", read(&found.kvs))
        }
        Reply::Alive(0) => "there is no such lease".to_owned(),
        Reply::Alive(ttl) => format!("it has {ttl} s from now"),
        Reply::Done => "done".to_owned(),
        Reply::Stream(..) => "a stream".to_owned(),
    }
}

fn failed(call: &Call, failure: Failure) -> String {
    let Call { member, text, ask, .. } = call;
    let reads = matches!(ask, Ask::Get { .. } | Ask::Watch { .. } | Ask::KeepAlive(_));
    let so = match (reads, failure.is_certain()) {
        (true, _) => "",
        (false, true) => " (it did not happen)",
        (false, false) => " (it may have happened)",
    };
    match failure {
        Failure::NotReached => format!("client finds nobody at m{member}: {text}{so}"),
        Failure::Refused(error) => format!("m{member} -> client: {text}: {}{so}", reason(error)),
        Failure::Lost => format!("client lost its connection to m{member}: {text}{so}"),
        Failure::TimedOut => format!("client stops waiting for m{member}: {text}{so}"),
    }
}

/// What a client reads, without the prefix that all have.
fn reason(error: Error) -> String {
    let text = error.to_string();
    let short = text.trim_start_matches("etcdserver: ").trim_start_matches("mvcc: ");
    format!("error: {short}")
}
