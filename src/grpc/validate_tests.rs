use bytes::Bytes;
use castd_actors::Code;
use castd_proto::etcdserverpb::Compare;
use proptest::prelude::*;

use super::*;

const OPS_MAX: usize = 128;

fn key(text: &'static str) -> Bytes {
    Bytes::from_static(text.as_bytes())
}

fn get(name: &'static str) -> RangeRequest {
    RangeRequest { key: key(name), ..RangeRequest::default() }
}

fn op(request: Request) -> RequestOp {
    RequestOp { request: Some(request) }
}

fn put_op(name: &'static str) -> RequestOp {
    op(Request::RequestPut(PutRequest { key: key(name), ..PutRequest::default() }))
}

fn delete_op(name: &'static str, end: &'static str) -> RequestOp {
    let request =
        DeleteRangeRequest { key: key(name), range_end: key(end), ..DeleteRangeRequest::default() };
    op(Request::RequestDeleteRange(request))
}

fn success(ops: Vec<RequestOp>) -> TxnRequest {
    TxnRequest { success: ops, ..TxnRequest::default() }
}

fn nested(success: Vec<RequestOp>, failure: Vec<RequestOp>) -> RequestOp {
    op(Request::RequestTxn(TxnRequest { success, failure, ..TxnRequest::default() }))
}

fn told(error: Error) -> (Code, String) {
    (error.code(), error.to_string())
}

#[test]
fn ranges() {
    assert_eq!(range(&get("k")), Ok(()));
    let cases = [
        (get(""), Error::EmptyKey),
        (RangeRequest { sort_order: 9, ..get("") }, Error::EmptyKey),
        (RangeRequest { sort_order: 3, ..get("k") }, Error::InvalidSortOption),
        (RangeRequest { sort_order: -1, ..get("k") }, Error::InvalidSortOption),
        (RangeRequest { sort_target: 5, ..get("k") }, Error::InvalidSortOption),
    ];
    for (request, error) in cases {
        assert_eq!(range(&request), Err(error), "{request:?}");
    }
    let (code, text) = told(Error::InvalidSortOption);
    assert_eq!((code, &*text), (Code::InvalidArgument, "etcdserver: invalid sort option"));
    // What looks odd but is legal.
    for odd in [
        RangeRequest { limit: -5, ..get("k") },
        RangeRequest { revision: -1, ..get("k") },
        RangeRequest { keys_only: true, count_only: true, ..get("k") },
        RangeRequest { range_end: key("a"), ..get("k") },
        RangeRequest { min_mod_revision: 9, max_mod_revision: 1, ..get("k") },
    ] {
        assert_eq!(range(&odd), Ok(()), "{odd:?}");
    }
}

#[test]
fn range_streams() {
    let text = |request: &RangeRequest| {
        let status = Status::from(range_stream(request).unwrap_err());
        (status.code(), status.message().to_owned())
    };
    let sorted =
        (tonic::Code::Unimplemented, "RangeStream does not support custom sort orders".to_owned());
    let filtered =
        (tonic::Code::Unimplemented, "RangeStream does not support revision filters".to_owned());
    assert_eq!(text(&RangeRequest { sort_order: 2, ..get("k") }), sorted);
    assert_eq!(text(&RangeRequest { sort_order: 1, sort_target: 1, ..get("k") }), sorted);
    for request in [
        RangeRequest { min_mod_revision: 1, ..get("k") },
        RangeRequest { max_mod_revision: 1, ..get("k") },
        RangeRequest { min_create_revision: 1, ..get("k") },
        RangeRequest { max_create_revision: -1, ..get("k") },
    ] {
        assert_eq!(text(&request), filtered);
    }
    assert_eq!(text(&get("")).1, "etcdserver: key is not provided");
    assert!(range_stream(&RangeRequest { sort_order: 1, ..get("k") }).is_ok());
    assert!(range_stream(&RangeRequest { sort_target: 4, ..get("k") }).is_ok());
}

#[test]
fn puts() {
    let base = PutRequest { key: key("k"), ..PutRequest::default() };
    assert_eq!(put(&base), Ok(()));
    let value = PutRequest { value: key("v"), ignore_value: true, ..base.clone() };
    let lease = PutRequest { lease: 7, ignore_lease: true, ..base.clone() };
    let both = PutRequest { value: key("v"), ignore_value: true, ..lease.clone() };
    assert_eq!(put(&PutRequest { key: key(""), ..both.clone() }), Err(Error::EmptyKey));
    assert_eq!(put(&both), Err(Error::ValueProvided));
    assert_eq!(put(&value), Err(Error::ValueProvided));
    assert_eq!(put(&lease), Err(Error::LeaseProvided));
    assert_eq!(put(&PutRequest { ignore_value: true, ignore_lease: true, ..base }), Ok(()));
    assert_eq!(told(Error::ValueProvided).1, "etcdserver: value is provided");
    assert_eq!(told(Error::LeaseProvided).1, "etcdserver: lease is provided");
}

#[test]
fn deletes_and_leases() {
    assert_eq!(delete_range(&DeleteRangeRequest::default()), Err(Error::EmptyKey));
    assert_eq!(lease_ttl(9_000_000_000), Ok(()));
    assert_eq!(lease_ttl(i64::MIN), Ok(()), "too small ones are raised, not refused");
    assert_eq!(lease_ttl(9_000_000_001), Err(Error::LeaseTtlTooLarge));
    let (code, text) = told(Error::LeaseTtlTooLarge);
    assert_eq!((code, &*text), (Code::OutOfRange, "etcdserver: too large lease TTL"));
}

#[test]
fn transactions_hold_so_many_operations() {
    let many = |n: usize| vec![op(Request::RequestRange(get("k"))); n];
    assert_eq!(txn(&success(many(OPS_MAX)), OPS_MAX), Ok(()));
    assert_eq!(txn(&success(many(OPS_MAX + 1)), OPS_MAX), Err(Error::TooManyOps));
    let failure = TxnRequest { failure: many(OPS_MAX + 1), ..TxnRequest::default() };
    assert_eq!(txn(&failure, OPS_MAX), Err(Error::TooManyOps));
    let compare = vec![Compare { key: key("k"), ..Compare::default() }; OPS_MAX + 1];
    assert_eq!(
        txn(&TxnRequest { compare, ..TxnRequest::default() }, OPS_MAX),
        Err(Error::TooManyOps)
    );
    // A nested transaction has what its parent leaves it.
    assert_eq!(txn(&success(vec![nested(many(127), vec![])]), OPS_MAX), Ok(()));
    assert_eq!(txn(&success(vec![nested(many(128), vec![])]), OPS_MAX), Err(Error::TooManyOps));
    let mut deep = many(1);
    for _ in 0..OPS_MAX - 1 {
        deep = vec![nested(deep, vec![])];
    }
    assert_eq!(txn(&success(deep.clone()), OPS_MAX), Ok(()));
    assert_eq!(txn(&success(vec![nested(deep, vec![])]), OPS_MAX), Err(Error::TooManyOps));
    assert_eq!(told(Error::TooManyOps).1, "etcdserver: too many operations in txn request");
}

#[test]
fn every_operation_of_a_transaction_is_checked() {
    let compare = vec![Compare::default()];
    let bad_compare = TxnRequest { compare, ..success(vec![RequestOp { request: None }]) };
    assert_eq!(txn(&bad_compare, OPS_MAX), Err(Error::EmptyKey), "comparisons come first");
    let cases = [
        (RequestOp { request: None }, Error::KeyNotFound),
        (put_op(""), Error::EmptyKey),
        (delete_op("", ""), Error::EmptyKey),
        (op(Request::RequestRange(get(""))), Error::EmptyKey),
        (
            op(Request::RequestRange(RangeRequest { sort_order: 7, ..get("k") })),
            Error::InvalidSortOption,
        ),
        (nested(vec![], vec![put_op("")]), Error::EmptyKey),
    ];
    for (bad, error) in cases {
        assert_eq!(txn(&success(vec![bad.clone()]), OPS_MAX), Err(error), "{bad:?}");
        let failure = TxnRequest { failure: vec![bad.clone()], ..TxnRequest::default() };
        assert_eq!(txn(&failure, OPS_MAX), Err(error), "{bad:?}");
    }
    assert_eq!(txn(&TxnRequest::default(), OPS_MAX), Ok(()));
}

#[test]
fn a_transaction_writes_a_key_once() {
    let twice = Err(Error::DuplicateKey);
    let cases = [
        ("a key put twice", vec![put_op("a"), put_op("a")], twice),
        ("two keys", vec![put_op("a"), put_op("b")], Ok(())),
        ("put and delete", vec![put_op("a"), delete_op("a", "")], twice),
        ("put in a deleted range", vec![put_op("b"), delete_op("a", "c")], twice),
        ("put at its end", vec![put_op("c"), delete_op("a", "c")], Ok(())),
        ("two deletions", vec![delete_op("a", ""), delete_op("a", "z")], Ok(())),
        ("an end of zero", vec![put_op("b"), delete_op("a", "\0")], Ok(())),
        ("an end before the key", vec![put_op("b"), delete_op("c", "a")], Ok(())),
        (
            "both branches of a nested one",
            vec![nested(vec![put_op("a")], vec![put_op("a")])],
            Ok(()),
        ),
        ("twice in one branch of it", vec![nested(vec![put_op("a"), put_op("a")], vec![])], twice),
        ("nested and beside it", vec![nested(vec![put_op("a")], vec![]), put_op("a")], twice),
        (
            "two nested ones",
            vec![nested(vec![put_op("a")], vec![]), nested(vec![], vec![put_op("a")])],
            twice,
        ),
        (
            "nested put, deletion beside it",
            vec![nested(vec![], vec![put_op("a")]), delete_op("a", "")],
            twice,
        ),
        (
            "nested deletion, put beside it",
            vec![nested(vec![delete_op("a", "c")], vec![]), put_op("b")],
            twice,
        ),
        (
            "nested deletion, later nested put",
            vec![nested(vec![delete_op("a", "")], vec![]), nested(vec![put_op("a")], vec![])],
            twice,
        ),
        (
            "nested put, later nested deletion",
            vec![nested(vec![put_op("a")], vec![]), nested(vec![delete_op("a", "")], vec![])],
            Ok(()),
        ),
    ];
    for (what, ops, expected) in cases {
        assert_eq!(txn(&success(ops.clone()), OPS_MAX), expected, "{what}");
        let failure = TxnRequest { failure: ops, ..TxnRequest::default() };
        assert_eq!(txn(&failure, OPS_MAX), expected, "{what}, on failure");
    }
    let branches = TxnRequest { failure: vec![put_op("a")], ..success(vec![put_op("a")]) };
    assert_eq!(txn(&branches, OPS_MAX), Ok(()), "the branches exclude each other");
    assert_eq!(told(Error::DuplicateKey).1, "etcdserver: duplicate key given in txn request");
}

fn any_key() -> impl Strategy<Value = Bytes> {
    prop::collection::vec(0u8..4, 0..3).prop_map(Bytes::from)
}

fn any_range() -> impl Strategy<Value = RangeRequest> {
    let numbers = (any::<i64>(), any::<i64>(), any::<i32>(), -1i32..6, any::<i64>());
    (any_key(), any_key(), numbers).prop_map(|(key, range_end, numbers)| RangeRequest {
        key,
        range_end,
        limit: numbers.0,
        revision: numbers.1,
        sort_order: numbers.2,
        sort_target: numbers.3,
        max_mod_revision: numbers.4,
        ..RangeRequest::default()
    })
}

fn any_put() -> impl Strategy<Value = PutRequest> {
    (any_key(), any_key(), any::<i64>(), any::<(bool, bool)>()).prop_map(
        |(key, value, lease, (ignore_value, ignore_lease))| PutRequest {
            key,
            value,
            lease,
            ignore_value,
            ignore_lease,
            ..PutRequest::default()
        },
    )
}

fn any_op() -> impl Strategy<Value = RequestOp> {
    let leaf = prop_oneof![
        Just(None),
        any_range().prop_map(|request| Some(Request::RequestRange(request))),
        any_put().prop_map(|request| Some(Request::RequestPut(request))),
        (any_key(), any_key()).prop_map(|(key, range_end)| {
            let request = DeleteRangeRequest { key, range_end, prev_kv: false };
            Some(Request::RequestDeleteRange(request))
        }),
    ]
    .prop_map(|request| RequestOp { request });
    leaf.prop_recursive(4, 64, 6, |inner| {
        let ops = || prop::collection::vec(inner.clone(), 0..6);
        (ops(), ops()).prop_map(|(success, failure)| nested(success, failure))
    })
}

/// Whether a put of one of these operations meets another write of its key: the rule
/// for transactions without nested ones, in the plainest words.
fn plainly_twice(ops: &[RequestOp]) -> bool {
    let writes = |op: &RequestOp, key: &Bytes| match &op.request {
        Some(Request::RequestPut(put)) => put.key == key,
        Some(Request::RequestDeleteRange(delete)) if delete.range_end.is_empty() => {
            delete.key == key
        }
        Some(Request::RequestDeleteRange(delete)) => delete.key <= key && *key < delete.range_end,
        _ => false,
    };
    ops.iter().enumerate().any(|(place, op)| match &op.request {
        Some(Request::RequestPut(put)) => {
            ops.iter().enumerate().any(|(other, op)| other != place && writes(op, &put.key))
        }
        _ => false,
    })
}

proptest! {
    #[test]
    fn no_request_is_too_odd_to_be_judged(
        request in any_range(),
        write in any_put(),
        success in prop::collection::vec(any_op(), 0..8),
        failure in prop::collection::vec(any_op(), 0..8),
        ops_max in 0usize..10,
    ) {
        let _ = range(&request);
        let _ = range_stream(&request);
        let _ = put(&write);
        let transaction = TxnRequest { compare: Vec::new(), success, failure };
        let judged = txn(&transaction, ops_max);
        let longest = transaction.success.len().max(transaction.failure.len());
        if longest > ops_max {
            prop_assert_eq!(judged, Err(Error::TooManyOps));
        }
    }

    #[test]
    fn flat_transactions_follow_the_plain_rule(
        keys in prop::collection::vec((0usize..3, 1u8..6, 0u8..6), 0..6),
    ) {
        let ops: Vec<RequestOp> = keys
            .iter()
            .map(|(kind, first, end)| {
                let key = Bytes::from(vec![*first]);
                let range_end = if *end == 0 { Bytes::new() } else { Bytes::from(vec![*end]) };
                op(match kind {
                    0 => Request::RequestPut(PutRequest { key, ..PutRequest::default() }),
                    1 => Request::RequestRange(RangeRequest { key, ..RangeRequest::default() }),
                    _ => Request::RequestDeleteRange(
                        DeleteRangeRequest { key, range_end, prev_kv: false },
                    ),
                })
            })
            .collect();
        let expected = if plainly_twice(&ops) { Err(Error::DuplicateKey) } else { Ok(()) };
        prop_assert_eq!(txn(&success(ops), OPS_MAX), expected);
    }
}
