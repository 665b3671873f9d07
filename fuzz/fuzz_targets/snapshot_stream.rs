#![no_main]

// A snapshot on its way between members: an error or a state, never a panic.
libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    castd_actors::snapshot::fuzz_stream(data);
});
