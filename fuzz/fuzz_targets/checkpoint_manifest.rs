#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    castd_actors::checkpointer::fuzz_manifest(data);
});
