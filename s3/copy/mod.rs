//! `s4-s3 copy-worker`: the part of a copy on one node, which the node's daemon starts. It gets its task on stdin, and ends,
//! with all that it has begun aborted, when stdin ends: the daemon cancels it so, and so does the daemon's own end. It
//! reports on stdout.
//!
//! In: every worker lists the source itself and copies the objects whose keys belong on its node, from the first page on.
//! Out: every worker copies the keys of its node. A failed object stops no other.

mod inward;
mod keys;
mod names;
mod outward;
mod report;
mod work;

use report::Report;
use s4::error::{Error, ErrorKind, Result};
use s4::protocol::{MAX_WORKER_TASK, WorkerTask};
use std::io::{BufRead, Read};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::oneshot;
use work::Work;

/// How long the end of a worker may take.
const END: Duration = Duration::from_secs(3);

pub async fn run() -> Result<()> {
    let (task, ended) = read_task()?;
    let (report, printer) = Report::start();
    let work = Arc::new(Work::new(task, report)?);
    let copied = tokio::select! {
        copied = copy(&work) => copied,
        _ = ended => Err(Error::new(ErrorKind::Cancelled, "cancelled")),
    };
    if copied.is_err() {
        let aborted = tokio::time::timeout(END, work.uploads.abort_all(&work.s3)).await;
        for error in aborted.unwrap_or_default() {
            eprintln!("s4-s3: {error}");
        }
    }
    work.report.finish();
    // If nobody reads, nobody needs it.
    let _ = printer.await;
    copied
}

async fn copy(work: &Arc<Work>) -> Result<()> {
    match work.spec.from.starts_with("s3://") {
        true => inward::copy(work).await,
        false => outward::copy(work).await,
    }
}

/// The task, and what resolves when stdin ends.
fn read_task() -> Result<(WorkerTask, oneshot::Receiver<()>)> {
    let failed = |e: std::io::Error| Error::io("stdin", &e);
    let mut line = Vec::new();
    let mut stdin = std::io::stdin().lock();
    stdin.by_ref().take(MAX_WORKER_TASK as u64).read_until(b'\n', &mut line).map_err(failed)?;
    drop(stdin);
    // The error of the parser would show what it has read.
    let task = serde_json::from_slice(&line);
    let task = task.map_err(|_| Error::usage("copy-worker is started by s4-server, with a task on its stdin"))?;
    let (sender, ended) = oneshot::channel();
    std::thread::spawn(move || {
        let _ = std::io::copy(&mut std::io::stdin().lock(), &mut std::io::sink());
        sender.send(())
    });
    Ok((task, ended))
}
