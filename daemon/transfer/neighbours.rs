//! Other nodes on this machine, whose tasks' outputs can be linked here.

use crate::store::Store;
use s4::client::{Client, blocking};
use s4::error::{Error, ErrorKind, Result};
use s4::placement::NodeId;
use s4::protocol::Health;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tokio::sync::Mutex;

pub struct Neighbours {
    store: Arc<Store>,
    client: Client,
    /// What each node last said of itself, once files of its data directory were found to be links here.
    known: Vec<Mutex<Option<Health>>>,
}

impl Neighbours {
    pub fn new(store: Arc<Store>, client: Client) -> Self {
        let known = client.cluster().ids().map(|_| Mutex::default()).collect();
        Self { store, client, known }
    }

    /// The directory of `node`'s tasks. Errors: bad request, if its files cannot be linked here.
    pub async fn tasks_dir(&self, node: NodeId) -> Result<PathBuf> {
        let refuse =
            |why: &str| Error::new(ErrorKind::BadRequest, format!("no files of node {node} are linked: {why}"));
        let mut known = match self.known.get(node) {
            Some(known) => known.lock().await,
            None => return Err(refuse("there is none")),
        };
        // One that was started anew may have its keys elsewhere.
        if let Some(dir) = known.as_ref().and_then(Health::local_dir) {
            return Ok(Store::tasks_in(dir));
        }
        *known = None;
        let health = self.client.health(node).await?;
        let dir = health.local_dir().map(Path::to_owned).ok_or_else(|| refuse("it is not on this machine"))?;
        let (store, data) = (self.store.clone(), dir.clone());
        match blocking(move || store.try_link_from(&data)).await {
            Ok(()) => {
                *known = Some(health);
                Ok(Store::tasks_in(&dir))
            }
            Err(error) => Err(refuse(&s4::error::reason(&error))),
        }
    }
}
