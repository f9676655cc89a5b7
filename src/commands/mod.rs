//! The subcommands, one file each.

mod absence;
mod cancel;
mod cluster;
mod complete;
mod completions;
mod config;
mod console;
mod cp;
mod display;
mod eval;
mod files;
mod follow;
mod format;
mod health;
mod hints;
mod job_id;
mod jobs;
mod local;
mod local_door;
mod logs;
mod ls;
mod map;
mod mount;
mod partition;
mod programs;
mod rm;
mod run;
mod scrub;
mod start;
mod top;
mod umount;
mod wait;
mod warning;
mod why;

use crate::cli::{Cli, Command, Global};
use s4::client::{Client, Proxy, Secret, Settings};
use s4::cluster::{Cluster, conf_path};
use s4::error::{Error, ExitStatus, Result};
use s4::protocol::MapKind;
use std::pin::Pin;

/// What a command does.
type Running = Pin<Box<dyn Future<Output = Result<ExitStatus>>>>;

/// Runs the command. Each has a future of its own, or every start would make room on its stack for the largest.
pub fn run(cli: Cli) -> Running {
    let global = cli.global;
    match cli.command {
        Command::Cp(args) => Box::pin(async move { cp::run(&connect(&global)?, args).await }),
        Command::Ls(args) => Box::pin(async move { ls::run(&connect(&global)?, args).await }),
        Command::Rm(args) => Box::pin(async move { rm::run(&connect(&global)?, args).await }),
        Command::Eval(args) => Box::pin(async move { eval::run(&connect(&global)?, args).await }),
        Command::Run(args) => Box::pin(async move { run::run(&connect(&global)?, args).await }),
        Command::Map(args) => Box::pin(async move { map::run(&connect(&global)?, MapKind::Map, args).await }),
        Command::MapToN(args) => Box::pin(async move { map::run(&connect(&global)?, MapKind::MapToN, args).await }),
        Command::MapFromN(args) => Box::pin(async move { map::run(&connect(&global)?, MapKind::MapFromN, args).await }),
        Command::Partition(args) => Box::pin(async move { partition::run(&args) }),
        Command::Jobs(args) => Box::pin(async move { jobs::run(&connect(&global)?, &args).await }),
        Command::Wait(args) => Box::pin(async move { wait::run(&connect(&global)?, &args).await }),
        Command::Logs(args) => Box::pin(async move { logs::run(&connect(&global)?, &args).await }),
        Command::Cancel(args) => Box::pin(async move { cancel::run(&connect(&global)?, &args).await }),
        Command::Why(args) => Box::pin(async move { why::run(&connect(&global)?, &args).await }),
        Command::Scrub(args) => Box::pin(async move { scrub::run(&connect(&global)?, args).await }),
        Command::Health(args) => Box::pin(async move { health::run(&connect(&global)?, &args).await }),
        Command::Top(args) => Box::pin(async move { top::run(&connect(&global)?, &args).await }),
        Command::Config(args) => Box::pin(async move { config::run(&connect(&global)?, &args) }),
        Command::Mount(args) => Box::pin(async move { mount::run(&global, &args) }),
        Command::Umount(args) => Box::pin(async move { umount::run(&args) }),
        Command::Local(args) => Box::pin(async move { local::run(&args, global.secret.as_deref()).await }),
        Command::Cluster(args) => Box::pin(async move { cluster::run(global, args.command).await }),
        Command::Complete(args) => Box::pin(async move { complete::run(&connect(&global)?, &args).await }),
        Command::Completions(args) => Box::pin(async move { completions::run(args.shell) }),
    }
}

fn connect(global: &Global) -> Result<Client> {
    let cluster = Cluster::load(global.conf_path.as_deref()).map_err(|error| point_to_local(error, global))?;
    let secret = Secret::find(global.secret.as_deref(), global.conf_path.as_deref())?;
    let proxy = Proxy::from_environment()?;
    Ok(Client::new(cluster, Settings { deadline: global.deadline, secret, proxy, ..Settings::default() }))
}

/// If there is no cluster file, and a cluster of `s4 local` runs, names its file: another shell may know it.
fn point_to_local(error: Error, global: &Global) -> Error {
    let is_absent = global.conf_path.is_none() && conf_path(None).is_ok_and(|path| !path.exists());
    match is_absent.then(local::running_conf).flatten() {
        Some(conf) => error.with_more(&format!("one runs here: export S4_CONF_PATH={}", conf.display())),
        None => error,
    }
}
