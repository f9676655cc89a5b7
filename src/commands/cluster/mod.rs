//! `s4 cluster`: makes a cluster of hosts that ssh reaches, and looks after it. `ssh` reaches them, `host.sh` is what runs there,
//! `facts` what it tells, `change` decides what is to be done, and the other files are the steps. `resize` drives the nodes
//! through a resize, of any cluster.

mod change;
mod definition;
mod down;
mod facts;
mod health;
mod parallel;
mod probe;
mod probing;
mod programs;
mod resize;
mod resize_hosts;
mod ssh;
mod start;
mod status;
mod steps;
mod up;
mod upgrade;

use crate::cli::{ClusterCommand, Global, ResizeArgs};
use definition::Files;
use s4::client::blocking;
use s4::error::{ExitStatus, Result};
use tokio::runtime::Handle;

pub async fn run(global: Global, command: ClusterCommand) -> Result<ExitStatus> {
    match command {
        ClusterCommand::Up(args) => blocking(move || up::run(&global, &args)).await,
        ClusterCommand::Status(args) => blocking(move || status::run(&global, &args)).await,
        ClusterCommand::Upgrade(args) => blocking(move || upgrade::run(&global, &args)).await,
        ClusterCommand::Resize(args) => resize(global, args).await,
        ClusterCommand::Down(args) => blocking(move || down::down(&global, &args)).await,
        ClusterCommand::Destroy(args) => blocking(move || down::destroy(&global, &args)).await,
        ClusterCommand::Probe => probe::run().await,
    }
}

/// By the hosts, if 'up' made the cluster.
async fn resize(global: Global, args: ResizeArgs) -> Result<ExitStatus> {
    let files = Files::find(global.conf_path.as_deref())?;
    match files.definition()? {
        Some(old) => {
            let runtime = Handle::current();
            blocking(move || resize_hosts::run(&global, &args, &files, &old, &runtime)).await
        }
        None => resize::run(&global, &args).await,
    }
}
