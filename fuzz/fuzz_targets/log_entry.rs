#![no_main]

use bytes::Bytes;
use castd_proto::castdpb::{Request, request::Op};
use castd_actors::mvcc::Store;
use prost::Message;

// What a raft log entry may say, run against a store: an outcome, never a panic.
libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let Ok(request) = Request::decode(Bytes::copy_from_slice(data)) else { return };
    let mut store = Store::default();
    match request.op {
        Some(Op::Put(put)) => drop(store.put(put)),
        Some(Op::DeleteRange(delete)) => drop(store.delete_range(&delete)),
        Some(Op::Txn(txn)) => drop(store.txn(txn)),
        Some(Op::Compaction(compaction)) => drop(store.compact(&compaction)),
        Some(Op::LeaseGrant(grant)) => drop(store.lease_grant(&grant)),
        Some(Op::LeaseRevoke(revoke)) => drop(store.lease_revoke(&revoke)),
        _ => {}
    }
    store.finish_batch();
});
