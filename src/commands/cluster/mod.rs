//! `s4 cluster`: makes a cluster of hosts that ssh reaches, and looks after it. `ssh` reaches them, `host.sh` is what runs there,
//! `facts` what it tells, `change` decides what is to be done, and the other files are the steps. `resize` needs no ssh.

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
mod ssh;
mod status;
mod steps;
mod up;
mod upgrade;

use crate::cli::{ClusterCommand, Global};
use s4::client::blocking;
use s4::error::{ExitStatus, Result};

pub async fn run(global: Global, command: ClusterCommand) -> Result<ExitStatus> {
    match command {
        ClusterCommand::Up(args) => blocking(move || up::run(&global, &args)).await,
        ClusterCommand::Status(args) => blocking(move || status::run(&global, &args)).await,
        ClusterCommand::Upgrade(args) => blocking(move || upgrade::run(&global, &args)).await,
        ClusterCommand::Resize(args) => resize::run(&global, &args).await,
        ClusterCommand::Down(args) => blocking(move || down::down(&global, &args)).await,
        ClusterCommand::Destroy(args) => blocking(move || down::destroy(&global, &args)).await,
        ClusterCommand::Probe => probe::run().await,
    }
}
