//! Small exchanges in a session, each done on the session's own thread.

use super::{keys, parse};
use crate::app::App;
use crate::peer::Peer;
use hyper::body::Incoming;
use hyper::{Request, Response};
use s4::body::BoxBody;
use s4::error::{Error, ErrorKind, Result};
use s4::session::{IDLE, Question, Reply, Session};
use s4::stream;
use std::sync::Arc;

/// Sessions at once, each of them a thread.
const MOST: usize = 256;

pub fn open(app: &Arc<App>, peer: Peer, request: Request<Incoming>) -> Result<Response<BoxBody>> {
    if !stream::is_wanted(request.headers()) {
        return Err(Error::new(ErrorKind::BadRequest, "this route answers with a stream, and none is asked for"));
    }
    if app.sessions.count() >= MOST {
        return Err(Error::new(ErrorKind::Io, "too many sessions"));
    }
    let shared = app.clone();
    let serve = move |stream| serve(&shared, &peer, Session::new(stream));
    Ok(app.sessions.grant(request, IDLE, "a session".to_owned(), serve))
}

fn serve(app: &App, peer: &Peer, mut session: Session) -> Result<()> {
    loop {
        let (json, bytes) = session.listen()?;
        let answered = parse(&json).and_then(|question| answer(app, peer, question, &bytes));
        session.say(&answered.unwrap_or_else(|error| Reply::Failed { error: app.named(error) }), &[]);
    }
}

fn answer(app: &App, peer: &Peer, question: Question, bytes: &[u8]) -> Result<Reply> {
    let store = &app.jobs.shared.store;
    match question {
        Question::Stat { path } => {
            app.watch.requests.count("stat");
            app.names.look_up(&path).map(|stat| Reply::Stat { stat })
        }
        Question::Put { key, checksum, change, put } => {
            app.watch.requests.count("keys");
            keys::put_whole(store, &peer.putting(put), &key, checksum, change, bytes).map(|()| Reply::Stored)
        }
    }
}
