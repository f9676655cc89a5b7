//! An exhaustive model of how nodes agree on a directory. It explores every order of the steps of [`crate::names`] and
//! [`crate::store`], with kills of either node between any two steps.
//!
//! There is one name, whose home is node H. As a directory it may contain the key `x` of node N and the key `y` of H.
//! As a key it would be on H. Each process below stands for a request. It consists of atomic steps: a step is what a
//! node does under one lock or in one system call.

use std::collections::{BTreeMap, HashMap};

/// The state of the name on H's disk.
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
    /// In N's memory: the number of requests that are about to create the copy, or receive outputs.
    entering: u8,
    /// In N's memory: H has asked meanwhile.
    asked_entering: bool,
    /// In H's memory: the number of outputs that are being sent.
    sending: u8,
    /// A check of the holders was requested while H was sending, and put off until all outputs are sent.
    asked: bool,
    /// N was killed, and has not requested its audit from H yet.
    to_audit: bool,
    kills: u8,
    processes: Vec<Process>,
}

/// A process that waits for the other node's answer may be killed. Then the other node has done its step or not, and
/// nobody receives the answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
enum Process {
    /// N makes `x`: tries the link. If it `fails`, it does so after it has created its copy.
    PutX {
        fails: bool,
    },
    /// N sends "enter" to H.
    PutXEnter {
        fails: bool,
    },
    /// N creates its copy.
    PutXCopy {
        fails: bool,
    },
    /// A request of a killed N, which H may still execute.
    LateEnter,
    /// H records N, and sends it an output `x` of a task.
    Send,
    /// N begins to receive, if H is still sending.
    Receive,
    /// N creates its copy and `x` in it, since H has recorded N.
    ReceiveCopy,
    /// N stops waiting for outputs.
    ReceiveEnd,
    /// H has sent everything, or has given up.
    Sent,
    DeleteX,
    /// N removes its copy if it is empty.
    LeaveX,
    PutY,
    DeleteY,
    PutKey,
    DeleteKey,
    MakeDir,
    /// H begins to ask the holders.
    Settle {
        even_made: bool,
    },
    /// N answers. `entered`: N has entered since H began to ask.
    LetGo {
        even_made: bool,
        entered: bool,
    },
    /// H decides. `held` is N's answer.
    Decide {
        even_made: bool,
        entered: bool,
        held: bool,
    },
    /// H begins to ask for the audit, once no process of N is active.
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
            asked_entering: false,
            sending: 0,
            asked: false,
            to_audit: false,
            kills: 0,
            processes: processes.to_vec(),
        };
        state.processes.sort();
        state
    }

    /// The state after one step of process `at`.
    fn step(&self, at: usize) -> State {
        let mut next = self.clone();
        let process = next.processes.remove(at);
        let goes_on = next.run(process);
        next.processes.extend(goes_on);
        next.processes.sort();
        // Equal reports count as one. Equal rounds in which N holds the directory have the effect of one.
        next.processes.dedup_by(|a, b| a == b && matches!(a, Settle { even_made: false } | Decide { held: true, .. }));
        next
    }

    fn run(&mut self, process: Process) -> Option<Process> {
        match process {
            PutX { .. } | PutXEnter { .. } | LateEnter | PutXCopy { .. } | DeleteX | LeaveX => self.run_on_n(process),
            PutY | DeleteY | PutKey | DeleteKey | MakeDir => self.run_on_h(process),
            Send | Receive | ReceiveCopy | ReceiveEnd | Sent => self.run_sending(process),
            Audit | Settle { .. } | LetGo { .. } | Decide { .. } => self.run_settling(process),
        }
    }

    /// The steps of N for `x`.
    fn run_on_n(&mut self, process: Process) -> Option<Process> {
        match process {
            PutX { fails } if self.copy => {
                self.x |= !fails;
                fails.then_some(LeaveX)
            }
            PutX { fails } => {
                self.entering += 1;
                Some(PutXEnter { fails })
            }
            PutXEnter { fails } => match self.enter() {
                true => Some(PutXCopy { fails }),
                false => {
                    self.end_entering();
                    None
                }
            },
            LateEnter => {
                self.enter();
                None
            }
            PutXCopy { fails } => {
                self.copy = true;
                self.end_entering();
                Some(if fails { LeaveX } else { PutX { fails } })
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

    /// The steps of H for the name itself.
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

    /// The steps of both nodes for a task's output.
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
                Some(ReceiveEnd)
            }
            ReceiveEnd => {
                self.end_entering();
                Some(LeaveX)
            }
            Sent => {
                self.sending -= 1;
                self.void_answers();
                // A sender that gives up asks the holders afterwards.
                self.asked |= self.processes.iter().any(|other| matches!(other, Receive | ReceiveCopy));
                let asked = self.asked && self.sending == 0;
                self.asked &= !asked;
                asked.then_some(Settle { even_made: false })
            }
            _ => unreachable!("another group's"),
        }
    }

    /// The steps by which H finds out whether N still holds the directory.
    fn run_settling(&mut self, process: Process) -> Option<Process> {
        match process {
            Audit => {
                self.to_audit = false;
                // N checks its copy first.
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
                self.asked_entering |= self.entering > 0;
                Some(Decide { even_made, entered, held })
            }
            // A receiver may not have created its copy yet.
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

    /// N does not hold the directory for one of its requests any more. If H asked meanwhile, it asks again.
    fn end_entering(&mut self) {
        self.entering -= 1;
        if self.entering == 0 && std::mem::take(&mut self.asked_entering) {
            self.processes.push(Settle { even_made: false });
        }
    }

    /// H records N as a holder. False if the name is a key.
    fn enter(&mut self) -> bool {
        match &mut self.home {
            AtHome::Key => return false,
            AtHome::Absent => self.home = AtHome::Dir { made: false, holder: true, y: false },
            AtHome::Dir { holder, .. } => *holder = true,
        }
        self.void_answers();
        true
    }

    /// Marks N's answers so far as outdated: they may be older than its copy.
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
        (next.entering, next.asked_entering) = (0, false);
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
        // The connection on which the outputs come breaks.
        (next.sending, next.asked) = (0, false);
        next.processes.retain(|process| !matches!(process, Receive | Sent));
        next.processes.iter_mut().filter(|process| **process == ReceiveCopy).for_each(|process| *process = ReceiveEnd);
        // Processes that wait for H fail.
        let is_entering = |process: &Process| matches!(process, PutXEnter { .. });
        next.entering -= self.processes.iter().filter(|process| is_entering(process)).count() as u8;
        next.asked_entering &= next.entering > 0;
        next.processes.retain(|process| !lost(process) && !is_entering(process) && *process != LateEnter);
        // At its start, H settles its own directories.
        next.processes.push(Settle { even_made: false });
        next.to_audit = false;
        next.processes.sort();
        next
    }

    /// The violated invariant, if there is one. Some invariants hold always, others only when no process is left.
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

/// What remains of a process when N is killed. Steps of H alone continue; messages that were sent may still reach H.
fn after_kill_of_n(process: Process) -> Option<Process> {
    match process {
        PutX { .. } | PutXCopy { .. } | Receive | ReceiveCopy | ReceiveEnd | DeleteX | LeaveX => None,
        PutXEnter { .. } => Some(LateEnter),
        // No answer counts as "held".
        LetGo { even_made, entered } => Some(Decide { even_made, entered, held: true }),
        other => Some(other),
    }
}

/// Visits every reachable state, with at most `kills` kills. Returns the number of states.
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

/// N's audit comes after its late requests were executed or refused: a node does not execute requests whose sender no
/// longer waits.
fn can_run(state: &State, at: usize) -> bool {
    state.processes[at] != Audit || !state.processes.contains(&LateEnter)
}

#[test]
fn no_order_of_steps_breaks_what_nodes_agree_on() {
    let put = PutX { fails: false };
    let rmdir = Settle { even_made: true };
    let mut counts = BTreeMap::new();
    for (name, processes) in [
        ("two makers", vec![put, put, PutKey, DeleteKey]),
        ("maker and remover", vec![put, put, DeleteX, DeleteX, PutKey]),
        ("with rmdir", vec![put, DeleteX, rmdir, MakeDir, put]),
        ("both nodes", vec![put, DeleteX, PutY, DeleteY, put]),
        ("puts that fail", vec![PutX { fails: true }, put, DeleteX, PutX { fails: true }, PutY, DeleteY]),
        ("a task sends", vec![Send, put, DeleteX, rmdir]),
        ("tasks send", vec![Send, Send, DeleteX, PutY, DeleteY]),
        ("all", vec![Send, DeleteX, PutY, DeleteY, PutKey, rmdir]),
    ] {
        counts.insert(name, explore(&processes, if processes.len() > 5 { 1 } else { 2 }));
    }
    println!("states: {counts:?}");
}
