//! The bytes on the wire, against etcd's field numbers written out by hand.

use std::fmt::Debug;

use bytes::Bytes;
use castd_proto::castdpb::{self, request::Op};
use castd_proto::etcdserverpb::*;
use castd_proto::mvccpb::{Event, KeyValue, event::EventType};
use castd_proto::{authpb, v3electionpb, v3lockpb};
use proptest::prelude::*;
use prost::Message;

/// Asserts that `message` encodes to `golden`, and `golden` decodes to `message`.
fn assert_golden<M: Message + Default + PartialEq + Debug>(message: &M, golden: &[u8]) {
    assert_eq!(message.encode_to_vec(), golden);
    assert_eq!(M::decode(golden).as_ref(), Ok(message));
}

fn header() -> ResponseHeader {
    ResponseHeader { cluster_id: 1, member_id: 2, revision: 3, raft_term: 4 }
}

const HEADER: &[u8] = b"\x0a\x08\x08\x01\x10\x02\x18\x03\x20\x04";

#[test]
fn put_request() {
    let put = PutRequest {
        key: "k".into(),
        value: "val".into(),
        lease: 300,
        prev_kv: true,
        ignore_value: true,
        ignore_lease: true,
    };
    assert_golden(&put, b"\x0a\x01k\x12\x03val\x18\xac\x02\x20\x01\x28\x01\x30\x01");
}

#[test]
fn range_request() {
    let range = RangeRequest {
        key: "a".into(),
        range_end: b"\0"[..].into(),
        limit: 1,
        revision: 2,
        sort_order: range_request::SortOrder::Descend.into(),
        sort_target: range_request::SortTarget::Value.into(),
        serializable: true,
        keys_only: true,
        count_only: true,
        min_mod_revision: 3,
        max_mod_revision: 4,
        min_create_revision: 5,
        max_create_revision: 6,
    };
    let golden = b"\x0a\x01a\x12\x01\0\x18\x01\x20\x02\x28\x02\x30\x04\x38\x01\x40\x01\x48\x01\
                   \x50\x03\x58\x04\x60\x05\x68\x06";
    assert_golden(&range, golden);
}

#[test]
fn range_response_and_its_stream_form() {
    let kv = KeyValue {
        key: "k".into(),
        create_revision: 2,
        mod_revision: 3,
        version: 4,
        value: "v".into(),
        lease: 5,
    };
    let range =
        RangeResponse { header: Some(header()), kvs: vec![kv.clone(), kv], more: true, count: 9 };
    let kv = b"\x12\x0e\x0a\x01k\x10\x02\x18\x03\x20\x04\x2a\x01v\x30\x05";
    let golden = [HEADER, kv, kv, b"\x18\x01\x20\x09"].concat();
    assert_golden(&range, &golden);
    let stream = RangeStreamResponse { range_response: Some(range) };
    let length = u8::try_from(golden.len()).unwrap();
    assert_golden(&stream, &[&[0x0a, length], golden.as_slice()].concat());
}

#[test]
fn compare_has_its_range_end_far_out() {
    let mut compare = Compare {
        result: compare::CompareResult::NotEqual.into(),
        target: compare::CompareTarget::Lease.into(),
        key: "k".into(),
        range_end: "z".into(),
        target_union: Some(compare::TargetUnion::Lease(7)),
    };
    assert_golden(&compare, b"\x08\x03\x10\x04\x1a\x01k\x40\x07\x82\x04\x01z");
    // An operand of zero is still an operand: it is written, unlike a plain zero field.
    compare.target_union = Some(compare::TargetUnion::Version(0));
    assert_golden(&compare, b"\x08\x03\x10\x04\x1a\x01k\x20\x00\x82\x04\x01z");
    compare.target_union = Some(compare::TargetUnion::Value(Bytes::new()));
    assert_golden(&compare, b"\x08\x03\x10\x04\x1a\x01k\x3a\x00\x82\x04\x01z");
}

#[test]
fn txn_request_nests() {
    let inner = TxnRequest { compare: vec![Compare::default()], ..Default::default() };
    let op = |request| RequestOp { request: Some(request) };
    let delete = DeleteRangeRequest { key: "d".into(), range_end: "e".into(), prev_kv: true };
    let txn = TxnRequest {
        compare: vec![],
        success: vec![op(request_op::Request::RequestTxn(inner))],
        failure: vec![
            op(request_op::Request::RequestRange(RangeRequest::default())),
            op(request_op::Request::RequestPut(PutRequest::default())),
            op(request_op::Request::RequestDeleteRange(delete)),
        ],
    };
    let golden = b"\x12\x04\x22\x02\x0a\x00\x1a\x02\x0a\x00\x1a\x02\x12\x00\
                   \x1a\x0a\x1a\x08\x0a\x01d\x12\x01e\x18\x01";
    assert_golden(&txn, golden);
}

#[test]
fn watch_requests() {
    let create = WatchCreateRequest {
        key: "k".into(),
        range_end: "l".into(),
        start_revision: 5,
        progress_notify: true,
        filters: vec![0, 1],
        prev_kv: true,
        watch_id: 6,
        fragment: true,
    };
    let request = |union| WatchRequest { request_union: Some(union) };
    assert_golden(
        &request(watch_request::RequestUnion::CreateRequest(create)),
        b"\x0a\x14\x0a\x01k\x12\x01l\x18\x05\x20\x01\x2a\x02\x00\x01\x30\x01\x38\x06\x40\x01",
    );
    let cancel = WatchCancelRequest { watch_id: 3 };
    assert_golden(
        &request(watch_request::RequestUnion::CancelRequest(cancel)),
        b"\x12\x02\x08\x03",
    );
    let progress = watch_request::RequestUnion::ProgressRequest(WatchProgressRequest {});
    assert_golden(&request(progress), b"\x1a\x00");
}

#[test]
fn watch_response() {
    let kv = KeyValue { key: "k".into(), mod_revision: 8, ..Default::default() };
    let event = Event {
        r#type: EventType::Delete.into(),
        kv: Some(kv),
        prev_kv: Some(KeyValue { version: 1, ..Default::default() }),
    };
    let response = WatchResponse {
        header: Some(header()),
        watch_id: -1,
        created: true,
        canceled: true,
        compact_revision: 7,
        cancel_reason: "no".into(),
        fragment: true,
        events: vec![event],
    };
    let rest = b"\x10\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01\x18\x01\x20\x01\x28\x07\x32\x02no\
                 \x38\x01\x5a\x0d\x08\x01\x12\x05\x0a\x01k\x18\x08\x1a\x02\x20\x01";
    assert_golden(&response, &[HEADER, rest].concat());
}

#[test]
fn lease_time_to_live_response() {
    let response = LeaseTimeToLiveResponse {
        header: Some(header()),
        id: 1,
        ttl: 2,
        granted_ttl: 3,
        keys: vec!["a".into(), "b".into()],
    };
    let rest = b"\x10\x01\x18\x02\x20\x03\x2a\x01a\x2a\x01b";
    assert_golden(&response, &[HEADER, rest].concat());
}

#[test]
fn member_and_status() {
    let member = Member {
        id: 1,
        name: "n".into(),
        peer_urls: vec!["p".into()],
        client_urls: vec!["c".into(), "d".into()],
        is_learner: true,
    };
    assert_golden(&member, b"\x08\x01\x12\x01n\x1a\x01p\x22\x01c\x22\x01d\x28\x01");
    let status = StatusResponse {
        header: None,
        version: "3".into(),
        db_size: 1,
        leader: 2,
        raft_index: 3,
        raft_term: 4,
        raft_applied_index: 5,
        errors: vec!["e".into()],
        db_size_in_use: 6,
        is_learner: true,
        storage_version: "s".into(),
        db_size_quota: 7,
        downgrade_info: Some(DowngradeInfo { enabled: true, target_version: "t".into() }),
    };
    let golden = b"\x12\x013\x18\x01\x20\x02\x28\x03\x30\x04\x38\x05\x42\x01e\x48\x06\x50\x01\
                   \x5a\x01s\x60\x07\x6a\x05\x08\x01\x12\x01t";
    assert_golden(&status, golden);
}

#[test]
fn snapshot_and_hash_responses() {
    let snapshot = SnapshotResponse {
        header: None,
        remaining_bytes: 1,
        blob: "b".into(),
        version: "v".into(),
    };
    assert_golden(&snapshot, b"\x10\x01\x1a\x01b\x22\x01v");
    let hash = HashKvResponse { header: None, hash: 1, compact_revision: 2, hash_revision: 3 };
    assert_golden(&hash, b"\x10\x01\x18\x02\x20\x03");
}

#[test]
fn auth_and_alarm() {
    let perm = authpb::Permission {
        perm_type: authpb::permission::Type::Readwrite.into(),
        key: "k".into(),
        range_end: "l".into(),
    };
    let grant = AuthRoleGrantPermissionRequest { name: "r".into(), perm: Some(perm) };
    assert_golden(&grant, b"\x0a\x01r\x12\x08\x08\x02\x12\x01k\x1a\x01l");
    let user = AuthUserAddRequest {
        name: "u".into(),
        password: "p".into(),
        options: Some(authpb::UserAddOptions { no_password: true }),
        hashed_password: "h".into(),
    };
    assert_golden(&user, b"\x0a\x01u\x12\x01p\x1a\x02\x08\x01\x22\x01h");
    let alarm = AlarmRequest {
        action: alarm_request::AlarmAction::Deactivate.into(),
        member_id: 5,
        alarm: AlarmType::Corrupt.into(),
    };
    assert_golden(&alarm, b"\x08\x02\x10\x05\x18\x02");
}

#[test]
fn lock_and_election() {
    let lock = v3lockpb::LockResponse { header: Some(header()), key: "k".into() };
    assert_golden(&lock, &[HEADER, b"\x12\x01k"].concat());
    let leader = v3electionpb::LeaderKey { name: "n".into(), key: "k".into(), rev: 1, lease: 2 };
    let proclaim = v3electionpb::ProclaimRequest { leader: Some(leader), value: "v".into() };
    assert_golden(&proclaim, b"\x0a\x0a\x0a\x01n\x12\x01k\x18\x01\x20\x02\x12\x01v");
}

#[test]
fn log_entry() {
    let remaining = castdpb::lease_checkpoint::Remaining { id: 4, remaining_ttl_s: 5 };
    let request = castdpb::Request {
        only_in_term: 0,
        id: 1,
        username: "u".into(),
        auth_revision: 2,
        op: Some(Op::LeaseCheckpoint(castdpb::LeaseCheckpoint { leases: vec![remaining] })),
    };
    let golden = b"\x08\x01\x12\x01u\x18\x02\x82\x01\x06\x0a\x04\x08\x04\x10\x05";
    assert_golden(&request, golden);
}

#[test]
fn decoding_shares_the_buffer() {
    let put = PutRequest { key: "key".into(), value: vec![7; 4096].into(), ..Default::default() };
    let buffer = Bytes::from(put.encode_to_vec());
    let decoded = PutRequest::decode(buffer.clone()).unwrap();
    let range = buffer.as_ptr_range();
    assert!(range.contains(&decoded.key.as_ptr()));
    assert!(range.contains(&decoded.value.as_ptr()));
}

fn bytes() -> impl Strategy<Value = Bytes> {
    proptest::collection::vec(any::<u8>(), 0..64).prop_map(Bytes::from)
}

prop_compose! {
    fn put()(key in bytes(), value in bytes(), lease: i64, flags: [bool; 3]) -> PutRequest {
        let [prev_kv, ignore_value, ignore_lease] = flags;
        PutRequest { key, value, lease, prev_kv, ignore_value, ignore_lease }
    }
}

prop_compose! {
    fn compare()(
        result in 0..4, target in 0..5, key in bytes(), range_end in bytes(),
        number: i64, value in bytes(),
    ) -> Compare {
        let target_union = Some(match target {
            0 => compare::TargetUnion::Version(number),
            1 => compare::TargetUnion::CreateRevision(number),
            2 => compare::TargetUnion::ModRevision(number),
            3 => compare::TargetUnion::Value(value),
            _ => compare::TargetUnion::Lease(number),
        });
        Compare { result, target, key, range_end, target_union }
    }
}

/// Transactions with transactions inside, three deep at most.
fn txn() -> impl Strategy<Value = TxnRequest> {
    let flat = put().prop_map(request_op::Request::RequestPut);
    let op = flat.prop_recursive(3, 16, 3, |inner| {
        proptest::collection::vec(inner, 0..3).prop_map(|ops| {
            let success = ops.into_iter().map(|op| RequestOp { request: Some(op) }).collect();
            request_op::Request::RequestTxn(TxnRequest { success, ..Default::default() })
        })
    });
    let compares = proptest::collection::vec(compare(), 0..3);
    (compares, op).prop_map(|(compare, op)| TxnRequest {
        compare,
        failure: vec![RequestOp { request: Some(op) }],
        ..Default::default()
    })
}

proptest! {
    #[test]
    fn a_log_entry_comes_back_as_it_was(id: u64, auth_revision: u64, txn in txn()) {
        let request = castdpb::Request {
            only_in_term: 0,
            id, username: "someone".into(), auth_revision, op: Some(Op::Txn(txn)),
        };
        let encoded = Bytes::from(request.encode_to_vec());
        prop_assert_eq!(castdpb::Request::decode(encoded).unwrap(), request);
    }

    #[test]
    fn a_put_comes_back_as_it_was(put in put()) {
        prop_assert_eq!(PutRequest::decode(put.encode_to_vec().as_slice()).unwrap(), put);
    }

    #[test]
    fn arbitrary_bytes_never_panic(noise: Vec<u8>) {
        // What does decode, encodes to something that decodes the same.
        if let Ok(request) = castdpb::Request::decode(noise.as_slice()) {
            let again = castdpb::Request::decode(request.encode_to_vec().as_slice());
            prop_assert_eq!(again.unwrap(), request);
        }
    }
}
