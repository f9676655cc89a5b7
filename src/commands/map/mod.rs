//! `s4 map`, `s4 map-to-n`, `s4 map-from-n`: submit a job to every node, start it, and follow it to its end.

mod advice;
mod dry_run;
mod try_one;

use super::absence::nothing_found;
use super::files;
use super::follow::{self, Interrupts, Report};
use crate::cli::MapArgs;
use s4::client::{Client, NodeEvent};
use s4::error::{Error, ErrorKind, ExitStatus, Result};
use s4::key::Dir;
use s4::pattern::Pattern;
use s4::protocol::{CommandText, JobSpec, MapKind, Plan};
use std::io::Write;
use std::time::Instant;
use tokio::sync::mpsc::Receiver;

pub async fn run(client: &Client, kind: MapKind, args: MapArgs) -> Result<ExitStatus> {
    let mut interrupts = Interrupts::new()?;
    let ended = run_until(client, kind, args, &mut interrupts).await;
    interrupts.status(ended)
}

async fn run_until(client: &Client, kind: MapKind, args: MapArgs, interrupts: &mut Interrupts) -> Result<ExitStatus> {
    let mut spec = spec(kind, &args)?;
    let files = files::find(&args.files)?;
    if args.dry_run {
        spec.files = files.iter().map(files::LocalFile::describe).collect::<Result<_>>()?;
        return tokio::select! {
            planned = dry_run::run(client, &spec, args.show.json) => planned,
            () = interrupts.caught() => Err(cancelled(kind)),
        };
    }
    for file in files {
        let sent = async { file.send(client).await };
        spec.files
            .push(tokio::select! { sent = sent => sent?, () = interrupts.caught() => return Err(cancelled(kind)) });
    }
    match &args.try_key {
        Some(key) => tokio::select! {
            tried = try_one::run(client, &spec, key.as_deref()) => tried,
            () = interrupts.caught() => Err(cancelled(kind)),
        },
        None => start_and_follow(client, &spec, &args, interrupts).await,
    }
}

/// The job as typed by the user, without its files.
fn spec(kind: MapKind, args: &MapArgs) -> Result<JobSpec> {
    advice::check_order(kind, args)?;
    let (indir, outdir) = (Pattern::parse_url(&args.indir)?, Dir::parse_url(&args.outdir)?);
    let mut spec = JobSpec::new(kind, indir, outdir, CommandText::new(args.cmd.clone())?);
    spec.keep_going = args.keep_going;
    spec.timeout = args.timeout.map(|timeout| timeout.as_secs_f64());
    spec.retries = args.retries;
    (spec.rerun, spec.partial) = (args.rerun(), args.partial);
    (spec.memory, spec.cpus, spec.jobs) = (args.memory, args.cpus, args.jobs);
    spec.to_name.clone_from(&args.to_name);
    if !args.ok_exit.is_empty() {
        spec.ok_exit = args.ok_exit.iter().map(|&status| status.into()).collect();
    }
    for (name, value) in &args.env {
        if spec.env.iter().any(|(taken, _)| taken == name) {
            return Err(Error::usage(format!("--env: {name} is given twice")));
        }
        spec.env.push((name.clone(), value.clone()));
    }
    Ok(spec)
}

async fn start_and_follow(
    client: &Client,
    spec: &JobSpec,
    args: &MapArgs,
    interrupts: &mut Interrupts,
) -> Result<ExitStatus> {
    let began = Instant::now();
    let (plans, events) = match start(client, spec, args.detach, interrupts).await {
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
    let mut report = Report::new(client, spec, plans, &args.show, began);
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

fn cancelled(kind: MapKind) -> Error {
    Error::new(ErrorKind::Cancelled, format!("{kind} cancelled"))
}
