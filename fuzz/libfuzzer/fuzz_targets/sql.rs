#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| (legwork_fuzz::TARGETS[10].run)(data));
