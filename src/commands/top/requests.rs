//! Requests of the user of `s4 top` to the cluster.

use super::choice::Ask;
use s4::bounds::tail;
use s4::client::Client;
use s4::error::{ErrorKind, Result};
use s4::placement::NodeId;
use s4::protocol::JobId;
use std::io::Write;
use std::sync::{Arc, Mutex, PoisonError};

/// The most bytes of stderr that are kept for each node: its last ones.
const KEPT: usize = 64 << 10;

/// The answer to a request.
pub enum Answer {
    /// The lines of a job's stderr.
    Logs(Vec<String>),
    Message(String),
}

pub async fn answer(client: &Client, ask: Ask) -> Answer {
    match ask {
        Ask::Logs(job) => match JobId::try_from(job) {
            Ok(id) => Answer::Logs(logs(client, &id).await),
            Err(error) => Answer::Message(error.to_string()),
        },
        Ask::Cancel(job) => Answer::Message(match JobId::try_from(job) {
            Ok(id) => cancel(client, &id).await,
            Err(error) => error.to_string(),
        }),
    }
}

async fn logs(client: &Client, id: &JobId) -> Vec<String> {
    let asked = client.on_every_node(|client, node| {
        let id = id.clone();
        async move { log_of(&client, node, &id).await }
    });
    let mut lines = Vec::new();
    for answer in asked.await {
        match answer {
            Ok(text) => lines.extend(text.lines().map(str::to_owned)),
            // This node has nothing; another one may.
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            Err(error) => lines.push(error.to_string()),
        }
    }
    if lines.is_empty() {
        lines.push("the commands have written nothing to stderr".to_owned());
    }
    lines
}

async fn log_of(client: &Client, node: NodeId, id: &JobId) -> Result<String> {
    let sink = Tail::default();
    let read = client.job_log(node, id, None, sink.clone()).await;
    let bytes = std::mem::take(&mut *sink.0.lock().unwrap_or_else(PoisonError::into_inner));
    read.map(|()| tail(&String::from_utf8_lossy(&bytes), KEPT).to_owned())
}

/// Keeps the last bytes that are written to it: at most twice as many as are wanted.
#[derive(Clone, Default)]
struct Tail(Arc<Mutex<Vec<u8>>>);

impl Write for Tail {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        kept.extend_from_slice(bytes);
        if kept.len() > 2 * KEPT {
            let old = kept.len() - KEPT;
            kept.drain(..old);
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

async fn cancel(client: &Client, id: &JobId) -> String {
    let asked = client.on_every_node(|client, node| {
        let id = id.clone();
        async move { client.cancel_job(node, &id).await }
    });
    let failed = asked.await.into_iter().filter_map(Result::err).find(|error| error.kind() != ErrorKind::NotFound);
    match failed {
        None => format!("job {id} is being cancelled"),
        Some(error) => format!("not cancelled everywhere: {error}"),
    }
}
