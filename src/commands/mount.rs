//! `s4 mount`: runs s4-mount in this program's place.

use super::programs::program;
use crate::cli::{Global, MountArgs};
use s4::error::{Error, ExitStatus, Result};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;

/// Does not return if s4-mount could be started.
pub fn run(global: &Global, args: &MountArgs) -> Result<ExitStatus> {
    let mut command = command(&args.dir, global.conf_path.as_deref(), global.secret.as_deref());
    command.arg("--deadline").arg(global.deadline.as_secs_f64().to_string()).args(&args.options);
    Err(Error::io("cannot start s4-mount", &command.exec()))
}

/// s4-mount on `dir`.
pub fn command(dir: &Path, conf: Option<&Path>, secret: Option<&Path>) -> Command {
    let mut command = Command::new(program("s4-mount"));
    command.arg(dir);
    if let Some(conf) = conf {
        command.arg("--conf-path").arg(conf);
    }
    if let Some(secret) = secret {
        command.arg("--secret").arg(secret);
    }
    command
}
