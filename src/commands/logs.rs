//! `s4 logs`

use super::console::{print_message, unbuffered};
use super::job_id;
use crate::cli::LogsArgs;
use s4::client::Client;
use s4::error::{Error, ErrorKind, ExitStatus, Result};
use s4::key::Key;
use s4::placement::NodeId;
use s4::protocol::{Event, JobId, TaskFailure};
use std::fs::File;
use std::io::{BufWriter, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

pub async fn run(client: &Client, args: &LogsArgs) -> Result<ExitStatus> {
    let key = args.key.as_deref().map(Key::parse_url).transpose()?;
    let id = job_id::resolve(client, &args.id).await?.spec.id;
    if args.failed {
        return failed(client, &id).await;
    }
    if let Some(key) = key {
        let sink = unbuffered(std::io::stdout())?;
        client.job_log(client.cluster().node_of(&key), &id, Some(&key), sink).await?;
        return Ok(ExitStatus::Done);
    }
    let wrote = Arc::new(AtomicBool::new(false));
    let mut failed = false;
    for node in client.cluster().ids() {
        let sink = Noticed { file: unbuffered(std::io::stdout())?, wrote: wrote.clone() };
        match client.job_log(node, &id, None, sink).await {
            Ok(()) => {}
            // This node has nothing; another one may.
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            Err(error) if error.kind() == ErrorKind::OutputClosed => return Err(error),
            Err(error) => {
                failed = true;
                print_message(error);
            }
        }
    }
    match (failed, wrote.load(Ordering::Relaxed)) {
        (true, _) => Ok(ExitStatus::Failed),
        (false, true) => Ok(ExitStatus::Done),
        // An answer, and no failure: a script that keeps the logs of each job goes on.
        (false, false) => {
            print_message(format_args!("job {id}: its commands wrote no stderr"));
            Ok(ExitStatus::Done)
        }
    }
}

/// Prints the failed tasks so far, one by one: there may be very many.
async fn failed(client: &Client, id: &JobId) -> Result<ExitStatus> {
    let mut out = BufWriter::new(std::io::stdout().lock());
    let (mut found, mut status) = (false, ExitStatus::Done);
    for node in client.cluster().ids() {
        match failed_of(client, node, id, &mut out).await {
            Ok(some) => found |= some,
            // This node has nothing; another one may.
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            Err(error) if error.kind() == ErrorKind::OutputClosed => return Err(error),
            Err(error) => {
                status = ExitStatus::Failed;
                print_message(error);
            }
        }
    }
    out.flush().map_err(|e| Error::io("stdout", &e))?;
    if !found && status == ExitStatus::Done {
        print_message(format_args!("job {id}: no task has failed"));
    }
    Ok(status)
}

/// True if a task of the job has failed on `node`.
async fn failed_of(client: &Client, node: NodeId, id: &JobId, out: &mut impl Write) -> Result<bool> {
    let mut events = client.follow_job(node, id).await?;
    let mut found = false;
    while let Some(event) = events.next().await? {
        match event {
            Event::Failure(TaskFailure { node, key, reason, stderr }) => {
                found = true;
                let (name, end) = (client.cluster().name(node), if stderr.is_empty() { "" } else { "\n" });
                writeln!(out, "==> {key} on {name}: {reason} <==\n{}{end}", stderr.trim_end())
                    .map_err(|e| Error::io("stdout", &e))?;
            }
            // A node sends the failures so far before any of these events.
            Event::Progress(_) | Event::Ended { .. } => break,
            _ => {}
        }
    }
    Ok(found)
}

/// stdout, and whether anything was written to it.
struct Noticed {
    file: File,
    wrote: Arc<AtomicBool>,
}

impl Write for Noticed {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.wrote.store(true, Ordering::Relaxed);
        self.file.write(bytes)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        self.file.flush()
    }
}
