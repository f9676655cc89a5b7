//! `s4 cluster up`

use super::change::{self, Change, Goal};
use super::definition::{Definition, Files, Given, Member, address, cluster_of, conf_text, given};
use super::facts::{CLOCK_OFF, Facts, clocks_off, lines};
use super::health;
use super::parallel::on_all;
use super::probing::{Asked, problems, question};
use super::programs::{Programs, new_dir, sum_of};
use super::ssh::Host;
use super::start;
use super::steps::{all_of, connect, hosts, names, refuse, script, step};
use crate::cli::{Global, SshArgs, UpArgs};
use crate::commands::console::print_message;
use crate::commands::format::counted;
use s4::cluster::{Address, Cluster};
use s4::error::{Error, ErrorKind, ExitStatus, Result};
use std::io::Write;

/// The port of a node that is given none.
const PORT: u16 = 8080;

/// Everything that the steps need.
pub struct Up<'a> {
    pub definition: Definition,
    pub cluster: Cluster,
    pub hosts: &'a [&'a Host],
    pub facts: Vec<Facts>,
    pub changes: Vec<Change>,
    pub programs: Programs,
    pub secret: String,
    pub is_new: bool,
}

pub fn run(global: &Global, args: &UpArgs) -> Result<ExitStatus> {
    let files = Files::find(global.conf_path.as_deref())?;
    let old = files.definition()?;
    let wanted = wanted(args, old.as_ref(), &files)?;
    let data = args.data.clone().or_else(|| old.as_ref().and_then(|old| old.data.clone()));
    let as_user = args.as_user || old.as_ref().is_some_and(|old| old.as_user);
    refuse_other(args, old.as_ref())?;
    let typed: Vec<&str> = wanted.iter().map(|given| given.host.as_str()).collect();
    if let Some(unknown) = args.replace.iter().find(|host| !typed.contains(&host.as_str())) {
        return Err(Error::usage(format!("--replace: '{unknown}' is none of the hosts")));
    }
    let ssh = match (&old, args.ssh.ssh_option.is_empty()) {
        (Some(old), true) => old.ssh.clone(),
        _ => args.ssh.ssh_option.clone(),
    };
    let mut definition = Definition { data, as_user, ssh, nodes: Vec::new() };
    print_message(format_args!("checking {}", counted(typed.len() as u64, "host")));
    let connections = connect(&SshArgs::default(), &definition, &typed)?;
    if let Some(old) = old.as_ref().filter(|old| names(&old.nodes) == typed && !args.dry_run) {
        start::on_reached(old, &connections, &cluster_of(&old.nodes, &files.conf)?)?;
    }
    all_of(&connections, &typed)?;
    let hosts = hosts(&connections);
    let facts = checked(&hosts, &typed, definition.data.as_deref())?;
    if let Some(node) = facts.iter().position(|facts| as_user && facts.is_root) {
        let message = format!("{}: ssh logs in as root, and --as-user wants an ordinary user", typed[node]);
        return Err(Error::usage(message));
    }
    let nodes = members(&wanted, &facts, |host| port_for(args, old.as_ref(), host), &typed)?;
    if let Some(old) = &old {
        change::compare(&old.nodes, &nodes).map_err(|why| Error::new(ErrorKind::Config, why))?;
    }
    definition.nodes = nodes;
    let cluster = cluster_of(&definition.nodes, &files.conf)?;
    let programs = Programs::find()?;
    let theirs = their_secret(&hosts, &facts, &cluster, definition.data.as_deref());
    let secret = secret(global, &files, theirs, args.dry_run)?;
    let changes = changes(&args.replace, old.as_ref(), &definition, &cluster, &facts, &programs, &secret)?;
    let up = Up { definition, cluster, hosts: &hosts, facts, changes, programs, secret, is_new: old.is_none() };
    if args.dry_run {
        up.describe();
        return Ok(ExitStatus::Done);
    }
    up.make()?;
    files.keep(&up.definition, &up.cluster)?;
    let export = format!("export S4_CONF_PATH={}\n", files.conf.display());
    std::io::stdout().write_all(export.as_bytes()).map_err(|e| Error::io("stdout", &e))?;
    Ok(ExitStatus::Done)
}

/// The hosts that are typed, else those of before.
fn wanted(args: &UpArgs, old: Option<&Definition>, files: &Files) -> Result<Vec<Given>> {
    if args.hosts.is_empty() {
        let old = old.ok_or_else(|| Error::usage("no hosts: 's4 cluster up HOST…' makes a cluster of them"))?;
        let again = |node: &Member| Given { host: node.host.clone(), address: Some(node.address.clone()) };
        return Ok(old.nodes.iter().map(again).collect());
    }
    if old.is_none() && files.conf.exists() {
        let message = format!(
            "{}: this cluster was not made by 's4 cluster up'; give another file with --conf-path",
            files.conf.display()
        );
        return Err(Error::new(ErrorKind::AlreadyExists, message));
    }
    given(&args.hosts, |host| port_for(args, old, host))
}

/// Refuses what a cluster that exists would not take over.
fn refuse_other(args: &UpArgs, old: Option<&Definition>) -> Result<()> {
    let refuse = |why: &str| Err(Error::usage(why));
    match old {
        Some(old) if args.as_user && !old.as_user => {
            refuse("--as-user: the cluster was made without it; 's4 cluster destroy' it first, and make it again")
        }
        Some(_) if args.port.is_some() && args.hosts.is_empty() => {
            refuse("--port: to change the ports of the nodes, give their hosts again")
        }
        _ => Ok(()),
    }
}

/// The port of a host without an address: what is given now, else that of before.
fn port_for(args: &UpArgs, old: Option<&Definition>, host: &str) -> u16 {
    let before = || {
        let node = old?.nodes.iter().find(|node| node.host == host)?;
        Some(Address::parse(&node.address).ok()?.port())
    };
    args.port.or_else(before).unwrap_or(PORT)
}

/// The secret that the cluster has or gets; of a dry run, empty if it would get a new one.
pub fn secret(global: &Global, files: &Files, theirs: Option<String>, dry_run: bool) -> Result<String> {
    let given = global.secret.as_deref();
    match dry_run {
        true => Ok(files.known_secret(given, theirs)?.unwrap_or_default()),
        false => files.secret(given, theirs),
    }
}

/// The secret of the cluster, if it was made from another machine.
pub fn their_secret(hosts: &[&Host], facts: &[Facts], cluster: &Cluster, data: Option<&str>) -> Option<String> {
    let node = facts.iter().position(|facts| facts.nodes == cluster.lines() && facts.secret.is_some())?;
    let text = hosts[node].run(&script(data, "print_secret")).ok()?;
    let (key, secret) = *lines(&text).ok()?.first()?;
    (key == "secret").then(|| secret.to_owned())
}

/// What the hosts are, if all can be nodes.
pub fn checked(hosts: &[&Host], names: &[&str], data: Option<&str>) -> Result<Vec<Facts>> {
    let (mut facts, mut problems) = (Vec::new(), Vec::new());
    for (node, found) in Facts::of_all(hosts, data).into_iter().enumerate() {
        match found {
            Ok(found) => {
                problems.extend(found.problems().into_iter().map(|problem| (node, problem)));
                facts.push(found);
            }
            Err(why) => problems.push((node, why)),
        }
    }
    let clocks: Vec<(i64, i64)> = facts.iter().map(|facts| facts.clock).collect();
    if clocks.len() == hosts.len() {
        let off = clocks_off(&clocks).into_iter().enumerate().filter(|(_, off)| off.abs() > CLOCK_OFF);
        problems.extend(off.map(|(node, off)| {
            let (direction, seconds) = (if off > 0 { "ahead" } else { "behind" }, off.unsigned_abs() as f64 / 1000.0);
            (node, format!("its clock is {seconds:.1} s {direction}: set it, for example with chrony"))
        }));
        problems.sort_by_key(|(node, _)| *node);
    }
    refuse(&problems, names).map(|()| facts)
}

/// The nodes, each at its given address or at that by which ssh reaches it.
pub fn members(
    wanted: &[Given],
    facts: &[Facts],
    port_for: impl Fn(&str) -> u16,
    names: &[&str],
) -> Result<Vec<Member>> {
    let (mut nodes, mut problems) = (Vec::new(), Vec::new());
    for (node, (given, facts)) in wanted.iter().zip(facts).enumerate() {
        let found = match &given.address {
            Some(address) => Ok(address.clone()),
            None => facts.address.parse::<std::net::IpAddr>().map_err(|_| "ssh did not say its address".to_owned()).and_then(|ip| {
                match ip.is_loopback() && wanted.len() > 1 {
                    true => Err("ssh reaches it by a loopback address, which no other host can: write its address into a file of hosts".to_owned()),
                    false => address(&facts.address, port_for(&given.host)),
                }
            }),
        };
        match found {
            Ok(address) => nodes.push(Member { host: given.host.clone(), address }),
            Err(why) => problems.push((node, why)),
        }
    }
    refuse(&problems, names).map(|()| nodes)
}

fn port_of(cluster: &Cluster, node: usize) -> u16 {
    cluster.address(node).port()
}

pub fn changes(
    replaced: &[String],
    old: Option<&Definition>,
    definition: &Definition,
    cluster: &Cluster,
    facts: &[Facts],
    programs: &Programs,
    secret: &str,
) -> Result<Vec<Change>> {
    // A host that has the cluster file tells that the cluster exists, if this machine does not know.
    let by_hosts = facts.iter().any(|facts| facts.nodes == cluster.lines()).then(|| cluster.lines());
    let old_lines = old.map(|old| old.nodes.iter().map(|node| node.address.clone()).collect()).or(by_hosts);
    let secret = sum_of(&format!("{secret}\n"))?;
    let (mut changes, mut problems) = (Vec::new(), Vec::new());
    for (node, facts) in facts.iter().enumerate() {
        let unit = change::unit(facts, port_of(cluster, node)).map(|text| sum_of(&text)).transpose()?;
        let goal = Goal {
            nodes: &definition.nodes,
            lines: cluster.lines(),
            old_lines: old_lines.clone(),
            replaced,
            programs: &programs.sums,
            secret: &secret,
            unit,
        };
        match change::change(&goal, node, facts) {
            Ok(change) => changes.push(change),
            Err(why) => problems.push((node, why)),
        }
    }
    refuse(&problems, &names(&definition.nodes)).map(|()| changes)
}

impl Up<'_> {
    fn data(&self) -> Option<&str> {
        self.definition.data.as_deref()
    }

    fn name(&self, node: usize) -> &str {
        &self.definition.nodes[node].host
    }

    /// Prints what would be done.
    pub fn describe(&self) {
        for (node, change) in self.changes.iter().enumerate() {
            print_message(format_args!(
                "{} would be node {node} ({}): {}",
                self.name(node),
                self.cluster.address(node),
                change.describe()
            ));
        }
    }

    /// Changes the hosts, and starts their daemons.
    pub fn change(&self) -> Result<()> {
        let changing: Vec<usize> = (0..self.hosts.len()).filter(|&node| !self.changes[node].is_none()).collect();
        if changing.is_empty() {
            return Ok(());
        }
        let prepared = self.stage(&changing).and_then(|()| self.probe()).and_then(|()| self.prepare(&changing));
        if let Err(error) = prepared {
            on_all(&changing, |_, &node| self.hosts[node].run(&script(self.data(), "unstage")));
            return Err(error);
        }
        self.on(&changing, "the start", |node| self.commit(node))
    }

    fn make(&self) -> Result<()> {
        self.change()?;
        let up = health::wait(self.hosts, self.data())?;
        for (node, change) in self.changes.iter().enumerate() {
            print_message(format_args!(
                "{}: node {node} ({}): {}",
                self.name(node),
                self.cluster.address(node),
                change.describe()
            ));
        }
        for full in up.iter().filter(|node| node.state == "full" && node.node < self.hosts.len()) {
            print_message(format_args!("{}: full: {}", self.name(full.node), full.why.as_deref().unwrap_or_default()));
        }
        if self.changes.iter().any(Change::is_outdated) {
            print_message("the nodes run other programs than are here; 's4 cluster upgrade' replaces them");
        }
        Ok(())
    }

    /// Does one step on some hosts at once.
    fn on(
        &self,
        nodes: &[usize],
        name: &str,
        work: impl Fn(usize) -> std::result::Result<(), String> + Sync,
    ) -> Result<()> {
        step(name, on_all(nodes, |_, &node| (self.name(node), work(node))))
    }

    fn stage(&self, nodes: &[usize]) -> Result<()> {
        print_message(format_args!("copying to {}", counted(nodes.len() as u64, "host")));
        self.on(nodes, "copying", |node| {
            let (host, facts, change) = (self.hosts[node], &self.facts[node], &self.changes[node]);
            self.programs.stage(host, facts, self.data(), &change.programs)?;
            let write = |name: &str, text: String, mode: &str| {
                host.write(&format!("{}/{name}", new_dir(facts)), std::io::Cursor::new(text.into_bytes()), mode)
            };
            write("s4.conf", conf_text(&self.cluster), "644")?;
            write("s4.conf.secret", format!("{}\n", self.secret), "600")?;
            match change::unit(facts, port_of(&self.cluster, node)) {
                Some(unit) => write("unit", unit, "644"),
                None => Ok(()),
            }
        })
    }

    /// Tries the file systems, and whether every host reaches every other.
    fn probe(&self) -> Result<()> {
        let asked: Vec<Asked> = (0..self.hosts.len())
            .map(|node| {
                let (facts, change) = (&self.facts[node], &self.changes[node]);
                let is_new = change.programs.iter().any(|name| name == "s4") && !change.is_none();
                let dir = if is_new { new_dir(facts) } else { facts.bin.clone() };
                let question = question(&self.definition.nodes, node, &facts.data, change.runs);
                Asked { host: self.hosts[node], program: format!("{dir}/s4"), question }
            })
            .collect();
        refuse(&problems(&asked), &names(&self.definition.nodes))
    }

    fn prepare(&self, nodes: &[usize]) -> Result<()> {
        self.on(nodes, "the preparation", |node| {
            let make = if self.changes[node].makes_data { "make" } else { "keep" };
            let call = format!("prepare {make} {}", port_of(&self.cluster, node));
            self.hosts[node].run(&script(self.data(), &call)).map(|_| ())
        })
    }

    fn commit(&self, node: usize) -> std::result::Result<(), String> {
        let change = &self.changes[node];
        let stop = if change.restarts || self.is_new { "stop" } else { "keep" };
        let call = format!("commit {} {stop}", port_of(&self.cluster, node));
        self.hosts[node].run(&script(self.data(), &call)).map(|_| ())
    }
}
