//! Commands whose streams go to the client as they come: `eval`, and a job's command tried on one task.

use super::Answer;
use crate::app::App;
use crate::jobs::{self, Shared};
use http_body_util::BodyExt;
use hyper::Response;
use s4::body::ChunkSender;
use s4::client::blocking;
use s4::error::Result;
use s4::frame::{CommandEnd, FrameWriter};
use s4::key::Key;
use s4::protocol::{CommandText, HEARTBEAT};
use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::sync::Arc;
use tokio::sync::SemaphorePermit;

/// Answers with the command's streams. What fails before its start is an error like any other.
pub async fn eval(app: &Arc<App>, key: Key, cmd: Vec<u8>) -> Answer {
    let cmd = CommandText::new(OsString::from_vec(cmd))?;
    answer(app, key, move |shared, key, sender| jobs::eval::run(shared, key, &cmd, sender)).await
}

/// Answers with the streams of a job's command on the task of `key`, of which nothing is published.
pub async fn attempt(app: &Arc<App>, key: Key, json: &[u8]) -> Answer {
    let spec = super::jobs::parse(json)?;
    spec.check()?;
    answer(app, key, move |shared, key, sender| jobs::eval::attempt(shared, &spec, key, sender)).await
}

async fn answer(
    app: &Arc<App>,
    key: Key,
    run: impl FnOnce(&Arc<Shared>, &Key, ChunkSender) -> Result<()> + Send + 'static,
) -> Answer {
    let shared = app.jobs.shared.clone();
    {
        let (store, key) = (shared.store.clone(), key.clone());
        blocking(move || store.open_key(&key).map(drop)).await?;
    }
    let (sender, body) = app.channel();
    tokio::spawn(async move {
        let Some(_turn) = await_turn(&shared, &sender).await else {
            return;
        };
        let late = sender.clone();
        let ran = {
            let shared = shared.clone();
            blocking(move || run(&shared, &key, sender)).await
        };
        if let Err(error) = ran {
            // A client that hung up needs no end.
            let _ = blocking(move || FrameWriter::new(late).exit(&CommandEnd::Error(error))).await;
        }
    });
    Ok(Response::new(body.boxed_unsync()))
}

/// Waits until one more eval may run, with signs of life for the client; `None` once it has hung up.
async fn await_turn<'s>(shared: &'s Shared, sender: &ChunkSender) -> Option<SemaphorePermit<'s>> {
    let mut turn = std::pin::pin!(shared.evals.acquire());
    loop {
        match tokio::time::timeout(HEARTBEAT, &mut turn).await {
            Ok(turn) => return turn.ok(),
            Err(_) => {
                let sender = sender.clone();
                blocking(move || FrameWriter::new(sender).beat()).await.ok()?;
            }
        }
    }
}
