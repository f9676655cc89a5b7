//! Every command that runs on this node, so that the daemon's end is theirs.

use super::cgroup::{Cgroups, Limits};
use super::command::{Control, Killed};
use s4::error::{Error, ErrorKind, Result};
use std::collections::HashMap;
use std::ops::Deref;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

/// The commands under way. Clones share it.
#[derive(Clone)]
pub struct RunningTasks {
    table: Arc<Mutex<Table>>,
    cgroups: Arc<Cgroups>,
}

/// Guarded: commands by a number of their own, and whether new ones are let in.
#[derive(Default)]
struct Table {
    closed: bool,
    next: u64,
    controls: HashMap<u64, Arc<Control>>,
}

/// A place among the running commands, given back when dropped.
pub struct Entered {
    tasks: RunningTasks,
    number: u64,
    control: Arc<Control>,
}

impl RunningTasks {
    pub fn new(cgroups: Arc<Cgroups>) -> Self {
        Self { table: Arc::default(), cgroups }
    }

    /// True if every command has a control group, in which all that it has left is killed when it ends.
    pub fn has_groups(&self) -> bool {
        self.cgroups.are_there()
    }

    /// Refuses limits that this machine cannot keep.
    pub fn check(&self, limits: Limits) -> Result<()> {
        self.cgroups.check(limits)
    }

    /// Enters the command of the task in `dir`. Refused once the daemon is going down.
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

    /// Lets no more commands in.
    pub fn close(&self) {
        self.lock().closed = true;
    }

    /// Ends what any command has left behind, since the daemon ends.
    pub fn clear(&self) {
        self.cgroups.remove();
    }

    /// Kills every command. Blocks until their processes are gone.
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
