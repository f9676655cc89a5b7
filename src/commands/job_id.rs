//! Which job an abbreviated id means.

use s4::client::Client;
use s4::client::job_table::ClusterJob;
use s4::error::{Error, ErrorKind, Result};
use s4::protocol::JobId;

/// The one job whose id is, begins with, or ends in `text`.
pub async fn resolve(client: &Client, text: &str) -> Result<ClusterJob> {
    let (mut jobs, errors) = client.all_jobs().await;
    let ids: Vec<JobId> = jobs.keys().filter(|id| means(id.as_str(), text)).cloned().collect();
    let exact = ids.iter().find(|id| id.as_str() == text);
    match (exact.or(ids.first()), exact.is_some() || ids.len() < 2) {
        (Some(id), true) => jobs.remove(id).ok_or_else(|| unknown(text, &errors)),
        (Some(_), false) => {
            let all: Vec<&str> = ids.iter().map(JobId::as_str).collect();
            Err(Error::usage(format!("'{}' may be any of {}", text.escape_debug(), all.join(", "))))
        }
        (None, _) => Err(unknown(text, &errors)),
    }
}

fn means(id: &str, text: &str) -> bool {
    !text.is_empty() && (id.starts_with(text) || id.ends_with(text))
}

fn unknown(text: &str, errors: &[Error]) -> Error {
    let silent: Vec<String> = errors.iter().map(|error| format!("; {error}")).collect();
    let message = format!("no job '{}'; 's4 jobs' lists them{}", text.escape_debug(), silent.concat());
    Error::new(ErrorKind::NotFound, message)
}
