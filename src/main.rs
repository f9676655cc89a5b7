//! The program `s4`: parse, dispatch, exit status. The only place that exits.

mod cli;
mod commands;
mod mistakes;

use clap::Parser;
use cli::Cli;
use s4::error::{ErrorKind, ExitStatus};
use std::io::Write;
use std::process::ExitCode;

fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => return refuse(&error),
    };
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
    if let ExitStatus::Signal(signal) = status {
        die_by(signal);
    }
    ExitCode::from(status.code())
}

/// Of a command line that is not understood, or asks for help.
fn refuse(error: &clap::Error) -> ExitCode {
    use clap::error::ErrorKind::{DisplayHelp, DisplayHelpOnMissingArgumentOrSubcommand, DisplayVersion};
    if matches!(error.kind(), DisplayHelp | DisplayVersion | DisplayHelpOnMissingArgumentOrSubcommand) {
        error.exit();
    }
    let args: Vec<String> = std::env::args_os().skip(1).map(|arg| arg.to_string_lossy().into_owned()).collect();
    // Nobody may be reading stderr.
    let _ = writeln!(std::io::stderr(), "s4: {}", mistakes::explain(error, &args));
    ExitCode::from(ExitStatus::Usage.code())
}

/// Ends as if the signal had not been caught: a shell ends its script only if the command in it died by the signal.
fn die_by(signal: i32) {
    use nix::sys::signal::{SigHandler, Signal, raise, signal as handle};
    if let Ok(signal) = Signal::try_from(signal) {
        // SAFETY: the default action takes the place of a handler; no code of ours runs in it.
        let restored = unsafe { handle(signal, SigHandler::SigDfl) };
        // Where that fails, the exit status says as much.
        let _ = restored.and_then(|_| raise(signal));
    }
}
