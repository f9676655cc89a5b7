//! Listing and deleting by prefix.

use super::{Answer, EventSender, Pulse};
use crate::app::App;
use crate::route::Listed;
use crate::store::Selection;
use http_body_util::BodyExt;
use hyper::Response;
use s4::body::ChunkSender;
use s4::error::Result;
use s4::key::Prefix;
use s4::placement::NodeId;
use s4::protocol::{Entry, Event, ListingLine};
use s4::skew::Load;
use std::sync::Arc;

/// Bytes of lines gathered into a chunk.
const CHUNK: usize = 64 * 1024;

/// Directories that a delete may leave before it reports them to their homes.
const LEFT: usize = 1000;

pub fn list(app: &Arc<App>, listed: Listed) -> Answer {
    let (sender, body) = app.channel();
    let app = app.clone();
    tokio::task::spawn_blocking(move || {
        let mut lines = Vec::with_capacity(CHUNK);
        let Listed { prefix, recursive, details, made, after } = listed;
        let selection = Selection::Prefix { prefix: &prefix, recursive, details, made, after: &after };
        let listed = fill(&app, &selection, &mut lines, &sender);
        end(listed, lines, &sender);
    });
    Ok(Response::new(body.boxed_unsync()))
}

/// The directories whose home is node `home`, and in which this node holds something.
pub fn held(app: &Arc<App>, home: NodeId) -> Answer {
    let (sender, body) = app.channel();
    let app = app.clone();
    tokio::task::spawn_blocking(move || {
        let mut lines = Vec::with_capacity(CHUNK);
        let mut pulse = Pulse::new();
        let listed = app.jobs.shared.store.held_dirs(home, &mut |path| {
            if let Some(path) = path {
                Entry::Dir { path: format!("{path}/"), stat: None }.line().write(&mut lines);
            }
            if !pulse.is_due() {
                return flush(&mut lines, &sender);
            }
            // Together with the lines so far.
            ListingLine::Alive.write(&mut lines);
            sender.send(std::mem::take(&mut lines).into()).is_ok()
        });
        end(listed, lines, &sender);
    });
    Ok(Response::new(body.boxed_unsync()))
}

fn fill(app: &App, selection: &Selection, lines: &mut Vec<u8>, sender: &ChunkSender) -> Result<()> {
    app.jobs.shared.store.list(selection, &mut |entry| {
        entry.line().write(lines);
        Ok(flush(lines, sender))
    })
}

/// Sends the lines so far, once they fill a chunk. False if the client has disconnected.
fn flush(lines: &mut Vec<u8>, sender: &ChunkSender) -> bool {
    if lines.len() < CHUNK.min(sender.block()) - 2048 {
        return true;
    }
    let chunk = std::mem::replace(lines, Vec::with_capacity(CHUNK));
    sender.send(chunk.into()).is_ok()
}

/// Sends the last lines, and the end or error of the listing.
fn end(listed: Result<()>, mut lines: Vec<u8>, sender: &ChunkSender) {
    let last = listed.map_or_else(ListingLine::Error, |()| ListingLine::End);
    last.write(&mut lines);
    // This fails if the client has disconnected.
    let _ = sender.send(lines.into());
}

pub fn delete(app: &Arc<App>, prefix: Prefix) -> Answer {
    let (sender, body) = app.channel();
    let app = app.clone();
    tokio::task::spawn_blocking(move || {
        let events = EventSender(sender);
        let mut pulse = Pulse::new();
        let store = &app.jobs.shared.store;
        let event = |Load { keys, bytes }, buckets| Event::Deleted { keys, bytes, buckets };
        let deleted = store.remove_prefix(&prefix, |deleted| {
            if store.left() >= LEFT {
                app.names.settle(&mut || {});
            }
            !pulse.is_due() || events.send(&event(deleted, Vec::new())).is_ok()
        });
        let so_far = deleted.as_ref().map_or(Load::default(), |(deleted, _)| *deleted);
        app.names.settle(&mut || {
            if pulse.is_due() {
                // The directories are removed even if the client has disconnected.
                let _ = events.send(&event(so_far, Vec::new()));
            }
        });
        let last = deleted.map_or_else(Event::Error, |(deleted, buckets)| event(deleted, buckets));
        // This fails if the client has disconnected.
        let _ = events.send(&last);
    });
    Ok(Response::new(body.boxed_unsync()))
}
