//! Listing and deleting by prefix.

use super::{Answer, EventSender, Pulse};
use crate::app::App;
use crate::store::Selection;
use http_body_util::BodyExt;
use hyper::Response;
use s4::body::ChunkSender;
use s4::error::Result;
use s4::key::Prefix;
use s4::protocol::{Event, LISTING_END, LISTING_ERROR};
use std::sync::Arc;

/// Bytes of lines gathered into a chunk.
const CHUNK: usize = 64 * 1024;

pub fn list(app: &Arc<App>, prefix: Prefix, recursive: bool, details: bool) -> Answer {
    let (sender, body) = app.channel();
    let app = app.clone();
    tokio::task::spawn_blocking(move || {
        let mut lines = Vec::with_capacity(CHUNK);
        let end = match fill(&app, &Selection::Prefix { prefix: &prefix, recursive, details }, &mut lines, &sender) {
            Ok(()) => LISTING_END.to_owned(),
            Err(error) => format!("{LISTING_ERROR}{}", serde_json::to_string(&error).expect("an error is plain JSON")),
        };
        lines.extend_from_slice(end.as_bytes());
        lines.push(b'\n');
        // A client that hung up needs no end.
        let _ = sender.send(lines.into());
    });
    Ok(Response::new(body.boxed_unsync()))
}

fn fill(app: &App, selection: &Selection, lines: &mut Vec<u8>, sender: &ChunkSender) -> Result<()> {
    app.jobs.shared.store.list(selection, &mut |entry| {
        entry.write_line(lines);
        if lines.len() < CHUNK.min(sender.block()) - 2048 {
            return Ok(true);
        }
        let chunk = std::mem::replace(lines, Vec::with_capacity(CHUNK));
        Ok(sender.send(chunk.into()).is_ok())
    })
}

pub fn delete(app: &Arc<App>, prefix: Prefix) -> Answer {
    let (sender, body) = app.channel();
    let app = app.clone();
    tokio::task::spawn_blocking(move || {
        let events = EventSender(sender);
        let mut pulse = Pulse::new();
        let deleted = app
            .jobs
            .shared
            .store
            .remove_prefix(&prefix, |keys| !pulse.is_due() || events.send(&Event::Deleted { keys }).is_ok());
        let last = deleted.map_or_else(Event::Error, |keys| Event::Deleted { keys });
        // A client that hung up needs no end.
        let _ = events.send(&last);
    });
    Ok(Response::new(body.boxed_unsync()))
}
