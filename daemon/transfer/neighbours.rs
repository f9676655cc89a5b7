//! Other nodes on this machine, whose tasks' outputs can be linked here.

use crate::store::Store;
use s4::client::{Client, blocking};
use s4::error::{Error, ErrorKind, Result, reason};
use s4::placement::NodeId;
use s4::protocol::Health;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// How long a node that asks for links is waited for: it hears the answer within its own deadline.
const DEADLINE: Duration = Duration::from_secs(2);

pub struct Neighbours {
    store: Arc<Store>,
    client: Client,
    /// Guards what each node last said of itself, once a file of its data directory was linked here to try.
    known: Vec<Mutex<Option<Health>>>,
}

impl Neighbours {
    pub fn new(store: Arc<Store>, client: &Client) -> Self {
        let known = client.cluster().ids().map(|_| Mutex::default()).collect();
        Self { store, client: client.with_deadline(DEADLINE), known }
    }

    /// Where `node`, which was started with `token`, has the directories of its tasks. Errors: bad request, if its files cannot
    /// be linked here.
    pub async fn tasks_dir(&self, node: NodeId, token: &str) -> Result<PathBuf> {
        let refuse =
            |why: &str| Error::new(ErrorKind::BadRequest, format!("no files of node {node} are linked: {why}"));
        let known = self.known.get(node).ok_or_else(|| refuse("there is none"))?;
        let before = known.lock().unwrap_or_else(PoisonError::into_inner).clone();
        // One that was started anew may have its keys elsewhere.
        if let Some(dir) = before.filter(|health| health.token == token).as_ref().and_then(Health::local_dir) {
            return Ok(Store::tasks_in(dir));
        }
        let health = self.client.health(node).await.map_err(|error| refuse(&error.to_string()))?;
        let dir = health.local_dir().filter(|_| health.token == token).map(Path::to_owned);
        let dir = dir.ok_or_else(|| refuse("it is not on this machine"))?;
        let (store, data) = (self.store.clone(), dir.clone());
        blocking(move || store.try_link_from(&data)).await.map_err(|e| refuse(&reason(&e)))?;
        *known.lock().unwrap_or_else(PoisonError::into_inner) = Some(health);
        Ok(Store::tasks_in(&dir))
    }
}
