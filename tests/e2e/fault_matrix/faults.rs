//! The faults of the matrix. Each befalls node 1, or the client.

use super::operations::{Does, Operation};
use crate::harness::eventually;
use crate::observe::send;
use crate::sites::{MOUNT, NODES, Site};
use nix::sys::signal::Signal;

/// The node with the fault.
pub const NODE: usize = 1;

#[derive(Clone, Copy, PartialEq)]
pub enum When {
    Before,
    During,
}

#[derive(Clone, Copy, PartialEq, Debug)]
pub enum Expected {
    Done,
    Fails,
    Either,
}

/// What happens; the process is that of the client.
type Strike = fn(&mut Site, u32);

pub struct Fault {
    pub name: &'static str,
    pub when: When,
    /// Of the daemons.
    pub options: &'static [&'static str],
    pub strike: Strike,
    pub heal: fn(&mut Site),
    pub expected: fn(&Operation) -> Expected,
    /// What a failed command says, and errors that a program in a mount sees.
    pub says: &'static str,
    pub errors: &'static [&'static str],
    /// The fault is the client's own: other clients are served.
    pub is_clients: bool,
    /// Nothing waits longer than the deadline.
    pub is_bounded: bool,
    /// Keys of the last seconds may be gone.
    pub forgets: bool,
}

/// A node that does not answer any more. Most others are variations of it.
const SILENCE: Fault = Fault {
    name: "cut",
    when: When::During,
    options: &[],
    strike: |site, _| site.hosts.isolate(NODE),
    heal: |site| site.hosts.connect(NODE),
    expected: ended,
    says: "",
    errors: &["EIO"],
    is_clients: false,
    is_bounded: true,
    forgets: false,
};

pub static FAULTS: [Fault; 15] = [
    Fault { name: "down", when: When::Before, strike: kill, heal: restart, expected: |_| Expected::Fails, ..SILENCE },
    Fault { name: "dies", strike: kill, heal: restart, expected: ended, ..SILENCE },
    Fault {
        name: "frozen",
        when: When::Before,
        strike: |site, _| site.freeze(NODE),
        heal: |site| site.thaw(NODE),
        expected: |_| Expected::Fails,
        ..SILENCE
    },
    Fault {
        name: "freezes",
        strike: |site, _| site.freeze(NODE),
        heal: |site| site.thaw(NODE),
        expected: ended,
        ..SILENCE
    },
    SILENCE,
    Fault {
        name: "one way",
        strike: |site, _| (0..=NODES).filter(|to| *to != NODE).for_each(|to| site.hosts.one_way(NODE, to)),
        heal: |site| site.hosts.heal(),
        ..SILENCE
    },
    Fault {
        name: "slow",
        when: When::Before,
        strike: |site, _| assert!(site.hosts.slow_down("1mbit"), "tc limits a link"),
        heal: |site| site.hosts.heal(),
        expected: |_| Expected::Done,
        is_bounded: false,
        ..SILENCE
    },
    Fault {
        name: "full",
        when: When::Before,
        strike: |site, _| site.hosts.fill(NODE, 600),
        heal: |site| site.hosts.empty(NODE),
        expected: |operation| if operation.does == Does::Writes { Expected::Fails } else { Expected::Done },
        says: "no space",
        errors: &["ENOSPC"],
        ..SILENCE
    },
    Fault {
        name: "read-only",
        when: When::Before,
        strike: |site, _| site.hosts.make_read_only(NODE),
        heal: |site| site.hosts.replace_disk(NODE),
        expected: |operation| match operation.does {
            Does::Writes | Does::Deletes => Expected::Fails,
            Does::Reads | Does::Lists => Expected::Either,
        },
        errors: &["EIO", "EROFS"],
        forgets: true,
        ..SILENCE
    },
    Fault {
        name: "failing",
        when: When::Before,
        strike: |site, _| site.hosts.fail(NODE),
        heal: |site| site.hosts.replace_disk(NODE),
        // The kernel may still know the names.
        expected: |operation| if operation.does == Does::Lists { Expected::Either } else { Expected::Fails },
        forgets: true,
        ..SILENCE
    },
    Fault {
        name: "fails",
        strike: |site, _| site.hosts.fail(NODE),
        heal: |site| site.hosts.replace_disk(NODE),
        expected: |_| Expected::Either,
        forgets: true,
        ..SILENCE
    },
    Fault {
        name: "no data",
        when: When::Before,
        strike: |site, _| site.take_away(NODE),
        heal: |site| assert_eq!(site.bring_back(NODE), [""; 0], "made in place of the data directory"),
        expected: |_| Expected::Fails,
        says: "data directory",
        ..SILENCE
    },
    Fault { name: "power", strike: cut_power, heal: boot, forgets: true, ..SILENCE },
    Fault { name: "power, sync", options: &["--fsync"], strike: cut_power, heal: boot, ..SILENCE },
    Fault {
        name: "client",
        strike: kill_client,
        heal: |_| (),
        expected: |_| Expected::Either,
        errors: &["ENOTCONN", "ECONNABORTED"],
        is_clients: true,
        ..SILENCE
    },
];

/// What is under way when the node is lost fails, unless all of its answer is on its way already, as that of a small key.
fn ended(operation: &Operation) -> Expected {
    if operation.is_short() || operation.does == Does::Reads { Expected::Either } else { Expected::Fails }
}

fn kill(site: &mut Site, _: u32) {
    site.hosts.kill_node(NODE);
}

fn restart(site: &mut Site) {
    site.hosts.start_node(NODE);
}

fn cut_power(site: &mut Site, _: u32) {
    site.hosts.power_cut(NODE);
}

fn boot(site: &mut Site) {
    site.hosts.boot(NODE);
}

/// The client is the mount, if the process works in it.
fn kill_client(site: &mut Site, client: u32) {
    let comm = std::fs::read_to_string(format!("/proc/{client}/comm")).unwrap_or_default();
    if comm.starts_with("python") {
        site.kill_mount(MOUNT);
    } else {
        send(client, Signal::SIGKILL);
        eventually("it is dead", || {
            let status = std::fs::read_to_string(format!("/proc/{client}/status")).unwrap_or_default();
            (status.is_empty() || status.contains("State:\tZ")).then_some(())
        });
    }
}
