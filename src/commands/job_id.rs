//! Finds the job for an abbreviated id.

use s4::client::Client;
use s4::client::job_table::ClusterJob;
use s4::error::{Error, ErrorKind, Result};
use s4::protocol::JobId;

/// The word for the newest job.
const LAST: &str = "last";

/// Limit of candidates that are listed if an id is ambiguous; newest first.
const LISTED: usize = 5;

/// The only job whose id is `text`, begins with it or ends in it; for `last`, the newest job.
pub async fn resolve(client: &Client, text: &str) -> Result<ClusterJob> {
    let (mut jobs, errors) = client.all_jobs().await;
    let id = pick(jobs.keys(), text).map_err(|error| with_silent(error, &errors))?.clone();
    jobs.remove(&id).ok_or_else(|| unknown(text))
}

/// Picks the id from `ids`, which are sorted, oldest first.
fn pick<'a>(ids: impl Iterator<Item = &'a JobId>, text: &str) -> Result<&'a JobId> {
    let ids: Vec<&JobId> = ids.collect();
    if text == LAST {
        let none = || Error::new(ErrorKind::NotFound, "no job 'last': the nodes know of no job; 's4 map' starts one");
        return ids.last().copied().ok_or_else(none);
    }
    let meant: Vec<&JobId> = ids.into_iter().filter(|id| means(id.as_str(), text)).collect();
    match (meant.iter().find(|id| id.as_str() == text), meant.as_slice()) {
        (Some(id), _) | (None, [id]) => Ok(id),
        (None, []) => Err(unknown(text)),
        (None, many) => {
            let some: Vec<&str> = many.iter().rev().take(LISTED).map(|id| id.as_str()).collect();
            let more = if many.len() > LISTED { format!(" and {} more", many.len() - LISTED) } else { String::new() };
            let text = text.escape_debug();
            Err(Error::usage(format!(
                "'{text}' may be any of {}{more}; the last six characters tell jobs apart",
                some.join(", ")
            )))
        }
    }
}

fn means(id: &str, text: &str) -> bool {
    !text.is_empty() && (id.starts_with(text) || id.ends_with(text))
}

fn unknown(text: &str) -> Error {
    Error::new(ErrorKind::NotFound, format!("no job '{}'; 's4 jobs' lists them", text.escape_debug()))
}

/// Adds to the error that some nodes have not answered, so that the result may be incomplete.
fn with_silent(error: Error, silent: &[Error]) -> Error {
    silent.iter().fold(error, |error, silent| error.with_more(&silent.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_abbreviation_means_one_job_or_is_refused() {
        let ids = ["20260101-000000-000-aaaaaa", "20260101-000000-001-bbbbbb", "20260102-000000-000-aabbbb"];
        let ids: Vec<JobId> = ids.map(|id| JobId::try_from(id.to_owned()).unwrap()).into();
        let picked = |text: &str| pick(ids.iter(), text).map(|id| ids.iter().position(|other| other == id).unwrap());
        for (text, at) in [("last", 2), ("aaaaaa", 0), ("20260102", 2), ("001-bbbbbb", 1), (ids[0].as_str(), 0)] {
            assert_eq!(picked(text), Ok(at), "{text}");
        }
        let ambiguous = picked("bbbb").unwrap_err().to_string();
        assert!(ambiguous.contains(&format!("any of {}, {};", ids[2], ids[1])), "{ambiguous}");
        for text in ["", "nosuch", "las"] {
            assert_eq!(picked(text).unwrap_err().kind(), ErrorKind::NotFound, "{text}");
        }
        assert!(pick([].into_iter(), "last").unwrap_err().to_string().contains("no job"));
    }
}
