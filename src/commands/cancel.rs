//! `s4 cancel`

use super::console::print_message;
use super::job_id;
use crate::cli::CancelArgs;
use s4::client::Client;
use s4::client::job_table::JobState;
use s4::error::{Error, ErrorKind, ExitStatus, Result};
use s4::placement::NodeId;
use s4::protocol::{Event, JobId, Outcome};

pub async fn run(client: &Client, args: &CancelArgs) -> Result<ExitStatus> {
    let job = job_id::resolve(client, &args.id).await?;
    let id = &job.spec.id;
    if !matches!(job.state(), JobState::Planned | JobState::Running | JobState::Unknown) {
        return Err(ended_already(id, job.state()));
    }
    let asked = client.on_every_node(|client, node| {
        let id = id.clone();
        async move { cancel(&client, node, &id).await }
    });
    let mut outcomes = Vec::new();
    let mut unreached: u32 = 0;
    for answer in asked.await {
        match answer {
            Ok(outcome) => outcomes.extend(outcome),
            Err(error) => {
                unreached += 1;
                print_message(format_args!("not cancelled: {error}"));
            }
        }
    }
    match (unreached, JobState::of(outcomes.into_iter().map(Some))) {
        (1.., _) => Ok(ExitStatus::Failed),
        (0, JobState::Cancelled) => {
            print_message(format_args!("job {id} cancelled"));
            Ok(ExitStatus::Done)
        }
        (0, state) => Err(ended_already(id, state)),
    }
}

/// Cancels a job on one node. Returns how it ended there, or `None` if the node does not know it.
async fn cancel(client: &Client, node: NodeId, id: &JobId) -> Result<Option<Outcome>> {
    match client.cancel_job(node, id).await {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        cancelled => cancelled?,
    }
    let mut events = match client.follow_job(node, id).await {
        // The job had not been started, and was removed.
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Some(Outcome::Cancelled)),
        events => events?,
    };
    while let Some(event) = events.next().await? {
        if let Event::Ended { outcome, .. } = event {
            return Ok(Some(outcome));
        }
    }
    let name = client.cluster().name(node);
    Err(Error::new(ErrorKind::Unreachable, format!("{name}: its daemon ended")))
}

fn ended_already(id: &JobId, state: JobState) -> Error {
    Error::new(ErrorKind::Command, format!("job {id} has ended already: {}", state.name()))
}
