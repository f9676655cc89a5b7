//! `s4 cluster resize` of a cluster that `s4 cluster up` made: installs on new hosts, gives all hosts the new list, resizes,
//! and cleans the hosts that leave. Each step leaves what is done already, so the same command goes on after an
//! interruption.

use super::definition::{Definition, Files, Given, Member, cluster_of, given};
use super::parallel::on_all;
use super::programs::Programs;
use super::ssh::Host;
use super::steps::{all_of, connect, hosts, names, script, step};
use super::up::{Up, changes, checked, members, secret, their_secret};
use super::{health, resize};
use crate::cli::{Global, ResizeArgs};
use crate::commands::console::print_message;
use crate::commands::format::counted;
use s4::error::{Error, ErrorKind, ExitStatus, Result};
use s4::resize::Lists;
use tokio::runtime::Handle;

pub fn run(
    global: &Global,
    args: &ResizeArgs,
    files: &Files,
    old: &Definition,
    runtime: &Handle,
) -> Result<ExitStatus> {
    let before = cluster_of(&old.nodes, &files.hosts)?;
    let port = before.address(0).port();
    let wanted = wanted(&args.new, &old.nodes, port)?;
    let gone = &old.nodes[wanted.len().min(old.nodes.len())..];
    let typed: Vec<&str> = wanted.iter().map(|given| given.host.as_str()).collect();
    let all: Vec<&str> = typed.iter().copied().chain(names(gone)).collect();
    print_message(format_args!("checking {}", counted(all.len() as u64, "host")));
    let connections = connect(&args.ssh, old, &all)?;
    all_of(&connections, &all)?;
    let hosts = hosts(&connections);
    refuse_jobs(hosts[0], old.data.as_deref())?;
    let (staying, leaving) = hosts.split_at(typed.len());
    let data = old.data.clone();
    let facts = checked(staying, &typed, data.as_deref())?;
    let nodes = members(&wanted, &facts, |_| port, &typed)?;
    let cluster = cluster_of(&nodes, &files.conf)?;
    let theirs = their_secret(staying, &facts, &before, data.as_deref());
    let lists = Lists::new(before, cluster.clone())?;
    let definition = Definition { data, as_user: old.as_user, ssh: old.ssh.clone(), nodes };
    let (programs, secret) = (Programs::find()?, secret(global, files, theirs, args.dry_run)?);
    let changes = changes(&[], Some(old), &definition, &cluster, &facts, &programs, &secret)?;
    let up = Up { definition, cluster, hosts: staying, facts, changes, programs, secret, is_new: false };
    if args.dry_run {
        up.describe();
        for node in gone {
            print_message(format_args!("{} would be no node any more", node.host));
        }
        runtime.block_on(resize::describe(lists, resize::settings(global)?, true))?;
        return Ok(ExitStatus::Done);
    }
    up.change()?;
    runtime.block_on(resize::drive(lists, resize::settings(global)?))?;
    clean(leaving, gone, &up.definition)?;
    health::wait(staying, up.definition.data.as_deref())?;
    files.keep(&up.definition, &up.cluster)?;
    Ok(ExitStatus::Done)
}

/// The hosts as typed. Those of before keep their addresses.
fn wanted(typed: &[String], old: &[Member], port: u16) -> Result<Vec<Given>> {
    let mut wanted = given(typed, |_| port)?;
    for given in wanted.iter_mut().filter(|given| given.address.is_none()) {
        given.address = old.iter().find(|node| node.host == given.host).map(|node| node.address.clone());
    }
    Ok(wanted)
}

/// Refuses while jobs run, before anything is copied. A node that does not tell is asked again by the resize itself.
fn refuse_jobs(host: &Host, data: Option<&str>) -> Result<()> {
    let running = host.run(&script(data, "jobs")).ok().and_then(|text| text.trim().parse::<u64>().ok());
    match running.filter(|running| *running > 0) {
        None => Ok(()),
        Some(jobs) => {
            let message = format!("{} running; wait for the end or cancel, then resize", counted(jobs, "job"));
            Err(Error::new(ErrorKind::Busy, message))
        }
    }
}

/// The daemons of hosts that leave have ended by themselves.
fn clean(leaving: &[&Host], gone: &[Member], definition: &Definition) -> Result<()> {
    let data = definition.data.as_deref();
    let cleaned = on_all(leaving, |at, host| {
        let said = host.run(&script(data, "leave"));
        if let Ok(said) = &said {
            let what = match said.lines().any(|line| line == "kept") {
                true => "its daemon is stopped, and files that are no keys of the cluster are left on its disk",
                false => "its keys are on the others, and what 's4 cluster' has made there is removed",
            };
            print_message(format_args!("{}: no node any more; {what}", gone[at].host));
        }
        (gone[at].host.as_str(), said.map(drop))
    });
    step("the removal", cleaned)
}
