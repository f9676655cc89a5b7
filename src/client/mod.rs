//! Talking to a cluster: requests to its nodes over kept connections, each within a deadline.

mod cluster_job;
pub mod cluster_view;
mod connect;
mod dirs;
pub mod job_table;
mod jobs;
mod keys;
mod lines;
mod listing;
mod local;
mod outcome;
mod sessions;
mod tree;
mod unfinished;

pub use cluster_job::NodeEvent;
pub use dirs::HeldDirs;
pub use jobs::EventStream;
pub use keys::{PackItem, Received};
pub use listing::Listing;
pub use sessions::with_moments;

use crate::body::{self, Activity, BoxBody, Chunks, Side};
use crate::cluster::{self, Cluster};
use crate::error::{Error, ErrorKind, Result};
use crate::placement::NodeId;
use crate::protocol::{self, CLUSTER_HEADER, Health, PUT_HEADER, SECRET_HEADER, WAITS_HEADER};
use crate::stream::{self, Stream};
use crate::timeout::{Liveness, Timeout, within};
use bytes::{Bytes, BytesMut};
use connect::Connector;
use hyper::body::Incoming;
use hyper::header::HeaderValue;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::client::legacy;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

/// The longest JSON answer that is read whole, in bytes.
const MAX_ANSWER: u64 = 1024 * 1024;
/// Shorter than the daemon keeps an idle connection, so that a request seldom meets one that is closing.
const IDLE: Duration = Duration::from_secs(30);

/// How often a question is asked whose answer breaks off, or a transfer goes on from where it broke off, without any progress.
pub const TRIES: usize = 4;

/// How long a request to a node that was silent waits for it to answer again.
const FAIL_FAST: Duration = Duration::from_millis(200);

/// How requests are sent.
#[derive(Clone)]
pub struct Settings {
    /// How long a node may be silent.
    pub deadline: Duration,
    pub secret: Option<Secret>,
    /// How long a daemon that refuses connections is waited for: one that restarts is back soon.
    pub restart: Duration,
}

impl Default for Settings {
    fn default() -> Self {
        Self { deadline: protocol::DEADLINE, secret: None, restart: protocol::RESTART }
    }
}

/// The shared secret that daemons may ask for.
#[derive(Clone)]
pub struct Secret(HeaderValue);

impl Secret {
    /// The one in the file `given`, else the cluster file's own, if it has one: see [`Secret::beside`].
    pub fn find(given: Option<&Path>, conf: Option<&Path>) -> Result<Option<Self>> {
        if let Some(given) = given {
            return Self::read(given).map(Some);
        }
        let own = Self::beside(&cluster::conf_path(conf)?);
        match own.symlink_metadata() {
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(None),
            _ => Self::read(&own).map(Some),
        }
    }

    /// Where the cluster file `conf` has its secret: in the same directory, by its name and `.secret`.
    pub fn beside(conf: &Path) -> PathBuf {
        let mut path = conf.as_os_str().to_owned();
        path.push(".secret");
        path.into()
    }

    /// As it is sent.
    pub fn as_text(&self) -> &str {
        self.0.to_str().unwrap_or_default()
    }

    /// The first line of the file at `path`.
    pub fn read(path: &Path) -> Result<Self> {
        let shown = path.display();
        let refuse = |why: &str| Error::new(ErrorKind::Config, format!("{shown}: {why}"));
        let text = std::fs::read_to_string(path).map_err(|e| refuse(&crate::error::reason(&e)))?;
        let line = text.lines().next().unwrap_or("").trim();
        if line.len() < 16 {
            return Err(refuse("a secret is at least 16 characters"));
        }
        let mut value = HeaderValue::from_str(line).map_err(|_| refuse("a secret is printable ASCII"))?;
        value.set_sensitive(true);
        Ok(Self(value))
    }

    /// Compares in a time that does not depend on where the two differ.
    pub fn matches(&self, given: &HeaderValue) -> bool {
        let (ours, theirs) = (self.0.as_bytes(), given.as_bytes());
        let differing = ours.iter().zip(theirs).fold(0, |all, (a, b)| all | (a ^ b));
        ours.len() == theirs.len() && differing == 0
    }
}

/// A handle on a cluster. Clones share their connections, and what they know of the nodes.
#[derive(Clone)]
pub struct Client {
    inner: Arc<Inner>,
    deadline: Duration,
    /// What it puts, if it is that put's own.
    put: Option<outcome::Put>,
}

struct Inner {
    cluster: Cluster,
    digest: HeaderValue,
    settings: Settings,
    /// Of each node. One that was silent for a deadline is not waited for again until it answers.
    liveness: Vec<Liveness>,
    http: legacy::Client<Connector, BoxBody>,
    /// With each node.
    sessions: Vec<sessions::Pool>,
}

impl Client {
    pub fn new(cluster: Cluster, settings: Settings) -> Self {
        let http = legacy::Client::builder(TokioExecutor::new())
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(IDLE)
            .build(Connector::new(settings.restart, settings.deadline));
        let digest = HeaderValue::from_str(&cluster.digest()).expect("hexadecimal digits make a header");
        let liveness = cluster.ids().map(|_| Liveness::default()).collect();
        let sessions = cluster.ids().map(|_| sessions::Pool::new()).collect();
        let deadline = settings.deadline;
        Self { inner: Arc::new(Inner { cluster, digest, settings, liveness, http, sessions }), deadline, put: None }
    }

    pub fn cluster(&self) -> &Cluster {
        &self.inner.cluster
    }

    pub fn deadline(&self) -> Duration {
        self.deadline
    }

    /// The same client with another deadline.
    pub fn with_deadline(&self, deadline: Duration) -> Self {
        Self { deadline, ..self.clone() }
    }

    /// A wait for something of `node`, within the deadline.
    pub fn timeout(&self, node: NodeId) -> Timeout {
        Timeout::of(&self.inner.liveness[node], self.deadline)
    }

    /// How long a node may be silent that reads or writes `len` bytes before it answers.
    pub fn patience(&self, len: u64) -> Duration {
        protocol::patience(self.deadline(), len)
    }

    /// The same client, with that patience.
    pub fn patient(&self, len: u64) -> Self {
        self.with_deadline(self.patience(len))
    }

    /// What `node` says of itself.
    pub async fn health(&self, node: NodeId) -> Result<Health> {
        let response = self.send(node, Method::GET, "/v1/health", body::empty(), &Activity::default()).await?;
        self.json(node, response).await
    }

    /// Sends a request and awaits the head of its answer. An answer other than 2xx is its error, naming the node.
    async fn send(
        &self,
        node: NodeId,
        method: Method,
        path: &str,
        body: BoxBody,
        activity: &Activity,
    ) -> Result<Response<Incoming>> {
        if self.is_silent(node).await {
            return Err(self.late(node));
        }
        if method == Method::GET {
            let ask = || self.send_now(node, Method::GET, path, body::empty(), activity);
            return again_if_broken(ask).await;
        }
        self.send_now(node, method, path, body, activity).await
    }

    async fn send_now(
        &self,
        node: NodeId,
        method: Method,
        path: &str,
        body: BoxBody,
        activity: &Activity,
    ) -> Result<Response<Incoming>> {
        let request = self.request(node, method, path, body)?;
        self.exchange(node, request, activity).await
    }

    async fn exchange(
        &self,
        node: NodeId,
        request: Request<BoxBody>,
        activity: &Activity,
    ) -> Result<Response<Incoming>> {
        let timeout = self.timeout(node);
        let answer = activity.watch(self.inner.http.request(request), timeout.clone()).await;
        let response = match answer {
            Some(Ok(response)) => response,
            Some(Err(error)) => {
                if body::cause(&error).is_silence() {
                    timeout.end();
                }
                return Err(self.unreachable(node, &error));
            }
            None => return Err(self.late(node)),
        };
        self.inner.liveness[node].hear();
        match response.status() {
            // A stream, only where one was asked for.
            StatusCode::SWITCHING_PROTOCOLS => Ok(response),
            status if status.is_success() => Ok(response),
            _ => Err(self.refusal(node, response).await),
        }
    }

    /// Sends a request without a body that asks for a stream, which the node may grant.
    async fn send_for_stream(&self, node: NodeId, method: Method, path: &str) -> Result<Response<Incoming>> {
        if self.is_silent(node).await {
            return Err(self.late(node));
        }
        let ask = || async {
            let mut request = self.request(node, method.clone(), path, body::empty())?;
            stream::mark(request.headers_mut());
            self.exchange(node, request, &Activity::default()).await
        };
        // A stream carries nothing yet when it is asked for.
        again_if_broken(ask).await
    }

    /// The stream that the answer grants; the answer itself if it grants none.
    async fn granted(
        &self,
        response: Response<Incoming>,
        node: NodeId,
        who: String,
    ) -> Result<std::result::Result<Stream, Response<Incoming>>> {
        if response.status() != StatusCode::SWITCHING_PROTOCOLS {
            return Ok(Err(response));
        }
        Stream::take(hyper::upgrade::on(response), self.timeout(node), Side::Client, who).await.map(Ok)
    }

    /// True if `node` was silent for a deadline and does not answer now either.
    async fn is_silent(&self, node: NodeId) -> bool {
        let liveness = &self.inner.liveness[node];
        if !liveness.is_silent(self.deadline) {
            return false;
        }
        self.ask_again(node);
        within(FAIL_FAST, liveness.speaks()).await.is_none()
    }

    /// Has a node that is silent be asked until it answers.
    fn ask_again(&self, node: NodeId) {
        if !self.inner.liveness[node].set_asked(true) {
            return;
        }
        let client = self.clone();
        tokio::spawn(async move {
            let liveness = &client.inner.liveness[node];
            while liveness.is_silent(Duration::ZERO) {
                let activity = Activity::default();
                let asked = client.send_now(node, Method::GET, "/v1/health", body::empty(), &activity);
                // Any other error tells that it is not silent any more.
                if !asked.await.is_err_and(|error| error.kind() == ErrorKind::Deadline) {
                    liveness.hear();
                }
            }
            liveness.set_asked(false);
        });
    }

    /// Hands `result` of a transfer on. A node that was found silent in it is asked from now on whether it answers.
    pub fn noting<T>(&self, node: NodeId, result: Result<T>) -> Result<T> {
        result.inspect_err(|error| {
            if error.kind() == ErrorKind::Deadline {
                self.ask_again(node);
            }
        })
    }

    fn request(&self, node: NodeId, method: Method, path: &str, body: BoxBody) -> Result<Request<BoxBody>> {
        let uri = format!("http://{}{path}", self.cluster().address(node));
        let mut request = Request::builder().method(method).uri(uri).header(CLUSTER_HEADER, &self.inner.digest);
        if let Some(secret) = &self.inner.settings.secret {
            request = request.header(SECRET_HEADER, &secret.0);
        }
        // So that nothing is done for one who no longer waits for it.
        request = request.header(WAITS_HEADER, self.deadline.as_millis() as u64);
        if let Some(put) = &self.put {
            request = request.header(PUT_HEADER, put.number.to_string());
        }
        request.body(body).map_err(|e| Error::new(ErrorKind::BadRequest, format!("{}: {e}", self.cluster().name(node))))
    }

    fn unreachable(&self, node: NodeId, error: &legacy::Error) -> Error {
        let name = self.cluster().name(node);
        let cause = body::cause(error);
        match error.is_connect() {
            _ if cause.is_silence() => self.late(node),
            true => Error::new(ErrorKind::Unreachable, format!("{name}: cannot connect: {cause}")),
            false => Error::new(ErrorKind::Unreachable, format!("{name}: the request broke off: {cause}"))
                .of_broken_connection(),
        }
    }

    fn late(&self, node: NodeId) -> Error {
        if self.inner.liveness[node].is_silent(Duration::ZERO) {
            self.ask_again(node);
        }
        let seconds = self.deadline().as_secs_f64();
        Error::new(ErrorKind::Deadline, format!("{}: no answer within {seconds} s", self.cluster().name(node)))
    }

    /// The error that an answer carries.
    async fn refusal(&self, node: NodeId, response: Response<Incoming>) -> Error {
        let status = response.status();
        let name = self.cluster().name(node);
        let error = match self.json::<Error>(node, response).await {
            Ok(error) => error.by(&name),
            Err(_) => {
                return Error::new(
                    ErrorKind::Unreachable,
                    format!("{name}: answered with HTTP status {status}, is it s4?"),
                );
            }
        };
        match error.nodes() {
            Some(theirs) => {
                let difference = self.cluster().first_difference(theirs);
                Error::new(ErrorKind::ClusterMismatch, format!("{name}: it has another node list: {difference}"))
            }
            None => error,
        }
    }

    async fn json<T: serde::de::DeserializeOwned>(&self, node: NodeId, response: Response<Incoming>) -> Result<T> {
        let bytes = self.whole_body(node, response, MAX_ANSWER).await?;
        serde_json::from_slice(&bytes).map_err(|e| self.malformed(node, &e.to_string()))
    }

    fn malformed(&self, node: NodeId, why: &str) -> Error {
        Error::new(ErrorKind::Unreachable, format!("{}: malformed answer: {why}", self.cluster().name(node)))
    }

    /// A body of at most `most` bytes.
    async fn whole_body(&self, node: NodeId, response: Response<Incoming>, most: u64) -> Result<Bytes> {
        let mut chunks = self.chunks(node, response);
        let mut whole = BytesMut::new();
        while let Some(chunk) = self.noting(node, chunks.next().await)? {
            if (whole.len() + chunk.len()) as u64 > most {
                return Err(self.malformed(node, "it is too long"));
            }
            if whole.is_empty() && chunks.is_end() {
                return Ok(chunk);
            }
            whole.extend_from_slice(&chunk);
        }
        Ok(whole.freeze())
    }

    fn chunks(&self, node: NodeId, response: Response<Incoming>) -> Chunks<Incoming> {
        let who = self.cluster().name(node).to_string();
        Chunks::new(response.into_body(), self.timeout(node), Side::Client, who)
    }
}

/// Does what changes nothing once more, as often as the connection breaks off: the daemon may just restart.
async fn again_if_broken<T, F: Future<Output = Result<T>>>(mut ask: impl FnMut() -> F) -> Result<T> {
    for _ in 1..TRIES {
        match ask().await {
            Err(error) if error.is_of_broken_connection() => tracing::debug!("again: {error}"),
            answered => return answered,
        }
    }
    ask().await
}

/// Runs blocking work off the async threads and hands its panic on.
pub async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    match tokio::task::spawn_blocking(work).await {
        Ok(output) => output,
        Err(error) => std::panic::resume_unwind(error.into_panic()),
    }
}
