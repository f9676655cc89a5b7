//! `s4 logs`

use super::console::{say, unbuffered};
use super::job_id;
use crate::cli::LogsArgs;
use s4::client::Client;
use s4::error::{Error, ErrorKind, ExitStatus, Result};
use s4::key::Key;
use std::fs::File;
use std::io::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

pub async fn run(client: &Client, args: &LogsArgs) -> Result<ExitStatus> {
    let key = args.key.as_deref().map(Key::parse_url).transpose()?;
    let id = job_id::resolve(client, &args.id).await?.spec.id;
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
            // A node that has nothing of it; another may.
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            Err(error) if error.kind() == ErrorKind::OutputClosed => return Err(error),
            Err(error) => {
                failed = true;
                say(error);
            }
        }
    }
    match (failed, wrote.load(Ordering::Relaxed)) {
        (true, _) => Ok(ExitStatus::Failed),
        (false, true) => Ok(ExitStatus::Done),
        (false, false) => {
            Err(Error::new(ErrorKind::NotFound, format!("job {id}: there is no stderr: its commands wrote none")))
        }
    }
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
