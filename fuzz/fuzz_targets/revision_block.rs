#![no_main]

use bytes::Bytes;
use castd_actors::mvcc::Store;

// A block of a checkpoint, behind its checksum: an error or a store, never a panic.
libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let mut store = Store::default();
    let _ = store.load_block(&Bytes::copy_from_slice(data), 10);
});
