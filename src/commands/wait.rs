//! `s4 wait`: follows a running job to its end.

use super::follow::{self, Interrupts, Report};
use super::job_id;
use crate::cli::WaitArgs;
use s4::client::Client;
use s4::error::{Error, ErrorKind, ExitStatus, Result};

pub async fn run(client: &Client, args: &WaitArgs) -> Result<ExitStatus> {
    let job = job_id::resolve(client, &args.id).await?;
    let mut interrupts = Interrupts::new()?;
    let mut report = Report::watching(client, &job, &args.show);
    let events = client.follow_everywhere(report.job());
    report.tell_plan()?;
    let ended = tokio::select! {
        ended = follow::follow(client, &mut report, events) => ended,
        () = interrupts.caught() => {
            let id = &job.spec.id;
            let message = format!("stopped watching, and the job goes on; 's4 wait {id}' watches it, 's4 cancel {id}' ends it");
            Err(Error::new(ErrorKind::Cancelled, message))
        }
    };
    interrupts.status(ended.and_then(|()| report.finish()))
}
