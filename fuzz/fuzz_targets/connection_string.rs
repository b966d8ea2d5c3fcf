//! Whatever is pasted: read or refused, and no password is ever repeated.
#![no_main]

libfuzzer_sys::fuzz_target!(|text: &str| systole::fuzzing::connection_string(text));
