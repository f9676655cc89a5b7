//! `s4 map`, `s4 map-to-n`, `s4 map-from-n`: submit a job to every node, start it, and follow it to its end.

mod advice;
mod dry_run;
mod try_one;

use super::files;
use super::follow::Interrupts;
use super::start;
use crate::cli::MapArgs;
use s4::client::Client;
use s4::error::{Error, ExitStatus, Result};
use s4::key::Dir;
use s4::pattern::Pattern;
use s4::protocol::{CommandText, JobSpec, MapKind};

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
            () = interrupts.caught() => Err(start::cancelled(kind)),
        };
    }
    for file in files {
        let sent = async { file.send(client).await };
        spec.files.push(
            tokio::select! { sent = sent => sent?, () = interrupts.caught() => return Err(start::cancelled(kind)) },
        );
    }
    match &args.try_key {
        Some(key) => tokio::select! {
            tried = try_one::run(client, &spec, key.as_deref()) => tried,
            () = interrupts.caught() => Err(start::cancelled(kind)),
        },
        None => start::run(client, &spec, args.detach, &args.show, interrupts).await,
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
