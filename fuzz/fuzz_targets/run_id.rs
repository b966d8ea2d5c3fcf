//! A run id is what the database's CHECK allows, and a refusal cannot steer a terminal.
#![no_main]

libfuzzer_sys::fuzz_target!(|text: &str| systole::fuzzing::run_id(text));
