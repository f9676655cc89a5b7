//! Starts a job on every node and follows it to its end, for the maps and for copies with S3.

use super::absence::nothing_found;
use super::follow::{self, Interrupts, Report};
use crate::cli::ShowArgs;
use s4::client::{Client, NodeEvent};
use s4::error::{Error, ErrorKind, ExitStatus, Result};
use s4::protocol::{JobSpec, MapKind, Plan};
use std::io::Write;
use std::time::Instant;
use tokio::sync::mpsc::Receiver;

/// Starts the job, and follows it to its end, unless it is `detached`.
pub async fn run(
    client: &Client,
    spec: &JobSpec,
    detached: bool,
    show: &ShowArgs,
    interrupts: &mut Interrupts,
) -> Result<ExitStatus> {
    let began = Instant::now();
    let (plans, events) = match start(client, spec, detached, interrupts).await {
        Ok(started) => started,
        Err(error) => {
            client.cancel_everywhere(&spec.id).await;
            return Err(match error.kind() {
                ErrorKind::NotFound => nothing_found(client, spec.indir.base(), error).await,
                // The job may have been started on other nodes.
                ErrorKind::Deadline | ErrorKind::Unreachable => {
                    let id = &spec.id;
                    Error::new(error.kind(), format!("{error}; job {id} is cancelled on the nodes that answer"))
                }
                _ => error,
            });
        }
    };
    let Some(events) = events else {
        writeln!(std::io::stdout(), "{}", spec.id).map_err(|e| Error::io("stdout", &e))?;
        return Ok(ExitStatus::Done);
    };
    let mut report = Report::new(client, spec, plans, show, began);
    report.tell_plan()?;
    let ended = tokio::select! {
        ended = follow::follow(client, &mut report, events) => ended,
        () = interrupts.caught() => Err(cancelled(spec.kind)),
    };
    match ended {
        Ok(()) => report.finish(),
        // The reader of the events is gone; the job continues without it.
        Err(error) if error.kind() == ErrorKind::OutputClosed => Err(error),
        Err(error) => {
            client.cancel_everywhere(&spec.id).await;
            report.refresh(client).await;
            Err(report.give_up(&error))
        }
    }
}

/// The plan of each node, and unless the job is `detached`, its events.
async fn start(
    client: &Client,
    spec: &JobSpec,
    detached: bool,
    interrupts: &mut Interrupts,
) -> Result<(Vec<Plan>, Option<Receiver<NodeEvent>>)> {
    let started = async {
        Ok(match detached {
            true => (client.start_everywhere(spec).await?, None),
            false => client.run_everywhere(spec).await.map(|(plans, events)| (plans, Some(events)))?,
        })
    };
    tokio::select! {
        started = started => started,
        () = interrupts.caught() => Err(cancelled(spec.kind)),
    }
}

/// The error of a job that was interrupted.
pub fn cancelled(kind: MapKind) -> Error {
    Error::new(ErrorKind::Cancelled, format!("{kind} cancelled"))
}
