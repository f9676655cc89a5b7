//! Dispatches each HTTP request to its handler. Every error is sent as JSON and names this node.

use crate::app::{App, BODY_DEADLINE};
use crate::guard;
use crate::handlers::monitoring::{self, Open};
use crate::handlers::{self, Answer};
use crate::peer::Peer;
use crate::request_log::Origin;
use crate::route::Route;
use crate::store::Strays;
use http_body_util::{BodyExt, Limited};
use hyper::body::Incoming;
use hyper::http::uri::PathAndQuery;
use hyper::{Method, Request, Response, StatusCode, Uri};
use s4::body::BoxBody;
use s4::error::{Error, ErrorKind, Result};
use std::convert::Infallible;
use std::fmt;
use std::sync::Arc;

/// Limit of bytes of a body that is read as a whole.
const MAX_BODY: usize = 1 << 20;

/// Answers one request of `peer`. On an extra connection, only urgent requests are served.
pub async fn serve(
    app: Arc<App>,
    peer: Peer,
    request: Request<Incoming>,
    is_extra: bool,
) -> std::result::Result<Response<BoxBody>, Infallible> {
    app.watch.requests.count(request.uri().path());
    let origin = Origin::now(peer.address);
    let what = Line(request.method().clone(), request.uri().clone());
    let answered = match Open::of(request.uri().path()) {
        Some(open) => monitoring::serve(&app, open, &request).await,
        None => match admit(&app, &request, is_extra) {
            Ok(route) => {
                let key = route.key().map(|key| key.as_str().to_owned());
                dispatch(&app, peer.with_headers(request.headers()), route, request)
                    .await
                    .map_err(|error| error.about(key))
            }
            Err(error) => {
                app.requests.refused(origin, &what, &error);
                return Ok(refusal(&app, error));
            }
        },
    };
    app.requests.answered(origin, &what, answered.as_ref().map(drop));
    Ok(answered.unwrap_or_else(|error| refusal(&app, error)))
}

/// How a request is called in the log.
struct Line(Method, Uri);

impl fmt::Display for Line {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let path = self.1.path_and_query().map_or("", PathAndQuery::as_str);
        write!(f, "{} {path}", self.0)
    }
}

/// The route of a request that may be answered.
fn admit(app: &App, request: &Request<Incoming>, is_extra: bool) -> Result<Route> {
    guard::admit(app, request.headers())?;
    let route = Route::parse(request.method(), request.uri().path(), request.uri().query().unwrap_or(""))?;
    match route {
        route if is_extra && !route.is_urgent() => Err(app.crowded()),
        route if route.is_of_resize() => Ok(route),
        route => app.refused_by_resize().map_or(Ok(route), Err),
    }
}

async fn dispatch(app: &Arc<App>, peer: Peer, route: Route, request: Request<Incoming>) -> Answer {
    if route.changes_something(request.method()) {
        peer.check_waiting()?;
    }
    match route {
        Route::Health => handlers::health(app).await,
        Route::Usage => handlers::tree::usage(app).await,
        Route::Status { samples } => monitoring::status::answer(app, samples).await,
        Route::Watch { samples } => {
            guard::refuse_browsers(&app.cluster, request.headers())?;
            monitoring::page::data(app, samples).await
        }
        Route::GetKey(key) => handlers::keys::get(app, peer, key, request).await,
        Route::HeadKey(key) => handlers::keys::head(app, key).await,
        Route::Head(key) => handlers::keys::head_json(app, key).await,
        Route::PutKey { key, change, part } => handlers::keys::put(app, peer, key, (change, part), request).await,
        Route::CreateUpload(key) => handlers::uploads::create(app, key, request).await,
        Route::ListUploads { prefix, after } => handlers::uploads::list(app, prefix, after).await,
        Route::ListParts { key, id, after } => handlers::uploads::list_parts(app, key, id, after).await,
        Route::AbortUpload { key, id } => handlers::uploads::abort(app, peer, key, id).await,
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
        Route::RemoveDir { dir, once_empty } => handlers::tree::remove_dir(app, dir, once_empty).await,
        Route::EnterDirs => handlers::tree::enter(app, peer, whole_body(request).await?).await,
        Route::LeftDirs => handlers::tree::left(app, whole_body(request).await?).await,
        Route::LetGoDirs => handlers::tree::let_go(app, whole_body(request).await?).await,
        Route::AuditDirs(node) => handlers::tree::audit(app, node),
        Route::HeldDirs(home) => handlers::lists::held(app, home),
        Route::List(listed) => handlers::lists::list(app, listed),
        Route::DeletePrefix(prefix) => handlers::lists::delete(app, prefix),
        Route::Scrub { rate, resume, remove_strays } => {
            let strays = if remove_strays { Strays::Remove } else { Strays::Report };
            handlers::scrub::answer(app, rate, resume, strays)
        }
        Route::ResizeState => handlers::resize::state(app),
        Route::CheckResize { skip_conf } => handlers::resize::check(app, &whole_body(request).await?, skip_conf),
        Route::BeginResize => handlers::resize::begin(app, &whole_body(request).await?).await,
        Route::MoveKeys => handlers::resize::move_all(app),
        Route::TakeDirs => handlers::resize::take_dirs(app, &whole_body(request).await?).await,
        Route::SyncMoved => handlers::resize::sync(app).await,
        Route::EndResize => handlers::resize::end(app).await,
        Route::HasFile(digest) => handlers::jobs::has_file(app, digest).await,
        Route::PutFile(digest) => handlers::jobs::put_file(app, digest, request).await,
        Route::SubmitJob { dry_run } => handlers::jobs::submit(app, &peer, &whole_body(request).await?, dry_run).await,
        Route::ListJobs => handlers::jobs::list(app),
        Route::FindJob(id) => handlers::jobs::find(app, &id),
        Route::StartJob { id, follows } => handlers::jobs::start(app, &id, follows, &whole_body(request).await?).await,
        Route::StopJob(id) => handlers::jobs::stop(app, &id),
        Route::CancelJob(id) => handlers::jobs::cancel(app, &id).await,
        Route::FollowJob(id) => handlers::jobs::follow(app, &id).await,
        Route::CleanJob { id, prefix, inputs } => handlers::jobs::clean(app, id, prefix, inputs).await,
        Route::ExistingOutputs { outdir, of } => handlers::jobs::existing_outputs(app, outdir, of),
        Route::Provenance { key, page } => handlers::provenance::of_key(app, key, page).await,
        Route::GiveProvenance(key) => handlers::provenance::give(app, key, whole_body(request).await?).await,
        Route::Why(key) => {
            guard::refuse_browsers(&app.cluster, request.headers())?;
            handlers::provenance::anywhere(app, key).await
        }
        Route::TaskRecord { job, digest, page } => handlers::provenance::of_task(app, job, digest, page).await,
        Route::JobLogs { id, key } => handlers::jobs::logs(app, id, key).await,
    }
}

/// The response for an error. Names this node.
fn refusal(app: &App, error: Error) -> Response<BoxBody> {
    let error = app.named(error);
    let status = StatusCode::from_u16(error.kind().http_status()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let mut response = handlers::json(&error);
    *response.status_mut() = status;
    response
}

/// Reads a small body as a whole.
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
