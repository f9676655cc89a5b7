//! Puts whose answer was lost. Each put has a number, under which its node is asked what became of it. Once it has answered, that is certain:
//! either the key is there, or the node refuses the put from then on, however late it comes. What is not known is what became of a put
//! of which the node does not tell within the deadline.

use super::core::Client;
use crate::body::{self, Activity};
use crate::checksum::Checksum;
use crate::error::{Error, ErrorKind, Result};
use crate::key::Key;
use crate::protocol::{Change, Made, escape};
use crate::timeout::within;
use hyper::Method;
use std::time::{Duration, Instant};

/// What two clocks may differ in the length of a put.
const SLACK: Duration = Duration::from_millis(100);

/// How long the node is asked though the deadline is over.
const LAST_QUESTION: Duration = Duration::from_millis(500);

impl Client {
    /// How the [put](Self::putting) of this client ended, whose answer is waited for since `asked` and may be lost; `sum` is what the key
    /// was to be. An error of a broken connection says that the key was not stored and will not be.
    pub async fn settled(
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
        let left = self.deadline().saturating_sub(asked.elapsed()).max(LAST_QUESTION);
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

    /// True if the key has the time that it was to be given, and is no older than the put.
    fn may_be_ours(&self, made: &Made, change: Change) -> bool {
        let has_time = change.mtime.is_none_or(|mtime| mtime == made.mtime);
        has_time && self.put.is_some_and(|put| made.age() <= put.began.elapsed() + SLACK)
    }

    /// When `key` was made, and of which bytes. The node refuses this client's put from now on.
    async fn made(&self, key: &Key) -> Result<Made> {
        let node = self.cluster().node_of(key);
        let path = format!("/v1/made/{}", escape(key.as_str()));
        let response = self.send(node, Method::GET, &path, body::empty(), &Activity::default()).await?;
        self.json(node, response).await
    }
}
