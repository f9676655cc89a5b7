//! `s4 mount`: replaces this process by s4-mount.

use super::programs::program;
use crate::cli::{Global, MountArgs};
use s4::error::{Error, ExitStatus, Result};
use s4::mounts;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;

/// The mount option that permits a directory which is not empty.
const NONEMPTY: &str = "nonempty";

/// Returns only if s4-mount could not be started.
pub fn run(global: &Global, args: &MountArgs) -> Result<ExitStatus> {
    if !args.options.iter().any(|option| option.to_string_lossy().contains(NONEMPTY)) {
        check_empty(&args.dir)?;
    }
    let mut command = command(&args.dir, global.conf_path.as_deref(), global.secret.as_deref());
    command.arg("--deadline").arg(global.deadline.as_secs_f64().to_string()).args(&args.options);
    Err(Error::io("cannot start s4-mount", &command.exec()))
}

/// Refuses a directory whose files the mount would hide. If it cannot be read, s4-mount decides.
fn check_empty(dir: &Path) -> Result<()> {
    let is_mounted =
        || mounts::resolve(dir).is_ok_and(|dir| mounts::at(&dir).is_some_and(|mounted| mounted.is_cluster));
    match std::fs::read_dir(dir).map(|mut entries| entries.next().is_some()) {
        Ok(true) if !is_mounted() => {
            let why = "it is not empty, and the mount would hide what is in it; choose an empty directory, or add -o nonempty";
            Err(Error::usage(format!("{}: {why}", dir.display())))
        }
        _ => Ok(()),
    }
}

/// The command s4-mount for `dir`.
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
