#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    castd_actors::wal_writer::fuzz_segment(data);
});
