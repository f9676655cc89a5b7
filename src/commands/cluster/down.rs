//! `s4 cluster down` and `s4 cluster destroy`

use super::definition::Files;
use super::parallel::on_all;
use super::steps::{all_of, connect, hosts, names, script, step};
use crate::cli::{DestroyArgs, DownArgs, Global};
use crate::commands::console::print_message;
use s4::error::{Error, ErrorKind, ExitStatus, Result};

/// What is told of a host that has no part of the cluster, as after a change of the user that ssh logs in as.
const ABSENT: &str = "nothing of a cluster is there, for the user that ssh logs in as";

fn is_absent(said: &str) -> bool {
    said.lines().any(|line| line == "absent")
}

/// Stops the daemons. Hosts that are not reached are named, and the others are stopped.
pub fn down(global: &Global, args: &DownArgs) -> Result<ExitStatus> {
    let definition = Files::find(global.conf_path.as_deref())?.existing()?;
    let names = names(&definition.nodes);
    let connections = connect(&args.ssh, &definition, &names)?;
    let results = on_all(&connections.hosts, |node, host| {
        let host = host.as_ref().map_err(|why| why.clone());
        let said = host.and_then(|host| host.run(&script(definition.data.as_deref(), "down")));
        let said = said.and_then(|said| if is_absent(&said) { Err(ABSENT.to_owned()) } else { Ok(said) });
        if let Ok(said) = &said {
            let what = if said.lines().any(|line| line.starts_with("pid ")) { "stopped" } else { "unchanged" };
            print_message(format_args!("{}: node {node}: {what}", names[node]));
        }
        (names[node], said.map(|_| ()))
    });
    step("the stop", results).map(|()| ExitStatus::Done)
}

/// Removes everything that `up` has made.
pub fn destroy(global: &Global, args: &DestroyArgs) -> Result<ExitStatus> {
    let files = Files::find(global.conf_path.as_deref())?;
    let definition = files.existing()?;
    let names = names(&definition.nodes);
    if !args.yes {
        let message = format!("all keys on {} hosts ({}) would be lost: give --yes", names.len(), some(&names));
        return Err(Error::usage(message));
    }
    let connections = connect(&args.ssh, &definition, &names)?;
    all_of(&connections, &names)?;
    let results = on_all(&hosts(&connections), |node, host| {
        let done = host.run(&script(definition.data.as_deref(), "destroy"));
        if let Ok(said) = &done {
            let what = if is_absent(said) { ABSENT } else { "removed" };
            print_message(format_args!("{}: node {node}: {what}", names[node]));
        }
        (names[node], done)
    });
    let had_something = results.iter().any(|(_, done)| done.as_ref().is_ok_and(|said| !is_absent(said)));
    step("the removal", results.into_iter().map(|(name, done)| (name, done.map(drop))).collect())?;
    if !had_something {
        let message = format!("{}: left, since no host had anything of the cluster", files.hosts.display());
        return Err(Error::new(ErrorKind::Config, message));
    }
    files.forget().map(|()| ExitStatus::Done)
}

/// The first few names.
fn some(names: &[&str]) -> String {
    let more = if names.len() > 3 { ", …" } else { "" };
    names[..names.len().min(3)].join(", ") + more
}
