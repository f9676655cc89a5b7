//! The table of all running commands of this node. The daemon kills them when it ends.

use super::cgroup::{Cgroups, Limits};
use super::command::{Control, Killed};
use s4::error::{Error, ErrorKind, Result};
use std::collections::HashMap;
use std::ops::Deref;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

/// The running commands. Clones share it.
#[derive(Clone)]
pub struct RunningTasks {
    table: Arc<Mutex<Table>>,
    cgroups: Arc<Cgroups>,
}

/// Commands by a number of their own, and whether new ones are accepted.
#[derive(Default)]
struct Table {
    closed: bool,
    next: u64,
    controls: HashMap<u64, Arc<Control>>,
}

/// An entry in the table of running commands. Dropping it removes the entry.
pub struct Entered {
    tasks: RunningTasks,
    number: u64,
    control: Arc<Control>,
}

impl RunningTasks {
    pub fn new(cgroups: Arc<Cgroups>) -> Self {
        Self { table: Arc::default(), cgroups }
    }

    /// True if every command has a control group. Then the end of a command kills everything that it has left.
    pub fn has_groups(&self) -> bool {
        self.cgroups.are_there()
    }

    /// Refuses limits that this machine cannot enforce.
    pub fn check(&self, limits: Limits) -> Result<()> {
        self.cgroups.check(limits)
    }

    /// Enters the command of the task in `dir`. Refused while the daemon is ending.
    pub fn enter(&self, dir: PathBuf, limits: Limits) -> Result<Entered> {
        let group = self.cgroups.group(limits)?;
        let mut table = self.lock();
        if table.closed {
            return Err(Error::new(ErrorKind::ShuttingDown, "the daemon is going down"));
        }
        let control = Arc::new(Control::new(dir, group));
        let number = table.next;
        table.next += 1;
        table.controls.insert(number, control.clone());
        Ok(Entered { tasks: self.clone(), number, control })
    }

    pub fn count(&self) -> usize {
        self.lock().controls.len()
    }

    /// Accepts no more commands.
    pub fn close(&self) {
        self.lock().closed = true;
    }

    /// Kills what commands have left, because the daemon ends.
    pub fn clear(&self) {
        self.cgroups.remove();
    }

    /// Kills every command. Blocks until their processes have ended.
    pub fn kill_all(&self) {
        let controls: Vec<_> = self.lock().controls.values().cloned().collect();
        for control in controls {
            control.kill(Killed::Cancelled);
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Entered {
    pub fn control(&self) -> Arc<Control> {
        self.control.clone()
    }
}

impl Deref for Entered {
    type Target = Control;
    fn deref(&self) -> &Control {
        &self.control
    }
}

impl Drop for Entered {
    fn drop(&mut self) {
        self.tasks.lock().controls.remove(&self.number);
    }
}
