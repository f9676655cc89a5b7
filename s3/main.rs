//! The program `s4-s3`: serves a cluster as S3, and copies between S3 and a cluster.

mod cli;
mod client;
mod copy;
mod get;
mod metadata;
mod put;
mod serve;
mod upload;

use clap::Parser;
use cli::{Cli, Command};
use s4::error::{ErrorKind, ExitStatus, Result};
use std::io::Write;
use std::process::ExitCode;

fn main() -> ExitCode {
    let cli = Cli::parse();
    s4::limits::tune_malloc();
    s4::limits::raise_descriptors();
    let runtime = match s4::runtime::build() {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("s4-s3: cannot start: {error}");
            return ExitCode::from(ExitStatus::Failed.code());
        }
    };
    let status = match runtime.block_on(run(cli)) {
        Ok(()) => ExitStatus::Done,
        Err(error) => {
            if error.kind() != ErrorKind::OutputClosed {
                // stderr may be closed.
                let _ = writeln!(std::io::stderr(), "s4-s3: {error}");
            }
            error.kind().exit_status()
        }
    };
    // Do not wait for threads that read stdin or write to a blocked pipe.
    runtime.shutdown_background();
    ExitCode::from(status.code())
}

async fn run(cli: Cli) -> Result<()> {
    match cli.command {
        Command::Serve(args) => serve::run(&cli.global, &args).await,
        Command::Get(args) => get::run(&args).await,
        Command::Put(args) => put::run(&args).await,
        Command::CopyWorker => copy::run().await,
    }
}
