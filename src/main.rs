//! The `systole` program: guard or init if started as one, else what the command line says.

use std::process::ExitCode;

fn main() -> ExitCode {
    if let Some(code) = systole::guard::branch() {
        return ExitCode::from(u8::try_from(code).unwrap_or(70));
    }
    ExitCode::from(systole::cli::main())
}
