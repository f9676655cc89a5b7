//! The program `s4`: parses the command line, dispatches, and exits with the status. No other code exits.

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
    // One thread moves all bytes. Files and hashing have their own threads.
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
                // stderr may be closed.
                let _ = writeln!(std::io::stderr(), "s4: {error}");
            }
            error.kind().exit_status()
        }
    };
    // Do not wait for threads that read stdin or write to a blocked pipe.
    runtime.shutdown_background();
    if let ExitStatus::Signal(signal) = status {
        die_by(signal);
    }
    ExitCode::from(status.code())
}

/// Reports a command line that is wrong or asks for help.
fn refuse(error: &clap::Error) -> ExitCode {
    use clap::error::ErrorKind::{DisplayHelp, DisplayHelpOnMissingArgumentOrSubcommand, DisplayVersion};
    if matches!(error.kind(), DisplayHelp | DisplayVersion | DisplayHelpOnMissingArgumentOrSubcommand) {
        error.exit();
    }
    let args: Vec<String> = std::env::args_os().skip(1).map(|arg| arg.to_string_lossy().into_owned()).collect();
    if let [help, topic] = &args[..]
        && help == "help"
        && let Some(text) = cli::topics::text_of(topic)
    {
        // stdout may be closed.
        let _ = std::io::stdout().write_all(text.as_bytes());
        return ExitCode::from(ExitStatus::Done.code());
    }
    // stderr may be closed.
    let _ = writeln!(std::io::stderr(), "s4: {}", mistakes::explain(error, &args));
    ExitCode::from(ExitStatus::Usage.code())
}

/// Ends as if the signal had not been caught. A shell ends its script only if the command died by the signal.
fn die_by(signal: i32) {
    use nix::sys::signal::{SigHandler, Signal, raise, signal as handle};
    if let Ok(signal) = Signal::try_from(signal) {
        // SAFETY: the default action replaces a handler; no code of this program runs in it.
        let restored = unsafe { handle(signal, SigHandler::SigDfl) };
        // If this fails, the exit status carries the same information.
        let _ = restored.and_then(|_| raise(signal));
    }
}
