//! Puts whose answer was lost: whether the key came to be is asked once more.

use super::Client;
use crate::body::{self, Activity};
use crate::checksum::Checksum;
use crate::error::{Error, ErrorKind, Result};
use crate::key::Key;
use crate::protocol::{Made, escape};
use crate::timeout::within;
use hyper::Method;
use std::time::{Duration, Instant};

/// What two clocks may differ in the length of a put.
const SLACK: Duration = Duration::from_millis(100);

impl Client {
    /// How the put of `key` ended that began at `since` and was to have `checksum`. Where the answer was lost, the node is asked: a key
    /// with these bytes which was made since then is ours. After that nothing more comes of the put: a node publishes
    /// nothing for one who waits no longer, and bytes that it has not confirmed do not reach it later.
    pub async fn settled(&self, key: &Key, checksum: Checksum, since: Instant, put: Result<()>) -> Result<()> {
        let error = match put {
            Err(error) if error.is_of_broken_connection() || error.kind() == ErrorKind::Deadline => error,
            known => return known,
        };
        match within(self.deadline(), self.made(key)).await {
            Some(Ok(made)) if made.checksum == checksum && made.age() <= since.elapsed() + SLACK => Ok(()),
            Some(Ok(_)) => Err(error),
            Some(Err(asked)) if asked.kind() == ErrorKind::NotFound => {
                Err(error.followed_by(&format!("{key} was not stored")))
            }
            Some(Err(_)) | None => Err(error.followed_by(&format!("whether {key} was stored is not known"))),
        }
    }

    /// When `key` was made, and of which bytes.
    async fn made(&self, key: &Key) -> Result<Made> {
        let node = self.cluster().node_of(key);
        let path = format!("/v1/made/{}", escape(key.as_str()));
        let response = self.send(node, Method::GET, &path, body::empty(), &Activity::default()).await?;
        self.json(node, response).await
    }
}

impl Error {
    /// The same error with more to say.
    fn followed_by(self, more: &str) -> Self {
        Self::new(self.kind(), format!("{self}; {more}"))
    }
}
