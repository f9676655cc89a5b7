//! Requests of a resize.

use super::{Answer, done, json, parse};
use crate::app::{App, Ending};
use crate::jobs::owner::Owner;
use crate::peer::Peer;
use crate::resize::{self, Resize};
use crate::store::Placed;
use http_body_util::BodyExt;
use hyper::Response;
use s4::body::{ChunkSender, Disconnected};
use s4::client::blocking;
use s4::error::{Error, ErrorKind, Result};
use s4::key::Key;
use s4::protocol::{Attributes, HEARTBEAT, Metadata, Moved, MovedDir, ResizeLine, ResizePlan, ResizeState};
use s4::resize::Lists;
use s4::wire::{Put, Response as Reply};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use tokio::time::{MissedTickBehavior, interval};

pub fn state(app: &Arc<App>) -> Answer {
    let lists = app.resize.as_ref().map(|resize| resize.lists.clone());
    Ok(json(&ResizeState { lists, token: app.jobs.shared.store.token().to_owned() }))
}

fn under_way(app: &App) -> Result<Arc<Resize>> {
    app.resize.clone().ok_or_else(|| Error::new(ErrorKind::BadRequest, "this node is not being resized"))
}

/// Errors: a resize between other lists is under way; this node is not in its list; a job runs.
fn check_lists(app: &App, lists: &Lists) -> Result<()> {
    let refuse = |kind, why: String| Err(Error::new(kind, why));
    match &app.resize {
        Some(resize) if resize.lists != *lists => {
            let sizes = resize.lists.sizes();
            let why = format!("a resize from {} to {} nodes is under way; end that first", sizes.before, sizes.after);
            return refuse(ErrorKind::Busy, why);
        }
        Some(_) => return Ok(()),
        None => {}
    }
    let joins = app.node >= lists.before().len();
    let own = if joins { lists.after() } else { lists.before() };
    if own.digest() != app.digest {
        let difference = own.first_difference(&app.cluster.lines());
        return refuse(ErrorKind::Config, format!("this node has another node list: {difference}"));
    }
    let store = &app.jobs.shared.store;
    if joins && !store.is_empty() {
        return refuse(ErrorKind::Config, "it is to be added, and its data directory is not empty".to_owned());
    }
    if !joins && !store.knows_all_dirs() {
        let why = "it does not know all its directories yet, as after a lost disk; start all nodes, and try again";
        return refuse(ErrorKind::Busy, why.to_owned());
    }
    let running = app.jobs.records().into_iter().find(|job| job.outcome.is_none());
    if let Some(job) = running {
        return refuse(ErrorKind::Busy, format!("job {} has not ended; wait for it, or cancel it", job.spec.id));
    }
    match app.jobs.shared.running.count() {
        0 => Ok(()),
        count => refuse(ErrorKind::Busy, format!("{count} commands run; try again when they have ended")),
    }
}

/// What would be moved, if a resize can begin.
pub fn check(app: &Arc<App>, body: &[u8], skip_conf: bool) -> Answer {
    let lists: Lists = parse(body)?;
    check_lists(app, &lists)?;
    let (sender, body) = app.channel();
    let app = app.clone();
    tokio::spawn(async move {
        let planning = {
            let (app, lists) = (app.clone(), lists.clone());
            blocking(move || plan(&app, &lists, skip_conf))
        };
        let planned = while_telling(&sender, planning, Moved::default, || ()).await;
        let line = planned.map_or_else(|error| ResizeLine::Error(app.named(error)), ResizeLine::Plan);
        // A client that has disconnected needs no end.
        let _ = send(&sender, &line).await;
    });
    Ok(Response::new(body.boxed_unsync()))
}

/// Blocks. Errors: a file that is no key now would become one.
fn plan(app: &App, lists: &Lists, skip_conf: bool) -> Result<ResizePlan> {
    let (store, sizes) = (&app.jobs.shared.store, lists.sizes());
    if app.resize.is_none() {
        resize::check_begin(store, app.node, lists, Some(&*app.conf).filter(|_| !skip_conf))?;
    }
    let room = store.free_bytes()?.saturating_sub(store.reserve_bytes());
    let (mut plan, mut to) = (ResizePlan { room, ..ResizePlan::default() }, BTreeMap::new());
    store.placed(sizes, &mut |Placed { key, len, before, after }| {
        if before != app.node && after != app.node {
            return Ok(true);
        }
        if before != app.node && app.resize.is_none() {
            let message = "a file of this name lies here, which is no key now and would become one; remove it";
            return Err(Error::new(ErrorKind::AlreadyExists, format!("{key}: {message}")));
        }
        plan.keys += 1;
        plan.bytes += len;
        if after != app.node {
            plan.moved_keys += 1;
            *to.entry(after).or_default() += len;
        }
        Ok(true)
    })?;
    plan.to = to.into_iter().collect();
    Ok(plan)
}

/// Begins a resize. The daemon restarts after the answer.
pub async fn begin(app: &Arc<App>, body: &[u8]) -> Answer {
    let lists: Lists = parse(body)?;
    check_lists(app, &lists)?;
    if app.resize.is_none() {
        let own = app.clone();
        blocking(move || resize::begin(&own.jobs.shared.store, own.node, lists, &own.conf)).await?;
        app.ending.send_replace(Some(Ending::Restart));
    }
    Ok(done())
}

/// Moves this node's keys and directories, for as long as the client listens.
pub fn move_all(app: &Arc<App>) -> Answer {
    let resize = under_way(app)?;
    drop(resize.begin_moving()?);
    let (sender, body) = app.channel();
    let app = app.clone();
    tokio::spawn(async move {
        let line = match moved(&resize, &sender).await {
            Ok(moved) => ResizeLine::End(moved),
            Err(error) => ResizeLine::Error(app.named(error)),
        };
        // A client that has disconnected needs no end.
        let _ = send(&sender, &line).await;
    });
    Ok(Response::new(body.boxed_unsync()))
}

async fn moved(resize: &Arc<Resize>, sender: &ChunkSender) -> Result<Moved> {
    let moving = resize.begin_moving()?;
    let stop = Arc::new(AtomicBool::new(false));
    let work = resize.move_all(&moving, &stop);
    // When the client is gone, what is being sent is brought to its end.
    let gone = || stop.store(true, Ordering::Relaxed);
    while_telling(sender, work, || resize.progress(), gone).await.map(|()| resize.progress())
}

/// Waits for `work`, and sends progress meanwhile. Calls `gone` when the client has disconnected.
async fn while_telling<T>(
    sender: &ChunkSender,
    work: impl Future<Output = T>,
    progress: impl Fn() -> Moved,
    gone: impl Fn(),
) -> T {
    tokio::pin!(work);
    let mut ticks = interval(HEARTBEAT / 2);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            done = &mut work => return done,
            _ = ticks.tick() => if send(sender, &ResizeLine::Progress(progress())).await.is_err() {
                gone();
            }
        }
    }
}

async fn send(sender: &ChunkSender, line: &ResizeLine) -> std::result::Result<(), Disconnected> {
    let mut json = serde_json::to_vec(line).expect("a line is plain JSON");
    json.push(b'\n');
    sender.send_async(json.into()).await
}

pub async fn take_dirs(app: &Arc<App>, body: &[u8]) -> Answer {
    let resize = under_way(app)?;
    let dirs: Vec<MovedDir> = parse(body)?;
    let nodes = resize.lists.after().len();
    if let Some(unknown) = dirs.iter().filter_map(|moved| moved.holder).find(|&holder| holder >= nodes) {
        return Err(Error::new(ErrorKind::BadRequest, format!("there is no node {unknown}")));
    }
    let store = app.jobs.shared.store.clone();
    blocking(move || dirs.iter().try_for_each(|moved| store.take_dir(moved))).await.map(|()| done())
}

pub async fn sync(app: &Arc<App>) -> Answer {
    under_way(app)?;
    let store = app.jobs.shared.store.clone();
    let synced = blocking(move || store.sync().map_err(|e| Error::io(store.root().display(), &e)));
    synced.await.map(|()| done())
}

/// Ends the resize. The daemon restarts after the answer, or ends if it has left the cluster.
pub async fn end(app: &Arc<App>) -> Answer {
    let resize = under_way(app)?;
    let (ending, own) = (resize.clone(), app.clone());
    blocking(move || ending.end(&own.conf)).await?;
    let last = if resize.lists.leaves(app.node) { Ending::Stop } else { Ending::Restart };
    app.ending.send_replace(Some(last));
    Ok(done())
}

/// Takes a key that another node had. One that has arrived before is not stored again.
pub fn take_key(
    app: &App,
    peer: &Peer,
    data: &mut super::data::Data,
    (key, len, attributes): (&Key, u64, Attributes),
) -> Result<Reply> {
    under_way(app)?;
    if app.jobs.shared.store.has_arrived(key, &attributes, len)? {
        data.discard()?;
        return Ok(Reply::Stored);
    }
    let put = Put { key: key.clone(), number: None, delivery: None, metadata: Metadata::default(), part: None };
    super::put::serve(app, peer, data, put, &Owner::of_moved(attributes), &mut None)
}
