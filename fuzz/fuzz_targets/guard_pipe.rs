//! Bytes between supervisor and guard: the same messages, wherever they were cut.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| systole::fuzzing::guard_pipe(bytes));
