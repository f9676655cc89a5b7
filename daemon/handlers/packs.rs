//! Many keys in one exchange.

use super::{Answer, json};
use crate::app::{App, BODY_DEADLINE};
use crate::jobs::owner::Owner;
use crate::peer::Peer;
use crate::store::{Draft, Store};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use hyper::{Request, Response};
use s4::body::{self, ChunkSender, Hangup, Side};
use s4::client::{PackItem, Received, blocking};
use s4::error::{Error, ErrorKind, Result};
use s4::frame::FrameWriter;
use s4::key::Key;
use s4::protocol::{Change, Delivery, PACK_KEYS, PackAnswer};
use std::sync::Arc;

/// Publishes each key of the pack as it has come. One that fails does not end the others. A job's are taken only while it
/// goes on.
pub async fn put(app: &Arc<App>, peer: Peer, delivery: Option<Delivery>, request: Request<Incoming>) -> Answer {
    let owner = app.jobs.owner(delivery.as_ref())?;
    let (store, name) = (app.jobs.shared.store.clone(), app.cluster.name(app.node).to_string());
    let chunks = body::reader(request.into_body(), BODY_DEADLINE, Side::Server, "the pack".to_owned());
    let mut pack = Received::new(chunks, Side::Server, name.clone());
    blocking(move || receive(&store, &peer, &owner, &mut pack, &name)).await.map(|answer| json(&answer))
}

fn receive(store: &Arc<Store>, peer: &Peer, owner: &Owner, pack: &mut Received, name: &str) -> Result<PackAnswer> {
    let mut answer = PackAnswer::default();
    let mut draft: Result<Draft> = Err(Error::new(ErrorKind::BadRequest, "no key has begun"));
    let mut dir = None;
    while let Some(item) = pack.next_item()? {
        match item {
            PackItem::Begin(key) => {
                let entered = owner.enter(store, peer, &key, &mut dir);
                draft = entered.and_then(|()| store.draft(&key)).map(|draft| owner.marked(draft));
            }
            PackItem::Piece(bytes) => {
                if let Ok(open) = &mut draft
                    && let Err(error) = open.append(&bytes)
                {
                    draft = Err(error);
                }
            }
            PackItem::Whole(sums) => {
                let ended = std::mem::replace(&mut draft, Err(Error::new(ErrorKind::BadRequest, "no key has begun")));
                match ended.and_then(|draft| owner.publish(|| draft.publish_hashed(peer, &sums, Change::default()))) {
                    Ok(()) => answer.published += 1,
                    Err(error) => answer.refuse(error.by(name)),
                }
            }
            PackItem::Failed(error) => {
                let reason = std::mem::replace(&mut draft, Err(error.clone())).err().unwrap_or(error);
                answer.refuse(reason.by(name));
            }
        }
    }
    Ok(answer)
}

/// Sends the keys that `list` names, one a line.
pub fn get(app: &Arc<App>, list: Vec<u8>) -> Answer {
    let text = String::from_utf8(list).map_err(|_| Error::new(ErrorKind::BadName, "a name is UTF-8"))?;
    let keys = text.lines().map(Key::parse).collect::<Result<Vec<Key>>>()?;
    if keys.len() > PACK_KEYS {
        return Err(Error::new(ErrorKind::TooLarge, format!("a pack has at most {PACK_KEYS} keys")));
    }
    let (sender, body) = app.channel();
    let store = app.jobs.shared.store.clone();
    tokio::task::spawn_blocking(move || {
        // A client that hung up needs no answer.
        let _ = send(&store, &keys, sender);
    });
    Ok(Response::new(body.boxed_unsync()))
}

fn send(store: &Store, keys: &[Key], sender: ChunkSender) -> std::result::Result<(), Hangup> {
    let mut frames = FrameWriter::new(sender);
    for key in keys {
        frames.key(key)?;
        match store.open_key(key) {
            Ok(mut opened) => frames.recorded(&mut opened.file, opened.checksum, |e| store.unreadable(key, e))?,
            Err(error) => frames.fail(&error)?,
        }
    }
    frames.end()
}
