//! Every operation under every fault, on hosts with disks of their own: it ends within the deadline, says what it failed of, and
//! after the fault nothing that was reported is lost, nothing is there in part, and the operation can be completed. In a mount, each
//! system call ends within the deadline. A create waits for lookups in the same directory, whose lock the kernel holds.
//!
//! `S4_TEST_CELLS` names the cells to run: `map-to-n x power` is one, `map` or `power` all whose name has it.

mod faults;
mod operations;

use crate::harness::{eventually, text};
use crate::hosts::{Running, Timed, print_now};
use crate::sites::{DEADLINE, NODES, Site, write_files};
use faults::{Expected, FAULTS, Fault, NODE, When};
use operations::{Middle, OPERATIONS, Operation, Said, check};
use std::os::unix::process::ExitStatusExt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::Command;
use std::sync::Mutex;
use std::time::{Duration, Instant};

/// How many sites there are at once. A cell waits most of its time.
const WORKERS: usize = 3;

/// An operation under a fault.
#[derive(Clone, Copy)]
struct Cell {
    operation: &'static Operation,
    fault: &'static Fault,
}

/// What came of a cell.
struct Ended {
    cell: Cell,
    /// One word.
    outcome: &'static str,
    /// The command; in a mount, its longest system call.
    took: Duration,
    /// What contradicts the contract.
    wrong: Option<String>,
}

impl Cell {
    fn name(&self) -> String {
        format!("{} x {}", self.operation.name, self.fault.name)
    }
}

/// A cell in its place.
struct Scene<'a> {
    site: &'a mut Site,
    cell: Cell,
    number: usize,
}

impl Scene<'_> {
    fn command(&self, script: &str) -> Command {
        let mut command = self.site.script(script);
        command.env("N", self.number.to_string());
        if let Middle::Commands(map) = self.cell.operation.middle {
            let (gate, started) = (self.gate(), self.site.path(&format!("started{}", self.number)));
            let wait =
                format!("touch {}.$S4_NODE; until [ -e {} ]; do sleep 0.05; done", started.display(), gate.display());
            command.env("KIND", map.kind).env("CMD", format!("{wait}; {}", map.cmd));
        }
        command
    }

    /// What the commands of a map wait for.
    fn gate(&self) -> std::path::PathBuf {
        self.site.path(&format!("gate{}", self.number))
    }

    fn open_gate(&self) {
        std::fs::write(self.gate(), "").unwrap();
    }

    fn ok(&self, script: &str) -> Result<String, String> {
        let output = self.command(script).output().expect("bash runs");
        match output.status.success() {
            true => Ok(text(&output.stdout)),
            false => Err(format!("{script}: {}: {}", output.status, text(&output.stderr).trim())),
        }
    }

    /// Runs the operation into the fault.
    fn run(&mut self) -> Timed {
        let Cell { operation, fault } = self.cell;
        if fault.when == When::Before {
            self.open_gate();
            (fault.strike)(self.site, 0);
            let began = Instant::now();
            return Running::start(self.command(operation.script)).end(began);
        }
        let running = self.under_way(operation);
        (fault.strike)(self.site, running.pid);
        let since = Instant::now();
        self.site.hosts.speed_up();
        self.open_gate();
        running.end(since)
    }

    /// Starts the operation, and returns in its middle.
    fn under_way(&self, operation: &Operation) -> Running {
        if let Middle::Bytes(rate, _) | Middle::Short(rate, _) = operation.middle {
            assert!(self.site.hosts.slow_down(rate), "tc limits a link");
        }
        let before = self.site.hosts.link_bytes(NODE);
        let running = Running::start(self.command(operation.script));
        let started = self.site.path(&format!("started{}.{NODE}", self.number));
        eventually("it is in its middle", || {
            let is_there = match operation.middle {
                Middle::Bytes(_, after) | Middle::Short(_, after) => self.site.hosts.link_bytes(NODE) - before >= after,
                Middle::Commands(_) => started.exists(),
            };
            is_there.then_some(())
        });
        running
    }

    /// The longest system call of a command in a mount.
    fn longest_call(&self) -> Option<Duration> {
        let longest = std::fs::read_to_string(self.site.path("longest")).ok()?;
        Some(Duration::from_secs_f64(longest.trim().parse().expect("seconds")))
    }

    fn play(&mut self) -> Ended {
        let Cell { operation, fault } = self.cell;
        let (outcome, took, wrong) = match self.ok(operation.prepare) {
            Err(error) => ("broken", Duration::ZERO, Err(error)),
            Ok(_) => {
                if fault.forgets {
                    self.site.hosts.sync(NODE);
                }
                let _ = std::fs::remove_file(self.site.path("longest"));
                let mut timed = self.run();
                if let Some(longest) = self.longest_call() {
                    timed.took = longest;
                }
                (outcome(&timed), timed.took, self.judge(&timed))
            }
        };
        Ended { cell: self.cell, outcome, took, wrong: wrong.err() }
    }

    fn judge(&mut self, timed: &Timed) -> Result<(), String> {
        let Cell { operation, fault } = self.cell;
        let stderr = text(&timed.output.stderr);
        print_now(&format!(
            "{} x {}: {} {:.2} s: {}",
            operation.name,
            fault.name,
            outcome(timed),
            timed.took.as_secs_f64(),
            stderr.lines().next().unwrap_or_default()
        ));
        let others = self.others_work();
        if fault.when == When::Before && fault.is_bounded {
            let shows = |output: std::process::Output| output.status.code() == Some(1);
            eventually("health shows it", || shows(self.site.output("s4 health")).then_some(()));
        }
        (fault.heal)(self.site);
        self.site.heal();
        others.and(self.judge_end(timed, &stderr))?;
        self.judge_state(timed)
    }

    /// Keys of the other nodes are served as ever.
    fn others_work(&self) -> Result<(), String> {
        let began = Instant::now();
        self.ok("s4 $D cp s4://in/0_a - | cmp - src/0_a && s4 $D eval s4://in/2_a cat | cmp - src/2_a")?;
        match self.cell.fault.is_bounded && began.elapsed() > DEADLINE {
            true => Err(format!("keys of other nodes took {:?}", began.elapsed())),
            false => Ok(()),
        }
    }

    /// Looks at how the operation ended.
    fn judge_end(&self, timed: &Timed, stderr: &str) -> Result<(), String> {
        let Cell { operation, fault } = self.cell;
        if fault.is_bounded && timed.took > DEADLINE + Duration::from_secs(1) {
            return Err(format!("it took {:.2} s: {stderr}", timed.took.as_secs_f64()));
        }
        let expected = (fault.expected)(operation);
        match (timed.output.status.success(), expected) {
            (true, Expected::Fails) => return Err(format!("it succeeded: {}", text(&timed.output.stdout))),
            (false, Expected::Done) => return Err(format!("it failed: {stderr}")),
            (true, _) => return Ok(()),
            (false, _) => {}
        }
        if operation.is_in_mount() {
            let is_known = |line: &str| fault.errors.iter().any(|error| line.ends_with(&format!(": {error}")));
            return match stderr.lines().all(is_known) && !stderr.is_empty() {
                true => Ok(()),
                false => Err(format!("not {:?}: {stderr}", fault.errors)),
            };
        }
        let is_killed = fault.is_clients && timed.output.status.signal() == Some(9);
        if is_killed || (names_it(self.site, stderr) && stderr.to_lowercase().contains(fault.says)) {
            return Ok(());
        }
        Err(format!("it names neither the node nor its key, or does not say '{}': {stderr}", fault.says))
    }

    /// Looks at what the operation has left, and completes it.
    fn judge_state(&mut self, timed: &Timed) -> Result<(), String> {
        let Cell { operation, fault } = self.cell;
        // A job goes on without its client.
        let is_over = || self.ok("! s4 $D jobs | grep -w running").ok();
        eventually("no job runs", is_over);
        let stdout = if fault.forgets { String::new() } else { text(&timed.output.stdout) };
        let said = Said { is_done: timed.output.status.success() && !fault.forgets, stdout: &stdout };
        check(self.site, operation, self.number, &said)?;
        let again = self.ok(operation.again).map_err(|error| format!("again: {error}"))?;
        check(self.site, operation, self.number, &Said { is_done: true, stdout: &again })
            .map_err(|error| format!("completed: {error}"))?;
        if self.site.keys("in")? != operations::source() {
            return Err("s4://in/ has changed".to_owned());
        }
        self.site.settle()
    }
}

/// True if a message names the node with the fault, or a key that is there.
fn names_it(site: &Site, stderr: &str) -> bool {
    stderr.contains(&site.hosts.name(NODE)) || ["/1_a", "/1_b", "/1_x"].iter().any(|key| stderr.contains(key))
}

fn outcome(timed: &Timed) -> &'static str {
    match (timed.output.status.success(), timed.output.status.signal()) {
        (true, _) => "done",
        (false, Some(_)) => "killed",
        (false, None) => "fails",
    }
}

/// A place for cells, with the keys `s4://in/`.
fn new_site(fault: &Fault) -> Option<Site> {
    let site = Site::new(fault.options)?;
    write_files(&site.path("src"), &operations::source());
    site.ok("s4 $D cp -r src s4://in/").unwrap();
    (0..NODES).for_each(|node| site.hosts.sync(node));
    Some(site)
}

/// Plays cells one after the other. What panics is wrong, and the next cell has a new place.
fn play_all(cells: &[Cell], ended: &Mutex<Vec<Ended>>) {
    let mut site = None;
    for (number, &cell) in cells.iter().enumerate() {
        let Some(mut at) = site.take().or_else(|| new_site(cell.fault)) else { return };
        let played = catch_unwind(AssertUnwindSafe(|| Scene { site: &mut at, cell, number }.play()));
        let played = played.unwrap_or_else(|panic| {
            let why = panic.downcast_ref::<String>().cloned();
            let why = why.or_else(|| panic.downcast_ref::<&str>().map(|why| why.to_string())).unwrap_or_default();
            Ended { cell, outcome: "broken", took: Duration::ZERO, wrong: Some(why) }
        });
        if let Some(wrong) = &played.wrong {
            let log = at.hosts.log_text(NODE);
            let last: Vec<&str> = log.lines().rev().take(12).collect();
            print_now(&format!("WRONG: {} x {}: {wrong}", cell.operation.name, cell.fault.name));
            last.iter().rev().for_each(|line| print_now(&format!("    {line}")));
        } else {
            site = Some(at);
        }
        ended.lock().unwrap().push(played);
    }
}

fn play_groups(groups: Vec<Vec<Cell>>) {
    let chosen = std::env::var("S4_TEST_CELLS").unwrap_or_default();
    let mut groups: Vec<Vec<Cell>> = groups;
    groups.iter_mut().for_each(|cells| cells.retain(|cell| cell.name().contains(&chosen)));
    groups.retain(|cells| !cells.is_empty());
    groups.reverse();
    let (groups, ended) = (Mutex::new(groups), Mutex::new(Vec::new()));
    let next = || groups.lock().unwrap().pop();
    std::thread::scope(|scope| {
        for _ in 0..WORKERS {
            scope.spawn(|| {
                while let Some(cells) = next() {
                    play_all(&cells, &ended);
                }
            });
        }
    });
    let ended = ended.into_inner().unwrap();
    print_table(&ended);
    let described = |ended: &Ended| Some(format!("{}: {}", ended.cell.name(), ended.wrong.as_ref()?));
    let wrong: Vec<String> = ended.iter().filter_map(described).collect();
    assert!(wrong.is_empty(), "{} of {} cells are wrong:\n{}", wrong.len(), ended.len(), wrong.join("\n"));
}

/// One row for each operation, one column for each fault, and the longest waits.
fn print_table(ended: &[Ended]) {
    let longest = |of: &dyn Fn(&&Ended) -> bool| ended.iter().filter(of).map(|ended| ended.took).max();
    let seconds = |took: Option<Duration>| took.map_or("-".to_owned(), |took| format!("{:.1} s", took.as_secs_f64()));
    let columns: Vec<&Fault> =
        FAULTS.iter().filter(|fault| ended.iter().any(|e| e.cell.fault.name == fault.name)).collect();
    let row = |name: &str, cells: &mut dyn Iterator<Item = String>| {
        print_now(&format!("{name:<13}{}", cells.map(|cell| format!("{cell:>12}")).collect::<String>()));
    };
    row("", &mut columns.iter().map(|fault| fault.name.to_owned()).chain(["longest".to_owned()]));
    for operation in &OPERATIONS {
        let is_in = |e: &&Ended| e.cell.operation.name == operation.name;
        let cell = |fault: &&Fault| {
            let found = ended.iter().filter(is_in).find(|ended| ended.cell.fault.name == fault.name);
            found.map_or("-".to_owned(), |ended| {
                let mark = if ended.wrong.is_some() { "!" } else { "" };
                format!("{mark}{} {:.1}", ended.outcome, ended.took.as_secs_f64())
            })
        };
        row(operation.name, &mut columns.iter().map(cell).chain([seconds(longest(&is_in))]));
    }
    let of_fault = |fault: &&Fault| seconds(longest(&|ended: &&Ended| ended.cell.fault.name == fault.name));
    row("longest", &mut columns.iter().map(of_fault));
}

/// Every operation once, and every fault that leaves the options of the daemons as they are.
#[test]
fn every_operation_meets_a_fault_and_every_fault_an_operation() {
    let faults: Vec<&'static Fault> = FAULTS.iter().filter(|fault| fault.options.is_empty()).collect();
    let cells = faults.iter().enumerate();
    let cells = cells.map(|(number, fault)| Cell { operation: &OPERATIONS[(5 * number) % OPERATIONS.len()], fault });
    let cells: Vec<Cell> = cells.collect();
    play_groups(cells.chunks(cells.len().div_ceil(WORKERS)).map(<[Cell]>::to_vec).collect());
}

#[test]
#[ignore = "takes minutes: scripts/faults.sh"]
fn every_operation_under_every_fault() {
    let row = |fault| OPERATIONS.iter().map(move |operation| Cell { operation, fault }).collect();
    play_groups(FAULTS.iter().map(row).collect());
}
