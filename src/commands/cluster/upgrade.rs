//! `s4 cluster upgrade`: new programs, node by node, so that clients and mounts go on.

use super::definition::Files;
use super::facts::Facts;
use super::health::{self, NodeHealth};
use super::parallel::on_all;
use super::programs::Programs;
use super::ssh::Host;
use super::steps::{all_of, connect, hosts, names, refuse, script, step};
use crate::cli::{Global, UpgradeArgs};
use crate::commands::console::print_message;
use crate::commands::format::counted;
use s4::cluster::Address;
use s4::error::{Error, ErrorKind, ExitStatus, Result};
use s4::protocol::PROTOCOL;
use std::time::{Duration, Instant};

const PAUSE: Duration = Duration::from_millis(500);

pub fn run(global: &Global, args: &UpgradeArgs) -> Result<ExitStatus> {
    let definition = Files::find(global.conf_path.as_deref())?.existing()?;
    let (names, data) = (names(&definition.nodes), definition.data.as_deref());
    let connections = connect(&args.ssh, &definition, &names)?;
    all_of(&connections, &names)?;
    let hosts = hosts(&connections);
    let facts = facts_of(&hosts, &names, data)?;
    let programs = Programs::find()?;
    let differing: Vec<Vec<String>> = facts.iter().map(|facts| differing(&programs, facts)).collect();
    let old: Vec<usize> = (0..hosts.len()).filter(|&node| !differing[node].is_empty()).collect();
    if old.is_empty() {
        print_message(format_args!("unchanged: all {} have these programs", counted(hosts.len() as u64, "node")));
        let down: Vec<usize> = (0..hosts.len()).filter(|&node| facts[node].pid.is_none()).collect();
        for &node in &down {
            print_message(format_args!("{}: node {node}: stopped; 's4 cluster up' starts it", names[node]));
        }
        return Ok(if down.is_empty() { ExitStatus::Done } else { ExitStatus::Failed });
    }
    let runs = facts.iter().any(|facts| facts.pid.is_some());
    let before = if runs { health::wait(&hosts, data)? } else { Vec::new() };
    refuse_protocol(&before, &names)?;
    if args.dry_run {
        for &node in &old {
            print_message(format_args!("{}: node {node}: would get {}", names[node], differing[node].join(", ")));
        }
        return Ok(ExitStatus::Done);
    }
    print_message(format_args!("copying to {}", counted(old.len() as u64, "host")));
    let staged =
        on_all(&old, |_, &node| (names[node], programs.stage(hosts[node], &facts[node], data, &differing[node])));
    let upgraded = step("copying", staged).and_then(|()| {
        if runs {
            await_jobs(&hosts, data, args.wait)?;
        }
        for &node in &old {
            let port = Address::parse(&definition.nodes[node].address).map_or(0, |address| address.port());
            replace(&hosts, node, port, data, facts[node].pid.is_some() || runs)?;
        }
        Ok(())
    });
    if upgraded.is_err() {
        on_all(&old, |_, &node| hosts[node].run(&script(data, "unstage")));
    }
    upgraded.map(|()| ExitStatus::Done)
}

fn facts_of(hosts: &[&Host], names: &[&str], data: Option<&str>) -> Result<Vec<Facts>> {
    let (mut facts, mut problems) = (Vec::new(), Vec::new());
    for (node, found) in Facts::of_all(hosts, data).into_iter().enumerate() {
        match found {
            Ok(found) => facts.push(found),
            Err(why) => problems.push((node, why)),
        }
    }
    refuse(&problems, names).map(|()| facts)
}

fn differing(programs: &Programs, facts: &Facts) -> Vec<String> {
    let differs = |(name, sum): &(&String, &String)| facts.programs.get(*name) != Some(*sum);
    programs.sums.iter().filter(differs).map(|(name, _)| name.clone()).collect()
}

/// Nodes of two protocols would misunderstand each other while the upgrade goes on.
fn refuse_protocol(nodes: &[NodeHealth], names: &[&str]) -> Result<()> {
    match nodes.iter().find(|node| node.protocol.is_some_and(|protocol| protocol != PROTOCOL)) {
        None => Ok(()),
        Some(node) => Err(Error::new(
            ErrorKind::Config,
            format!(
                "{} runs version {} with protocol {}, and these programs have {PROTOCOL}: such nodes cannot work together; \
                 's4 cluster down', then 's4 cluster upgrade' and 's4 cluster up'",
                names.get(node.node).unwrap_or(&"a node"),
                node.version.as_deref().unwrap_or("unknown"),
                node.protocol.unwrap_or_default()
            ),
        )),
    }
}

/// Waits until no job runs: a restart would end its tasks.
fn await_jobs(hosts: &[&Host], data: Option<&str>, limit: Duration) -> Result<()> {
    let began = Instant::now();
    let mut told = false;
    loop {
        let text = hosts[0]
            .run(&script(data, "jobs"))
            .map_err(|why| Error::new(ErrorKind::Config, format!("{}: {why}", hosts[0].name)))?;
        let running = text
            .trim()
            .parse::<u64>()
            .map_err(|_| Error::new(ErrorKind::Config, "'s4 jobs' on a host said no number"))?;
        if running == 0 {
            return Ok(());
        }
        if began.elapsed() > limit {
            let message = format!(
                "{running} jobs still run after {} s; wait for them or cancel them, then upgrade",
                limit.as_secs()
            );
            return Err(Error::new(ErrorKind::Busy, message));
        }
        if !std::mem::replace(&mut told, true) {
            print_message(format_args!("waiting for {running} jobs, at most {} s", limit.as_secs()));
        }
        std::thread::sleep(PAUSE);
    }
}

/// Puts the new programs into their place on one host, and starts its daemon again if the cluster runs.
fn replace(hosts: &[&Host], node: usize, port: u16, data: Option<&str>, runs: bool) -> Result<()> {
    let (host, began) = (hosts[node], Instant::now());
    let call = if runs { format!("commit {port} stop") } else { "install".to_owned() };
    let failed = |why: String| {
        Error::new(ErrorKind::Config, format!("{}: {why}; the nodes after it were not upgraded", host.name))
    };
    host.run(&script(data, &call)).map_err(failed)?;
    if !runs {
        print_message(format_args!("{}: node {node}: upgraded", host.name));
        return Ok(());
    }
    let nodes = health::wait(hosts, data)?;
    let version = nodes.iter().find(|health| health.node == node).and_then(|health| health.version.clone());
    let (version, took) = (version.unwrap_or_default(), began.elapsed().as_secs_f64());
    print_message(format_args!("{}: node {node}: version {version}, healthy after {took:.1} s", host.name));
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nodes_of_another_protocol_are_refused() {
        let node = |protocol: u32| {
            let line = format!(r#"{{"node":0,"state":"healthy","version":"9.0.0","protocol":{protocol}}}"#);
            vec![serde_json::from_str::<NodeHealth>(&line).unwrap()]
        };
        refuse_protocol(&node(PROTOCOL), &["a"]).unwrap();
        let refused = refuse_protocol(&node(PROTOCOL + 1), &["a"]).unwrap_err().to_string();
        assert!(refused.starts_with("a runs version 9.0.0 with protocol 2, and these programs have 1"), "{refused}");
    }
}
