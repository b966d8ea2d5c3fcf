//! A configuration file: values, or a refusal.
#![no_main]

libfuzzer_sys::fuzz_target!(|text: &str| systole::fuzzing::configuration(text));
