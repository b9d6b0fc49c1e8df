//! libFuzzer's door to the chain; see the library for what the bytes mean and what must hold.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| companyos_operators_fuzz::decode(data));
