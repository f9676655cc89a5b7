//! Following a job that has been started, and telling of it: for the maps and for `s4 wait`.

mod display;
mod events;
mod report;
mod summary;

pub use events::planned_line;
pub use report::Report;

use s4::client::Client;
use s4::error::{Error, Result};
use std::time::Duration;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::time::MissedTickBehavior;

/// Between two looks at what there is to show.
const TICK: Duration = Duration::from_millis(200);

/// Ctrl-C and SIGTERM. Once made, neither ends the program by itself.
pub struct Interrupts {
    interrupt: Signal,
    terminate: Signal,
}

impl Interrupts {
    pub fn new() -> Result<Self> {
        let listen = |kind| signal(kind).map_err(|e| Error::io("cannot wait for signals", &e));
        Ok(Self { interrupt: listen(SignalKind::interrupt())?, terminate: listen(SignalKind::terminate())? })
    }

    /// Resolves once either has come, also if it came before the call.
    pub async fn caught(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
        }
    }
}

/// Follows to the end on every node. Errors: a node that was lost, unless the report only watches; our own stdout.
pub async fn follow(client: &Client, report: &mut Report) -> Result<()> {
    let mut events = client.follow_everywhere(report.job());
    let mut ticks = tokio::time::interval(TICK);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            event = events.recv() => match event {
                Some((node, Ok(event))) => report.take(node, event)?,
                Some((node, Err(error))) => report.lose(node, error)?,
                None => return Ok(()),
            },
            _ = ticks.tick() => report.tick(),
        }
    }
}
