//! A connection that carries frames. Requests of s4's programs are answered in their order, each completely before the
//! next.

use super::data::Data;
use super::{Answer, commands, get, parse, put, resize, uploads};
use crate::app::{App, BODY_DEADLINE};
use crate::peer::Peer;
use crate::request_log::Origin;
use crate::store::Receiving;
use hyper::body::Incoming;
use hyper::{Request as HttpRequest, Response as HttpResponse};
use s4::body::BoxBody;
use s4::client::blocking;
use s4::error::{Error, ErrorKind, Result};
use s4::key::Key;
use s4::wire::{self, Connection, IDLE, REQUEST_HEADER, Request, Response};
use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// How long a thread waits for the next request. After that, the connection waits without a thread.
const LINGER: Duration = Duration::from_millis(20);

pub fn open(app: &Arc<App>, peer: Peer, request: HttpRequest<Incoming>) -> Answer {
    if !wire::is_wanted(request.headers()) {
        return Err(Error::new(ErrorKind::BadRequest, "this route answers with a connection, and none is asked for"));
    }
    let first = request.headers().get(REQUEST_HEADER).map(|json| parse(json.as_bytes())).transpose()?;
    first.iter().for_each(|first| count(app, first));
    Ok(grant(app, peer, request, first))
}

/// Counts a request by its kind.
fn count(app: &App, request: &Request) {
    match request {
        Request::Stat { .. } => app.watch.requests.count("stat"),
        Request::Get { .. } | Request::Put(_) | Request::Move { .. } => app.watch.requests.count("keys"),
        Request::Eval { .. } => app.watch.requests.count("eval"),
        Request::Run { .. } => app.watch.requests.count("run"),
        Request::Try { .. } => app.watch.requests.count("try"),
        Request::Complete { .. } => app.watch.requests.count("uploads"),
        Request::PutEnd(_) | Request::End | Request::Ping => {}
    }
}

/// How a request is called in the log.
struct Line {
    kind: &'static str,
    /// Of a key, or of what a `Stat` asks about.
    path: Option<String>,
}

impl Line {
    fn of(request: &Request) -> Self {
        let kind = match request {
            Request::Stat { .. } => "stat",
            Request::Get { .. } => "get",
            Request::Put { .. } => "put",
            Request::Move { .. } => "move",
            Request::Eval { .. } => "eval",
            Request::Run { .. } => "run",
            Request::Try { .. } => "try",
            Request::Complete { .. } => "complete",
            Request::PutEnd(_) | Request::End => "end",
            Request::Ping => "ping",
        };
        let path = match request {
            Request::Stat { path } => Some(path.as_str()),
            other => other.key().map(Key::as_str),
        };
        Self { kind, path: path.map(str::to_owned) }
    }
}

impl fmt::Display for Line {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.path {
            Some(path) => write!(f, "{} s4://{path}", self.kind),
            None => f.write_str(self.kind),
        }
    }
}

/// The response that upgrades the connection. `first` was counted already, and is answered first.
pub fn grant(
    app: &Arc<App>,
    peer: Peer,
    request: HttpRequest<Incoming>,
    first: Option<Request>,
) -> HttpResponse<BoxBody> {
    let served = app.clone();
    app.upgrades.grant(request, BODY_DEADLINE, move |connection| serve(served, peer, connection, first))
}

async fn serve(app: Arc<App>, peer: Peer, mut connection: Connection, mut first: Option<Request>) -> Result<()> {
    loop {
        if first.is_none() && !connection.has_unparsed() {
            let is_asked = tokio::select! {
                is_asked = connection.idle(IDLE) => is_asked.unwrap_or(false),
                // Requests that have arrived by then are answered.
                () = app.upgrades.ends() => connection.wait_to_receive(Duration::ZERO, None),
            };
            if !is_asked {
                return Ok(());
            }
        }
        let (serving, peer, first) = (app.clone(), peer.clone(), first.take());
        connection = blocking(move || serve_while_asked(&serving, &peer, connection, first)).await?;
    }
}

/// Answers requests until none has come for [`LINGER`].
fn serve_while_asked(
    app: &Arc<App>,
    peer: &Peer,
    mut connection: Connection,
    mut next: Option<Request>,
) -> Result<Connection> {
    // The directory copy for the task whose outputs are being received, until all outputs received so far are answered.
    let mut receiving = None;
    loop {
        let request = match next.take() {
            Some(request) => request,
            None => {
                if !connection.has_unparsed() {
                    // The receiver of the last answer may delete everything at once. Then this node must not answer that it holds
                    // the directory.
                    receiving = None;
                    connection.flush()?;
                    let wait = if app.upgrades.is_ending() { Duration::ZERO } else { LINGER };
                    if !connection.wait_to_receive(wait, None) {
                        return Ok(connection);
                    }
                    if connection.is_closed() {
                        return Err(connection.broken(&std::io::ErrorKind::UnexpectedEof.into()));
                    }
                }
                let request = next_request(&mut connection).map_err(|error| {
                    app.requests.answered(Origin::now(peer.address), &"a request", Err(&error));
                    last_words(app, &mut connection, error)
                })?;
                count(app, &request);
                request
            }
        };
        answer(app, peer, &mut connection, request, &mut receiving)?;
    }
}

fn next_request(connection: &mut Connection) -> Result<Request> {
    match connection.receive_until(Instant::now() + IDLE, None)? {
        Some(wire::Incoming::Message(request)) => Ok(request),
        Some(_) => Err(connection.malformed("data or an error where a request is expected")),
        None => Err(connection.malformed("a request that does not come to its end")),
    }
}

/// Reports why the connection ends, if the position of the next request is not known. Returns the reason.
fn last_words(app: &App, connection: &mut Connection, reason: Error) -> Error {
    let reason = app.named(reason);
    if !connection.is_cut_off() {
        // This fails if the peer has disconnected.
        let _ = connection.put_error(&reason).and_then(|()| connection.flush());
    }
    reason
}

/// Errors: of the connection, which then ends. Errors of the request are sent as its response.
fn answer(
    app: &Arc<App>,
    peer: &Peer,
    connection: &mut Connection,
    request: Request,
    receiving: &mut Option<Receiving>,
) -> Result<()> {
    let has_data = request.has_data();
    let key = request.key().map(|key| key.as_str().to_owned());
    let (origin, line) = (Origin::now(peer.address), Line::of(&request));
    let mut data = Data::of(connection, has_data);
    let answered = match (request, app.refused_by_resize()) {
        (Request::Move { key, len, attributes }, _) => resize::take_key(app, peer, &mut data, (&key, len, attributes)),
        (_, Some(refused)) => Err(refused),
        (Request::Stat { path }, None) => app.names.look_up(&path).map(Response::Stat),
        (Request::Get { key, part }, None) => get::serve(app, data.connection, &key, part),
        (Request::Put(put), None) => app
            .jobs
            .owner(put.delivery.as_ref())
            .and_then(|owner| put::serve(app, &peer.with_put(put.number), &mut data, put, &owner, receiving)),
        (Request::Eval { key, files }, None) => commands::eval(app, peer, &mut data, Some(&key), &files),
        (Request::Run { files }, None) => commands::eval(app, peer, &mut data, None, &files),
        (Request::Try { key }, None) => commands::attempt(app, peer, &mut data, &key),
        (Request::Complete { key, upload, change }, None) => {
            uploads::complete(app, peer, &mut data, &key, &upload, change)
        }
        (Request::Ping, None) => Ok(Response::End),
        (Request::PutEnd(_) | Request::End, None) => {
            Err(data.connection.malformed("the end of data that has not begun"))
        }
    };
    app.requests.answered(origin, &line, answered.as_ref().map(drop));
    match answered {
        Ok(response) => data.connection.put_message(&response),
        Err(error) if data.connection.is_lost() => Err(last_words(app, data.connection, error.about(key))),
        Err(error) => {
            data.connection.put_error(&app.named(error.about(key)))?;
            data.skip()
        }
    }
}
