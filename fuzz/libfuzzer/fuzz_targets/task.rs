#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| (legwork_fuzz::TARGETS[9].run)(data));
