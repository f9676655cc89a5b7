//! The outcome of a put whose response was lost. Each put has a random id. The client asks the node for the outcome of
//! this id. The answer is final: either the key exists, or the node refuses the put from then on, however late it
//! arrives. The outcome is unknown only if the node does not answer within the deadline.

use super::core::{Client, TRIES};
use crate::body::{self, Activity};
use crate::checksum::Checksum;
use crate::error::{Error, ErrorKind, Result};
use crate::key::Key;
use crate::protocol::{Change, Made, escape};
use crate::timeout::within;
use hyper::Method;
use std::time::{Duration, Instant};

/// How much two clocks may differ over the time of a put.
const CLOCK_TOLERANCE: Duration = Duration::from_millis(100);

/// How long to ask the node for the outcome even if the deadline has passed.
const MIN_ASKING_TIME: Duration = Duration::from_millis(500);

impl Client {
    /// The outcome of the [put](Self::putting) of this client, whose result was `put`. If its response was lost, asks
    /// the node. The client has waited since `asked`; `sum` is the checksum that the key was to have. An error of a
    /// broken connection means that the key was not stored and never will be.
    pub async fn put_outcome(
        &self,
        key: &Key,
        change: Change,
        asked: Instant,
        put: Result<Checksum>,
        sum: impl Future<Output = Result<Checksum>>,
    ) -> Result<Checksum> {
        let error = match put {
            Err(error) if error.is_of_broken_connection() || error.kind() == ErrorKind::Deadline => error,
            known => return known,
        };
        let left = self.deadline().saturating_sub(asked.elapsed()).max(MIN_ASKING_TIME);
        let not_stored = |error: Error| Err(error.with_more(&format!("{key} was not stored")));
        match within(left, self.made(key)).await {
            Some(Ok(made)) if self.may_be_ours(&made, change) && sum.await? == made.checksum => Ok(made.checksum),
            Some(Ok(made)) if change.over_empty && made.checksum.len == 0 => not_stored(error),
            Some(Ok(_)) => Err(Error::new(ErrorKind::AlreadyExists, format!("{key}: key already exists"))),
            Some(Err(asked)) if asked.kind() == ErrorKind::NotFound => not_stored(error),
            Some(Err(_)) | None => {
                Err(Error::new(error.kind(), format!("{error}; whether {key} was stored is not known")))
            }
        }
    }

    /// True if the key has the requested time, and is not older than the put.
    fn may_be_ours(&self, made: &Made, change: Change) -> bool {
        let has_time = change.mtime.is_none_or(|mtime| mtime == made.mtime);
        has_time && self.put.is_some_and(|put| made.age() <= put.began.elapsed() + CLOCK_TOLERANCE)
    }

    /// When `key` was created, and its checksum. From now on the node refuses the put of this client.
    async fn made(&self, key: &Key) -> Result<Made> {
        let node = self.cluster().node_of(key);
        let path = format!("/v1/made/{}", escape(key.as_str()));
        let response = self.send(node, Method::GET, &path, body::empty(), &Activity::default()).await?;
        self.json(node, response).await
    }
}

/// Runs `make`, which makes a key. Runs it again, within the deadline, if the connection breaks and the key was not
/// made: a connection that was kept for reuse does not tell that its node has been down.
pub async fn retry_put<T, F: Future<Output = Result<T>>>(
    client: &Client,
    mut make: impl FnMut(Client) -> F,
) -> Result<T> {
    let (mut now, until) = (client.clone(), Instant::now() + client.deadline());
    for _ in 1..TRIES {
        match make(now).await {
            Err(error) if error.is_of_broken_connection() && Instant::now() < until => {
                tracing::info!("{error}; it is sent again");
                now = client.with_deadline(until - Instant::now());
            }
            made => return made,
        }
    }
    make(now).await
}
