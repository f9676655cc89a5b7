//! The program `s4`: parse, dispatch, exit status. The only place that exits.

mod cli;
mod commands;

use clap::Parser;
use cli::Cli;
use s4::error::{ErrorKind, ExitStatus};
use std::io::Write;
use std::process::ExitCode;

fn main() -> ExitCode {
    let cli = Cli::parse();
    // One thread moves the bytes; files and hashing have threads of their own.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = match runtime {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("s4: cannot start: {error}");
            return ExitCode::from(ExitStatus::Failed.code());
        }
    };
    let status = match runtime.block_on(commands::run(cli)) {
        Ok(status) => status,
        Err(error) => {
            if error.kind() != ErrorKind::OutputClosed {
                // Nobody may be reading stderr.
                let _ = writeln!(std::io::stderr(), "s4: {error}");
            }
            error.kind().exit_status()
        }
    };
    // A thread that reads stdin, or writes to a stuck pipe, must not keep the program.
    runtime.shutdown_background();
    ExitCode::from(status.code())
}
