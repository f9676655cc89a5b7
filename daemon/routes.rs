//! HTTP in: what is asked, and which handler answers. Every error leaves here as JSON, naming this node.

use crate::app::{App, BODY_DEADLINE};
use crate::guard;
use crate::handlers::monitoring::{self, Open};
use crate::handlers::{self, Answer};
use crate::peer::Peer;
use http_body_util::{BodyExt, Limited};
use hyper::body::Incoming;
use hyper::{Method, Request, Response, StatusCode};
use percent_encoding::percent_decode_str;
use s4::body::BoxBody;
use s4::checksum::Checksum;
use s4::error::{Error, ErrorKind, Result};
use s4::key::{Dir, Key, Prefix};
use s4::placement::NodeId;
use s4::protocol::{Change, JobId};
use std::convert::Infallible;
use std::str::FromStr;
use std::sync::Arc;

/// The longest body that is read whole, in bytes.
const MAX_BODY: usize = 1 << 20;

/// What can be asked.
enum Route {
    Health,
    Usage,
    Status { samples: Option<usize> },
    Watch { samples: Option<usize> },
    GetKey(Key),
    PutKey { key: Key, change: Change },
    DeleteKey { key: Key, keep_dirs: bool, only: Option<Checksum> },
    AdoptKey(Key),
    ChangeKey(Key),
    RenameKey { from: Key, to: Key },
    Stat(Dir),
    Made(Key),
    Connect,
    MakeDir(Dir),
    HoldsDir(Dir),
    ChangeDir(Dir),
    RemoveDir(Dir),
    EnterDirs,
    LeftDirs,
    LetGoDirs,
    AuditDirs(NodeId),
    HeldDirs(NodeId),
    List { prefix: Prefix, recursive: bool, details: bool },
    DeletePrefix(Prefix),
    SubmitJob { dry_run: bool },
    HasFile(String),
    PutFile(String),
    ListJobs,
    FindJob(JobId),
    StartJob { id: JobId, follows: bool },
    StopJob(JobId),
    CancelJob(JobId),
    FollowJob(JobId),
    CleanJob { id: JobId, prefix: Prefix, inputs: u64 },
    Standing { outdir: Dir, of: NodeId },
    JobLogs { id: JobId, key: Option<Key> },
}

/// Answers one request of `peer`; on an extra connection, only how the node is, and how to end jobs.
pub async fn serve(
    app: Arc<App>,
    peer: Peer,
    request: Request<Incoming>,
    is_extra: bool,
) -> std::result::Result<Response<BoxBody>, Infallible> {
    app.monitoring.requests.count(request.uri().path());
    let answered = match Open::of(request.uri().path()) {
        Some(open) => monitoring::serve(&app, open, &request).await,
        None => match guard::admit(&app, request.headers()).and_then(|()| route(&request)) {
            Ok(route) if is_extra && !route.is_urgent() => Err(crowded(&app)),
            Ok(route) => {
                let key = route.key().map(|key| key.as_str().to_owned());
                dispatch(&app, peer.asking(request.headers()), route, request).await.map_err(|error| error.about(key))
            }
            Err(error) => Err(error),
        },
    };
    Ok(answered.unwrap_or_else(|error| refusal(&app, error)))
}

impl Route {
    /// The key that is asked for, if it is one.
    fn key(&self) -> Option<&Key> {
        match self {
            Self::GetKey(key)
            | Self::PutKey { key, .. }
            | Self::DeleteKey { key, .. }
            | Self::AdoptKey(key)
            | Self::ChangeKey(key)
            | Self::RenameKey { from: key, .. }
            | Self::Made(key) => Some(key),
            _ => None,
        }
    }

    /// True of what has to be answered also where there are too many connections.
    fn is_urgent(&self) -> bool {
        matches!(self, Self::Health | Self::Status { .. } | Self::Watch { .. } | Self::CancelJob(_))
    }
}

fn crowded(app: &App) -> Error {
    let count = app.connections.count();
    Error::new(ErrorKind::Busy, format!("it has {count} connections, and takes no more for now; try again later"))
}

async fn dispatch(app: &Arc<App>, peer: Peer, route: Route, request: Request<Incoming>) -> Answer {
    if changes_something(&route, request.method()) {
        peer.is_waiting()?;
    }
    match route {
        Route::Health => handlers::health(app).await,
        Route::Usage => handlers::tree::usage(app).await,
        Route::Status { samples } => monitoring::status::answer(app, samples).await,
        Route::Watch { samples } => {
            guard::check(&app.cluster, request.headers())?;
            monitoring::page::data(app, samples).await
        }
        Route::GetKey(key) => handlers::keys::get(app, peer, key, request).await,
        Route::PutKey { key, change } => handlers::keys::put(app, peer, key, change, request).await,
        Route::DeleteKey { key, keep_dirs, only } => handlers::keys::delete(app, key, keep_dirs, only).await,
        Route::AdoptKey(key) => handlers::tree::adopt(app, peer, key, whole_body(request).await?).await,
        Route::ChangeKey(key) => handlers::tree::change(app, key, whole_body(request).await?).await,
        Route::RenameKey { from, to } => handlers::tree::rename(app, peer, from, to).await,
        Route::Connect => handlers::connection::open(app, peer, request),
        Route::Stat(path) => handlers::tree::stat(app, path).await,
        Route::Made(key) => handlers::keys::made(app, peer, key).await,
        Route::MakeDir(dir) => handlers::tree::make_dir(app, peer, dir, whole_body(request).await?).await,
        Route::HoldsDir(dir) => handlers::tree::holds_dir(app, dir).await,
        Route::ChangeDir(dir) => handlers::tree::change_dir(app, dir, whole_body(request).await?).await,
        Route::RemoveDir(dir) => handlers::tree::remove_dir(app, dir).await,
        Route::EnterDirs => handlers::tree::enter(app, peer, whole_body(request).await?).await,
        Route::LeftDirs => handlers::tree::left(app, whole_body(request).await?).await,
        Route::LetGoDirs => handlers::tree::let_go(app, whole_body(request).await?).await,
        Route::AuditDirs(node) => handlers::tree::audit(app, node),
        Route::HeldDirs(home) => handlers::lists::held(app, home),
        Route::List { prefix, recursive, details } => handlers::lists::list(app, prefix, recursive, details),
        Route::DeletePrefix(prefix) => handlers::lists::delete(app, prefix),
        Route::HasFile(digest) => handlers::jobs::has_file(app, digest).await,
        Route::PutFile(digest) => handlers::jobs::put_file(app, digest, request).await,
        Route::SubmitJob { dry_run } => handlers::jobs::submit(app, &whole_body(request).await?, dry_run).await,
        Route::ListJobs => handlers::jobs::list(app),
        Route::FindJob(id) => handlers::jobs::find(app, &id),
        Route::StartJob { id, follows } => handlers::jobs::start(app, &id, follows).await,
        Route::StopJob(id) => handlers::jobs::stop(app, &id),
        Route::CancelJob(id) => handlers::jobs::cancel(app, &id).await,
        Route::FollowJob(id) => handlers::jobs::follow(app, &id).await,
        Route::CleanJob { id, prefix, inputs } => handlers::jobs::clean(app, id, prefix, inputs).await,
        Route::Standing { outdir, of } => handlers::jobs::standing(app, outdir, of),
        Route::JobLogs { id, key } => handlers::jobs::logs(app, id, key).await,
    }
}

/// True of what is not to be done for one who waits no longer. What ends something is always meant.
fn changes_something(route: &Route, method: &Method) -> bool {
    *method != Method::GET && !matches!(route, Route::StopJob(_) | Route::CancelJob(_))
}

/// An error as the answer, naming this node.
fn refusal(app: &App, error: Error) -> Response<BoxBody> {
    let error = app.named(error);
    let status = StatusCode::from_u16(error.kind().http_status()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let mut response = handlers::json(&error);
    *response.status_mut() = status;
    response
}

/// One line for each route; what its query tells is parsed by a function of its own.
fn route(request: &Request<Incoming>) -> Result<Route> {
    let uri = request.uri();
    let unknown = || Error::new(ErrorKind::NotFound, format!("no such route: {}", uri.path().escape_debug()));
    let path = uri.path().strip_prefix("/v1/").ok_or_else(unknown)?;
    let (head, rest) = path.split_once('/').unwrap_or((path, ""));
    let query = uri.query().unwrap_or("");
    match (request.method(), head, rest) {
        (&Method::GET, "health", "") => Ok(Route::Health),
        (&Method::GET, "usage", "") => Ok(Route::Usage),
        (&Method::GET, "status", "") => samples(query).map(|samples| Route::Status { samples }),
        (&Method::GET, "watch", "") => samples(query).map(|samples| Route::Watch { samples }),
        (&Method::GET, "keys", key) => parse_key(key).map(Route::GetKey),
        (&Method::PUT, "keys", key) => Ok(Route::PutKey { key: parse_key(key)?, change: born_with(query)? }),
        (&Method::DELETE, "keys", key) => delete_route(key, query),
        (&Method::POST, "adopt", key) => parse_key(key).map(Route::AdoptKey),
        (&Method::POST, "change", key) => parse_key(key).map(Route::ChangeKey),
        (&Method::POST, "rename", key) => rename_route(key, query),
        (&Method::GET, "stat", path) => parse_dir(path).map(Route::Stat),
        (&Method::GET, "made", key) => parse_key(key).map(Route::Made),
        (&Method::POST, "connect", "") => Ok(Route::Connect),
        (&Method::PUT, "dirs", dir) => parse_dir(dir).map(Route::MakeDir),
        (&Method::GET, "dirs", dir) => parse_dir(dir).map(Route::HoldsDir),
        (&Method::POST, "dirs", dir) => parse_dir(dir).map(Route::ChangeDir),
        (&Method::DELETE, "dirs", dir) => parse_dir(dir).map(Route::RemoveDir),
        (&Method::POST, "names", "enter") => Ok(Route::EnterDirs),
        (&Method::POST, "names", "left") => Ok(Route::LeftDirs),
        (&Method::POST, "names", "let_go") => Ok(Route::LetGoDirs),
        (&Method::POST, "names", "audit") => number(query, "node").map(Route::AuditDirs),
        (&Method::GET, "names", "held") => number(query, "home").map(Route::HeldDirs),
        (&Method::GET, "list", "") => list_route(query),
        (&Method::POST, "delete", "") => delete_prefix_route(query),
        (&Method::GET, "files", digest) => Ok(Route::HasFile(digest.to_owned())),
        (&Method::PUT, "files", digest) => Ok(Route::PutFile(digest.to_owned())),
        (&Method::GET, "standing", "") => standing_route(query),
        (&Method::POST, "jobs", "") => is_true(query, "dry_run").map(|dry_run| Route::SubmitJob { dry_run }),
        (&Method::GET, "jobs", "") => Ok(Route::ListJobs),
        (method, "jobs", job) => job_route(method, job, query).ok_or_else(unknown)?,
        (method, head, rest) if is_route(head, rest) => Err(wrong_method(method)),
        _ => Err(unknown()),
    }
}

/// True of a path that some method has, but for those of jobs.
fn is_route(head: &str, rest: &str) -> bool {
    match head {
        "health" | "usage" | "status" | "watch" | "list" | "delete" | "connect" | "standing" => rest.is_empty(),
        "keys" | "files" | "adopt" | "change" | "rename" | "stat" | "made" | "dirs" => true,
        "names" => matches!(rest, "enter" | "left" | "let_go" | "audit" | "held"),
        _ => false,
    }
}

fn delete_route(key: &str, query: &str) -> Result<Route> {
    Ok(Route::DeleteKey { key: parse_key(key)?, keep_dirs: is_true(query, "keep_dirs")?, only: checksum(query)? })
}

fn rename_route(from: &str, query: &str) -> Result<Route> {
    let to = field(query, "to")?;
    Ok(Route::RenameKey { from: parse_key(from)?, to: Key::parse(&to)? })
}

fn list_route(query: &str) -> Result<Route> {
    let prefix = Prefix::parse(&query_value(query, "prefix")?.unwrap_or_default())?;
    Ok(Route::List { prefix, recursive: is_true(query, "recursive")?, details: is_true(query, "details")? })
}

fn delete_prefix_route(query: &str) -> Result<Route> {
    let prefix = field(query, "prefix")?;
    match prefix.is_empty() {
        true => Err(Error::new(ErrorKind::BadRequest, "an empty prefix would delete everything")),
        false => Prefix::parse(&prefix).map(Route::DeletePrefix),
    }
}

fn standing_route(query: &str) -> Result<Route> {
    Ok(Route::Standing { outdir: Dir::try_from(field(query, "outdir")?)?, of: number(query, "node")? })
}

fn malformed(name: &str) -> Error {
    Error::new(ErrorKind::BadRequest, format!("the query's {name} is malformed"))
}

fn missing(name: &str) -> Error {
    Error::new(ErrorKind::BadRequest, format!("the query has no {name}"))
}

/// A field of the query that has to be there.
fn field(query: &str, name: &str) -> Result<String> {
    query_value(query, name)?.ok_or_else(|| missing(name))
}

fn number<T: FromStr>(query: &str, name: &str) -> Result<T> {
    field(query, name)?.parse().map_err(|_| malformed(name))
}

fn is_true(query: &str, name: &str) -> Result<bool> {
    Ok(query_value(query, name)?.is_some_and(|value| value == "true"))
}

fn checksum(query: &str) -> Result<Option<Checksum>> {
    query_value(query, "checksum")?.map(|sum| sum.parse().map_err(|()| malformed("checksum"))).transpose()
}

/// What a key is born with.
fn born_with(query: &str) -> Result<Change> {
    let mode = query_value(query, "mode")?.map(|text| u32::from_str_radix(&text, 8).map_err(|_| malformed("mode")));
    let mtime = query_value(query, "mtime")?.map(|text| text.parse().map_err(|_| malformed("mtime")));
    Ok(Change { mode: mode.transpose()?, mtime: mtime.transpose()?, over_empty: is_true(query, "over_empty")? })
}

/// `None` for a path that no method has.
fn job_route(method: &Method, path: &str, query: &str) -> Option<Result<Route>> {
    let (id, action) = path.split_once('/').unwrap_or((path, ""));
    let with_id = |make: fn(JobId) -> Route| JobId::try_from(id.to_owned()).map(make);
    Some(match (method, action) {
        (&Method::GET, "") if !id.is_empty() => with_id(Route::FindJob),
        (&Method::DELETE, "") if !id.is_empty() => with_id(Route::CancelJob),
        (&Method::POST, "start") => start_route(id, query),
        (&Method::POST, "stop") => with_id(Route::StopJob),
        (&Method::GET, "events") => with_id(Route::FollowJob),
        (&Method::POST, "clean") => clean_route(id, query),
        (&Method::GET, "logs") => logs_route(id, query),
        (_, "" | "start" | "stop" | "events" | "clean" | "logs") => Err(wrong_method(method)),
        _ => return None,
    })
}

fn start_route(id: &str, query: &str) -> Result<Route> {
    Ok(Route::StartJob { id: JobId::try_from(id.to_owned())?, follows: is_true(query, "follow")? })
}

fn clean_route(id: &str, query: &str) -> Result<Route> {
    let prefix = query_value(query, "prefix")?.unwrap_or_default();
    let inputs = query_value(query, "inputs")?.ok_or_else(|| malformed("inputs"))?;
    let inputs = u64::from_str_radix(&inputs, 16).map_err(|_| malformed("inputs"))?;
    Ok(Route::CleanJob { id: JobId::try_from(id.to_owned())?, prefix: Prefix::parse(&prefix)?, inputs })
}

fn logs_route(id: &str, query: &str) -> Result<Route> {
    let key = query_value(query, "key")?.map(|key| Key::parse(&key)).transpose()?;
    Ok(Route::JobLogs { id: JobId::try_from(id.to_owned())?, key })
}

fn wrong_method(method: &Method) -> Error {
    Error::new(ErrorKind::MethodNotAllowed, format!("this route does not take {method}"))
}

fn parse_key(path: &str) -> Result<Key> {
    Key::parse(&decode(path)?)
}

fn parse_dir(path: &str) -> Result<Dir> {
    Dir::try_from(decode(path)?)
}

fn samples(query: &str) -> Result<Option<usize>> {
    let wrong = |_| Error::new(ErrorKind::BadRequest, "the query's samples is no number");
    query_value(query, "samples")?.map(|value| value.parse().map_err(wrong)).transpose()
}

fn decode(text: &str) -> Result<String> {
    let malformed = || {
        Error::new(
            ErrorKind::BadRequest,
            format!("'{}': a % is followed by two hexadecimal digits", text.escape_debug()),
        )
    };
    let mut escapes = text.split('%').skip(1);
    if !escapes.all(|rest| rest.len() >= 2 && rest.bytes().take(2).all(|b| b.is_ascii_hexdigit())) {
        return Err(malformed());
    }
    let decoded = percent_decode_str(text).decode_utf8();
    decoded
        .map(String::from)
        .map_err(|_| Error::new(ErrorKind::BadName, format!("'{}': a name is UTF-8", text.escape_debug())))
}

fn query_value(query: &str, name: &str) -> Result<Option<String>> {
    let pairs = query.split('&').filter_map(|pair| pair.split_once('='));
    pairs.filter(|(given, _)| *given == name).map(|(_, value)| decode(value)).next().transpose()
}

/// A small body, whole.
async fn whole_body(request: Request<Incoming>) -> Result<Vec<u8>> {
    let collect = Limited::new(request.into_body(), MAX_BODY).collect();
    match tokio::time::timeout(BODY_DEADLINE, collect).await {
        Ok(Ok(body)) => Ok(body.to_bytes().into()),
        Ok(Err(error)) if error.is::<http_body_util::LengthLimitError>() => {
            Err(Error::new(ErrorKind::TooLarge, format!("the body is longer than {MAX_BODY} bytes")))
        }
        Ok(Err(error)) => Err(Error::new(ErrorKind::BadRequest, format!("the body broke off: {error}"))),
        Err(_) => Err(Error::new(ErrorKind::RequestTimeout, "the body stalled")),
    }
}
