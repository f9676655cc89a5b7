//! Follows a started job and reports on it, for the maps and for `s4 wait`.

mod copies;
mod events;
mod failures;
mod parts;
mod report;
mod reruns;
mod summary;
mod view;

pub use events::planned_line;
pub use report::Report;
pub use reruns::{gone_text, kept_text, reasons_text};

use crate::commands::console::print_message;
use s4::client::{Client, NodeEvent};
use s4::error::{Error, ErrorKind, ExitStatus, Result};
use s4::protocol::{Event, Outcome};
use std::time::Duration;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::mpsc::Receiver;
use tokio::time::{Instant, MissedTickBehavior};

/// The interval between two updates of the display.
const TICK: Duration = Duration::from_millis(200);

/// Catches Ctrl-C and SIGTERM. While it exists, neither ends the program by itself; the exit status is
/// [`Interrupts::status`].
pub struct Interrupts {
    interrupt: Signal,
    terminate: Signal,
    caught: Option<i32>,
}

impl Interrupts {
    pub fn new() -> Result<Self> {
        let listen = |kind| signal(kind).map_err(|e| Error::io("cannot wait for signals", &e));
        Ok(Self {
            interrupt: listen(SignalKind::interrupt())?,
            terminate: listen(SignalKind::terminate())?,
            caught: None,
        })
    }

    /// Resolves when one of the signals has come, also before the call.
    pub async fn caught(&mut self) {
        let kind = tokio::select! {
            _ = self.interrupt.recv() => SignalKind::interrupt(),
            _ = self.terminate.recv() => SignalKind::terminate(),
        };
        self.caught = Some(kind.as_raw_value());
    }

    /// The exit status: death by the caught signal, after the error was printed.
    pub fn status(&self, result: Result<ExitStatus>) -> Result<ExitStatus> {
        match (self.caught, result) {
            (Some(signal), Err(error)) => {
                print_message(error);
                Ok(ExitStatus::Signal(signal))
            }
            (_, result) => result,
        }
    }
}

/// Follows the job to its end on every node. Errors: a node is lost (except for `s4 wait`), or stdout cannot be
/// written.
pub async fn follow(client: &Client, report: &mut Report, mut events: Receiver<NodeEvent>) -> Result<()> {
    // A job that ends at once needs no display.
    let mut ticks = tokio::time::interval_at(Instant::now() + TICK, TICK);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            event = events.recv() => match event {
                Some((node, Ok(event))) => {
                    let ended = matches!(event, Event::Ended { outcome: Outcome::Interrupted, .. });
                    report.take(node, event)?;
                    if ended && !report.watches() {
                        let name = client.cluster().name(node);
                        return Err(Error::new(ErrorKind::Unreachable, format!("{name}: its daemon ended before the job did")));
                    }
                }
                Some((node, Err(error))) => report.lose(node, error)?,
                None => return Ok(()),
            },
            _ = ticks.tick() => report.tick(),
        }
    }
}
