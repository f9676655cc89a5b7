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

pub async fn run(cli: Cli) -> Result<ExitStatus> {
    let global = cli.global;
    match cli.command {
        Command::Cp(args) => cp::run(&connect(&global)?, args).await,
        Command::Ls(args) => ls::run(&connect(&global)?, args).await,
        Command::Rm(args) => rm::run(&connect(&global)?, args).await,
        Command::Eval(args) => eval::run(&connect(&global)?, args).await,
        Command::Run(args) => run::run(&connect(&global)?, args).await,
        Command::Map(args) => map::run(&connect(&global)?, MapKind::Map, args).await,
        Command::MapToN(args) => map::run(&connect(&global)?, MapKind::MapToN, args).await,
        Command::MapFromN(args) => map::run(&connect(&global)?, MapKind::MapFromN, args).await,
        Command::Partition(args) => partition::run(&args),
        Command::Jobs(args) => jobs::run(&connect(&global)?, &args).await,
        Command::Wait(args) => wait::run(&connect(&global)?, &args).await,
        Command::Logs(args) => logs::run(&connect(&global)?, &args).await,
        Command::Cancel(args) => cancel::run(&connect(&global)?, &args).await,
        Command::Why(args) => why::run(&connect(&global)?, &args).await,
        Command::Scrub(args) => scrub::run(&connect(&global)?, args).await,
        Command::Health(args) => health::run(&connect(&global)?, &args).await,
        Command::Top(args) => top::run(&connect(&global)?, &args).await,
        Command::Config(args) => config::run(&connect(&global)?, &args),
        Command::Mount(args) => mount::run(&global, &args),
        Command::Umount(args) => umount::run(&args),
        Command::Local(args) => local::run(&args, global.secret.as_deref()).await,
        Command::Cluster(args) => cluster::run(global, args.command).await,
        Command::Complete(args) => complete::run(&connect(&global)?, &args).await,
        Command::Completions(args) => completions::run(args.shell),
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
