//! `s4 completions`

use crate::cli::{Cli, Shell};
use clap::CommandFactory;
use clap_complete::generate;
use s4::error::{Error, ExitStatus, Result};
use std::io::Write;

pub fn run(shell: Shell) -> Result<ExitStatus> {
    let mut command = Cli::command();
    let mut script = Vec::new();
    let shell = match shell {
        Shell::Bash => clap_complete::Shell::Bash,
        Shell::Zsh => clap_complete::Shell::Zsh,
        Shell::Fish => clap_complete::Shell::Fish,
    };
    generate(shell, &mut command, "s4", &mut script);
    std::io::stdout().write_all(&script).map_err(|e| Error::io("stdout", &e))?;
    Ok(ExitStatus::Done)
}
