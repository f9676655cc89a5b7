//! Provenance: what made a key.

use super::{Answer, done, json, parse};
use crate::app::App;
use crate::jobs::imports::import;
use crate::jobs::journal::find;
use crate::route::Page;
use s4::client::blocking;
use s4::error::{Error, ErrorKind};
use s4::key::Key;
use s4::protocol::Provenance;
use s4::stored::record;
use std::sync::Arc;
use std::time::UNIX_EPOCH;

/// Limit of inputs that the page shows.
const SHOWN: usize = 20;

/// Sends the provenance of a key of this node: its attributes, and the task that made it, if the task ran here and
/// inputs are requested.
pub async fn of_key(app: &Arc<App>, key: Key, page: Page) -> Answer {
    let store = app.jobs.shared.store.clone();
    blocking(move || {
        let opened = store.open_key(&key)?;
        let failed = |e: std::io::Error| store.unreadable(&key, &e);
        let modified = opened.file.metadata().and_then(|found| found.modified()).map_err(failed)?;
        let since = modified.duration_since(UNIX_EPOCH).ok();
        let mark = record(&opened.file).map_err(failed)?.and_then(|record| record.mark);
        let wanted = mark.filter(|_| page.most > 0);
        let task = wanted.map(|mark| find(&store, mark.job, mark.inputs, page.from, page.most)).transpose()?.flatten();
        let modified = since.map(|since| since.as_millis() as i64);
        Ok(json(&Provenance { checksum: opened.checksum, modified, mark, task }))
    })
    .await
}

/// Gives a key of this node its provenance from another cluster: its mark, and the task if its record is complete.
pub async fn give(app: &Arc<App>, key: Key, body: Vec<u8>) -> Answer {
    let found: Provenance = parse(&body)?;
    let shared = app.jobs.shared.clone();
    blocking(move || {
        let mark = found.mark.ok_or_else(|| Error::new(ErrorKind::BadRequest, format!("{key}: no map made it")))?;
        if let Some(task) = &found.task {
            import(&shared, mark, task)?;
        }
        shared.store.give_mark(&key, found.checksum, mark).map(|()| done())
    })
    .await
}

/// Sends the provenance of a key on any node.
pub async fn anywhere(app: &Arc<App>, key: Key) -> Answer {
    app.jobs.shared.client.provenance(&key, SHOWN).await.map(|found| json(&found))
}

/// Sends the record of the task that this node ran for a job (named by the hash of its id), over inputs with this
/// digest.
pub async fn of_task(app: &Arc<App>, job: u64, digest: u64, page: Page) -> Answer {
    let store = app.jobs.shared.store.clone();
    let found = blocking(move || find(&store, job, digest, page.from, page.most)).await?;
    found.map(|task| json(&task)).ok_or_else(|| Error::new(ErrorKind::NotFound, "no record of such a task here"))
}
