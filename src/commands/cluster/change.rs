//! What is to be done on each host, from what is there: decisions without effects.

use super::definition::Member;
use super::facts::{Facts, Service};
use std::collections::BTreeMap;

/// Refuses a list of nodes that placement does not allow after `old`: their number and order say where keys are.
pub fn compare(old: &[Member], new: &[Member]) -> Result<(), String> {
    let hosts = |nodes: &[Member]| nodes.iter().map(|node| node.host.clone()).collect::<Vec<_>>();
    let (before, after) = (hosts(old), hosts(new));
    if after.len() > before.len() {
        let added = after.iter().find(|host| !before.contains(host)).unwrap_or(&after[before.len()]);
        return Err(format!(
            "{added} would be one more node, and the keys of {} nodes lie where their number says: 's4 cluster resize' adds \
             nodes at the end",
            before.len()
        ));
    }
    if after.len() < before.len() {
        let gone = before.iter().find(|host| !after.contains(host)).unwrap_or(&before[after.len()]);
        return Err(format!(
            "{gone} is a node of this cluster, whose keys lie where the number of {} nodes says: 's4 cluster resize' takes \
             nodes from the end",
            before.len()
        ));
    }
    let moved = (0..after.len()).find(|&at| before[at] != after[at] && before.contains(&after[at]));
    match moved {
        None => Ok(()),
        Some(at) => {
            let was = before.iter().position(|host| *host == after[at]).unwrap_or_default();
            Err(format!(
                "{} is node {was} of this cluster, and cannot be node {at}: the order says where keys are",
                after[at]
            ))
        }
    }
}

/// What the cluster is to be, as far as all hosts share it.
pub struct Goal<'a> {
    pub nodes: &'a [Member],
    /// The lines of the cluster file.
    pub lines: Vec<String>,
    /// The lines before, if the cluster exists. Their number differs in a resize.
    pub old_lines: Option<Vec<String>>,
    /// Hosts whose keys are given up.
    pub replaced: &'a [String],
    /// Checksums.
    pub programs: &'a BTreeMap<String, String>,
    pub secret: &'a str,
    /// Of the unit, where there is systemd.
    pub unit: Option<String>,
}

impl Goal<'_> {
    /// The number of nodes before a resize.
    fn resizes_from(&self) -> Option<usize> {
        self.old_lines.as_ref().map(Vec::len).filter(|&before| before != self.nodes.len())
    }

    /// True if the node is one that a resize adds.
    fn adds(&self, node: usize) -> bool {
        self.resizes_from().is_some_and(|before| node >= before)
    }
}

/// What is to be done on one host.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Change {
    pub makes_data: bool,
    /// Programs that are missing or other ones.
    pub programs: Vec<String>,
    pub conf: bool,
    pub secret: bool,
    pub unit: bool,
    /// The daemon runs.
    pub runs: bool,
    /// The daemon runs, and does not fit what is new.
    pub restarts: bool,
    /// The daemon runs, and gets the new list by a resize.
    pub resizes: bool,
}

impl Change {
    /// Nothing is to be done. Other programs alone are an upgrade.
    pub fn is_none(&self) -> bool {
        self.runs && !self.restarts && !self.resizes
    }

    /// The daemon runs programs other than those here.
    pub fn is_outdated(&self) -> bool {
        self.is_none() && !self.programs.is_empty()
    }

    pub fn describe(&self) -> String {
        let mut parts = Vec::new();
        let mut add = |is: bool, what: &str| parts.extend(is.then(|| what.to_owned()));
        add(self.makes_data, "an empty data directory");
        add(!self.programs.is_empty() && !self.is_none(), "the programs");
        add(self.conf, "the cluster file");
        add(self.secret, "the secret");
        add(self.unit, "the unit");
        match (self.runs, self.restarts) {
            _ if self.is_none() => return "unchanged".to_owned(),
            (true, false) => {}
            (true, true) => parts.push("a restart".to_owned()),
            (false, _) => parts.push("a start".to_owned()),
        }
        parts.join(", ")
    }
}

/// What is to be done on the host of `node`. Errors: why it cannot be.
pub fn change(goal: &Goal, node: usize, facts: &Facts) -> Result<Change, String> {
    let is_listed = facts.nodes == goal.lines || Some(&facts.nodes) == goal.old_lines.as_ref();
    if !facts.nodes.is_empty() && !is_listed {
        return Err(format!(
            "it is of another cluster, of {} nodes from {}: end that with 's4 cluster destroy' first",
            facts.nodes.len(),
            facts.nodes[0].escape_debug()
        ));
    }
    let makes_data = makes_data(goal, node, facts)?;
    let differing = goal.programs.iter().filter(|(name, sum)| facts.programs.get(*name) != Some(*sum));
    let mut change = Change {
        makes_data,
        programs: differing.map(|(name, _)| name.clone()).collect(),
        conf: facts.nodes != goal.lines,
        secret: facts.secret.as_deref() != Some(goal.secret),
        unit: goal.unit.is_some() && facts.unit != goal.unit,
        runs: facts.pid.is_some(),
        restarts: false,
        resizes: false,
    };
    if goal.resizes_from().is_some() && !goal.adds(node) {
        if !change.runs && change.conf {
            return Err("its daemon does not run; 's4 cluster up' starts it".to_owned());
        }
        change.resizes = change.runs && change.conf;
        // An upgrade is another matter.
        change.programs.clear();
    } else {
        change.restarts = change.runs && (change.conf || change.secret || change.unit || makes_data);
    }
    Ok(change)
}

/// True if the data directory is to be made. Errors: it must be there, or holds what is not this node's.
fn makes_data(goal: &Goal, node: usize, facts: &Facts) -> Result<bool, String> {
    let (host, data) = (&goal.nodes[node].host, &facts.data);
    let mark = format!("node {node} of {}", goal.nodes.len());
    let before = goal.resizes_from().map(|before| format!("node {node} of {before}"));
    match facts.held.as_deref() {
        Some(held) if held == mark || before.as_deref() == Some(held) => Ok(false),
        Some(held) if !held.is_empty() => Err(format!(
            "its data directory {data} is that of {}, and this is {mark}: copy the keys out first",
            held.escape_debug()
        )),
        _ if facts.is_filled => Err(format!("its directory {data} holds files, and is no data directory of a node")),
        _ if goal.old_lines.is_none() || goal.replaced.contains(host) || goal.adds(node) => Ok(true),
        _ => Err(format!(
            "its data directory {data} has no keys of {mark}: mount its disk or copy them; '--replace {host}' gives them up"
        )),
    }
}

/// The systemd unit of the daemon; `None` where there is no systemd.
pub fn unit(facts: &Facts, port: u16) -> Option<String> {
    let (user, target) = match facts.service {
        Service::Plain => return None,
        Service::Systemd => ("User=s4\n", "multi-user.target"),
        Service::SystemdUser => ("", "default.target"),
    };
    let Facts { data, bin, conf, defaults, .. } = facts;
    Some(format!(
        "# By 's4 cluster', which replaces this file. Options of the daemon go to {defaults}: S4_SERVER_OPTIONS=\"--reserve 10G\"
[Unit]
Description=s4 node
Wants=network-online.target
After=network-online.target
RequiresMountsFor={data}
StartLimitIntervalSec=0

[Service]
{user}EnvironmentFile=-{defaults}
ExecStart={bin}/s4-server --conf {conf} --port {port} --data {data} $S4_SERVER_OPTIONS
Environment=PATH={bin}:/usr/local/bin:/usr/bin:/bin
Restart=on-failure
RestartSec=2
Delegate=yes
OOMPolicy=continue
KillMode=mixed
TimeoutStopSec=20
LimitNOFILE=1048576
TasksMax=infinity

[Install]
WantedBy={target}
"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn members(hosts: &[&str]) -> Vec<Member> {
        hosts.iter().map(|host| Member { host: host.to_string(), address: format!("{host}:80") }).collect()
    }

    #[test]
    fn nodes_may_be_replaced_but_not_be_more_or_fewer_or_in_another_order() {
        let old = members(&["a", "b", "c"]);
        let check =
            |new: &[&str]| compare(&old, &members(new)).map_err(|why| why.split(' ').next().unwrap().to_owned());
        assert_eq!(check(&["a", "b", "c"]), Ok(()));
        assert_eq!(check(&["a", "d", "c"]), Ok(()));
        assert_eq!(check(&["a", "b", "c", "d"]), Err("d".to_owned()));
        assert_eq!(check(&["a", "c"]), Err("b".to_owned()));
        assert_eq!(check(&["a", "c", "b"]), Err("c".to_owned()));
        assert_eq!(check(&["b", "d", "c"]), Err("b".to_owned()));
    }
}
