//! An exhaustive model of how nodes agree on a directory: every order of the steps of [`crate::names`] and [`crate::store`], with kills
//! of either node between any two of them.
//!
//! One name, whose home is H. As a directory it may hold the key `x` of node N and the key `y` of H. As a key it would lie on H. Each
//! process below does what a request makes the daemons do, one atomic step at a time: a step is what a node does under one lock or in
//! one call of its file system.

use std::collections::{BTreeMap, HashMap};

/// What is at the name on H's disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
enum AtHome {
    Absent,
    Key,
    Dir { made: bool, holder: bool, y: bool },
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
struct State {
    home: AtHome,
    /// N's copy of the directory, and whether `x` is in it.
    copy: bool,
    x: bool,
    /// In N's memory: requests that are about to make the copy.
    entering: u8,
    /// In H's memory: outputs under way.
    sending: u8,
    /// Somebody asked meanwhile.
    asked: bool,
    /// N was killed, and its start has not asked H yet.
    to_audit: bool,
    kills: u8,
    processes: Vec<Process>,
}

/// Who waits for an answer of the other node may be killed meanwhile: then the other's step is done or not, and nobody hears.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
enum Process {
    /// Makes `x`: tries the link.
    PutX,
    /// H is told that N enters.
    PutXEnter,
    /// N makes its copy.
    PutXCopy,
    /// A request of a killed N, which H may still do.
    LateEnter,
    /// H records N, and sends it an output `x` of a task.
    Send,
    /// N begins to receive, if H still sends.
    Receive,
    /// N makes its copy and `x` in it, as H has recorded it.
    ReceiveCopy,
    /// H has sent all, or has given up.
    Sent,
    DeleteX,
    /// N removes its copy if it is empty.
    LeaveX,
    PutY,
    DeleteY,
    PutKey,
    DeleteKey,
    MakeDir,
    /// H begins to ask.
    Settle {
        even_made: bool,
    },
    /// N answers. `entered`: it has entered since H began to ask.
    LetGo {
        even_made: bool,
        entered: bool,
    },
    /// H decides. `held`: what N has answered.
    Decide {
        even_made: bool,
        entered: bool,
        held: bool,
    },
    /// H begins to ask on its own, once no process of N does.
    Audit,
}

use Process::*;

impl State {
    fn new(processes: &[Process]) -> Self {
        let mut state = Self {
            home: AtHome::Absent,
            copy: false,
            x: false,
            entering: 0,
            sending: 0,
            asked: false,
            to_audit: false,
            kills: 0,
            processes: processes.to_vec(),
        };
        state.processes.sort();
        state
    }

    /// What process `at` may lead to in one step.
    fn step(&self, at: usize) -> State {
        let mut next = self.clone();
        let process = next.processes.remove(at);
        let goes_on = next.run(process);
        next.processes.extend(goes_on);
        next.processes.sort();
        next
    }

    fn run(&mut self, process: Process) -> Option<Process> {
        match process {
            PutX | PutXEnter | LateEnter | PutXCopy | DeleteX | LeaveX => self.run_on_n(process),
            PutY | DeleteY | PutKey | DeleteKey | MakeDir => self.run_on_h(process),
            Send | Receive | ReceiveCopy | Sent => self.run_sending(process),
            Audit | Settle { .. } | LetGo { .. } | Decide { .. } => self.run_settling(process),
        }
    }

    /// What N does with `x`.
    fn run_on_n(&mut self, process: Process) -> Option<Process> {
        match process {
            PutX if self.copy => {
                self.x = true;
                None
            }
            PutX => {
                self.entering += 1;
                Some(PutXEnter)
            }
            PutXEnter => match self.enter() {
                true => Some(PutXCopy),
                false => {
                    self.entering -= 1;
                    None
                }
            },
            LateEnter => {
                self.enter();
                None
            }
            PutXCopy => {
                self.copy = true;
                self.entering -= 1;
                Some(PutX)
            }
            DeleteX => {
                self.x = false;
                Some(LeaveX)
            }
            LeaveX => {
                let left = self.copy && !self.x;
                self.copy &= !left;
                left.then_some(Settle { even_made: false })
            }
            _ => unreachable!("another group's"),
        }
    }

    /// What H does with the name itself.
    fn run_on_h(&mut self, process: Process) -> Option<Process> {
        match process {
            PutY => {
                match &mut self.home {
                    AtHome::Absent => self.home = AtHome::Dir { made: false, holder: false, y: true },
                    AtHome::Dir { y, .. } => *y = true,
                    AtHome::Key => {}
                }
                None
            }
            DeleteY => match &mut self.home {
                AtHome::Dir { y, .. } if *y => {
                    *y = false;
                    Some(Settle { even_made: false })
                }
                _ => None,
            },
            PutKey => {
                if self.home == AtHome::Absent {
                    self.home = AtHome::Key;
                }
                None
            }
            DeleteKey => {
                if self.home == AtHome::Key {
                    self.home = AtHome::Absent;
                }
                None
            }
            MakeDir => {
                if self.home == AtHome::Absent {
                    self.home = AtHome::Dir { made: true, holder: false, y: false };
                }
                None
            }
            _ => unreachable!("another group's"),
        }
    }

    /// What both do with a task's output.
    fn run_sending(&mut self, process: Process) -> Option<Process> {
        match process {
            Send => match self.enter() {
                true => {
                    self.sending += 1;
                    self.processes.push(Receive);
                    Some(Sent)
                }
                false => None,
            },
            Receive if self.sending == 0 => None,
            Receive => {
                self.entering += 1;
                Some(ReceiveCopy)
            }
            ReceiveCopy => {
                (self.copy, self.x) = (true, true);
                self.entering -= 1;
                None
            }
            Sent => {
                self.sending -= 1;
                self.void_answers();
                // Who gives up asks afterwards.
                self.asked |= self.processes.iter().any(|other| matches!(other, Receive | ReceiveCopy));
                let asked = self.asked && self.sending == 0;
                self.asked &= !asked;
                asked.then_some(Settle { even_made: false })
            }
            _ => unreachable!("another group's"),
        }
    }

    /// How H finds out whether N still holds the directory.
    fn run_settling(&mut self, process: Process) -> Option<Process> {
        match process {
            Audit => {
                self.to_audit = false;
                // N's own look, before.
                self.copy &= self.x;
                Some(Settle { even_made: false })
            }
            Settle { even_made } => match self.home {
                AtHome::Dir { holder: true, .. } => Some(LetGo { even_made, entered: false }),
                AtHome::Dir { .. } => {
                    self.remove_if_free(even_made);
                    None
                }
                AtHome::Absent | AtHome::Key => None,
            },
            LetGo { even_made, entered } => {
                let held = self.entering > 0 || self.x;
                self.copy &= held;
                Some(Decide { even_made, entered, held })
            }
            // Who receives may not have made its copy yet.
            Decide { .. } if self.sending > 0 => {
                self.asked = true;
                None
            }
            // The answer may be older than the entry.
            Decide { even_made, entered: true, held: false } => Some(Settle { even_made }),
            Decide { even_made, held, .. } => {
                if let AtHome::Dir { holder, .. } = &mut self.home
                    && !held
                {
                    *holder = false;
                }
                self.remove_if_free(even_made);
                None
            }
            _ => unreachable!("another group's"),
        }
    }

    /// H records N as a holder. False if a key has the name.
    fn enter(&mut self) -> bool {
        match &mut self.home {
            AtHome::Key => return false,
            AtHome::Absent => self.home = AtHome::Dir { made: false, holder: true, y: false },
            AtHome::Dir { holder, .. } => *holder = true,
        }
        self.void_answers();
        true
    }

    /// What N has answered so far may be older than its copy.
    fn void_answers(&mut self) {
        for process in &mut self.processes {
            if let LetGo { entered, .. } | Decide { entered, .. } = process {
                *entered = true;
            }
        }
    }

    fn remove_if_free(&mut self, even_made: bool) {
        if let AtHome::Dir { made, holder: false, y: false } = self.home
            && (even_made || !made)
        {
            self.home = AtHome::Absent;
        }
    }

    fn kill_n(&self) -> State {
        let mut next = self.clone();
        next.kills += 1;
        next.entering = 0;
        next.to_audit = true;
        next.processes = self.processes.iter().filter_map(|process| after_kill_of_n(*process)).collect();
        next.processes.push(Audit);
        next.processes.sort();
        next
    }

    fn kill_h(&self) -> State {
        let mut next = self.clone();
        next.kills += 1;
        let lost = |process: &Process| matches!(process, Settle { .. } | LetGo { .. } | Decide { .. } | Audit);
        // The connection breaks, on which the outputs come.
        (next.sending, next.asked) = (0, false);
        next.entering -= self.processes.iter().filter(|process| **process == ReceiveCopy).count() as u8;
        next.processes.retain(|process| !matches!(process, Receive | ReceiveCopy | Sent));
        // What waited for H fails.
        next.entering -= self.processes.iter().filter(|process| **process == PutXEnter).count() as u8;
        next.processes.retain(|process| !lost(process) && !matches!(process, PutXEnter | LateEnter));
        // H settles what is its own when it starts.
        next.processes.push(Settle { even_made: false });
        next.to_audit = false;
        next.processes.sort();
        next
    }

    /// What does not hold that must hold at any time, or once nothing goes on.
    fn fault(&self, is_end: bool) -> Option<&'static str> {
        let is_held = matches!(self.home, AtHome::Dir { holder: true, .. });
        let is_free = matches!(self.home, AtHome::Dir { made: false, y: false, .. });
        match () {
            () if self.x && !self.copy => Some("a key without its directory"),
            () if self.copy && !is_held => Some("a copy of which the home does not know"),
            () if is_end && is_free && !self.x => Some("a directory with nothing in it"),
            () => None,
        }
    }
}

/// What is left of a process when N is killed. What H alone does goes on; what it was told of may still reach it.
fn after_kill_of_n(process: Process) -> Option<Process> {
    match process {
        PutX | PutXCopy | Receive | ReceiveCopy | DeleteX | LeaveX => None,
        PutXEnter => Some(LateEnter),
        // No answer: as if it were held.
        LetGo { even_made, entered } => Some(Decide { even_made, entered, held: true }),
        other => Some(other),
    }
}

/// Visits every state that can be reached, with at most `kills` kills. Returns how many there are.
fn explore(processes: &[Process], kills: u8) -> usize {
    let first = State::new(processes);
    let mut came_from = HashMap::from([(first.clone(), None)]);
    let mut left = vec![first];
    while let Some(state) = left.pop() {
        let mut next: Vec<State> =
            (0..state.processes.len()).filter(|&at| can_run(&state, at)).map(|at| state.step(at)).collect();
        if let Some(fault) = state.fault(next.is_empty()) {
            let path = std::iter::successors(Some(&state), |state| came_from.get(*state)?.as_ref());
            let path: Vec<String> = path.map(|state| format!("{state:?}")).collect();
            panic!("{fault}:\n{}", path.into_iter().rev().collect::<Vec<_>>().join("\n"));
        }
        if state.kills < kills {
            next.extend([state.kill_n(), state.kill_h()]);
        }
        for next in next {
            if !came_from.contains_key(&next) {
                came_from.insert(next.clone(), Some(state.clone()));
                left.push(next);
            }
        }
    }
    came_from.len()
}

/// N's audit comes once its late requests have been done or refused: a node does nothing for one who waits no longer.
fn can_run(state: &State, at: usize) -> bool {
    state.processes[at] != Audit || !state.processes.contains(&LateEnter)
}

#[test]
fn no_order_of_steps_breaks_what_nodes_agree_on() {
    let rmdir = Settle { even_made: true };
    let mut counts = BTreeMap::new();
    for (name, processes) in [
        ("two makers", vec![PutX, PutX, PutKey, DeleteKey]),
        ("maker and remover", vec![PutX, PutX, DeleteX, DeleteX, PutKey]),
        ("with rmdir", vec![PutX, DeleteX, rmdir, MakeDir, PutX]),
        ("both nodes", vec![PutX, DeleteX, PutY, DeleteY, PutX]),
        ("a task sends", vec![Send, PutX, DeleteX, DeleteX, rmdir]),
        ("tasks send", vec![Send, Send, DeleteX, PutY, DeleteY]),
        ("all", vec![Send, DeleteX, PutY, DeleteY, PutKey, rmdir]),
    ] {
        counts.insert(name, explore(&processes, if processes.len() > 5 { 1 } else { 2 }));
    }
    println!("states: {counts:?}");
}
