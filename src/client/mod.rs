//! Talking to a cluster: requests to its nodes over kept connections, each within a deadline.

mod cluster_job;
pub mod cluster_view;
pub mod job_table;
mod jobs;
mod keys;
mod lines;
mod listing;
mod local;
mod sessions;
mod tree;

pub use jobs::EventStream;
pub use keys::{PackItem, Received};
pub use listing::Listing;
pub use sessions::{Asked, Soon, with_moments};

use crate::body::{self, Activity, BoxBody, Chunks, Side};
use crate::cluster::Cluster;
use crate::error::{Error, ErrorKind, Result};
use crate::placement::NodeId;
use crate::protocol::{self, CLUSTER_HEADER, HOLDER_HEADER, Health, Holder, SECRET_HEADER};
use crate::stream::{self, Stream};
use http_body_util::{BodyExt, Limited};
use hyper::body::Incoming;
use hyper::header::HeaderValue;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::client::legacy;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;

/// The longest JSON answer that is read whole, in bytes.
const MAX_ANSWER: u64 = 1024 * 1024;
/// Shorter than the daemon keeps an idle connection, so that a request seldom meets one that is closing.
const IDLE: Duration = Duration::from_secs(30);

/// How long a request to a node that was silent waits for it to answer again.
const FAIL_FAST: Duration = Duration::from_millis(200);

/// Bytes that a disk surely reads or writes in a second.
const SURELY_A_SECOND: u64 = 64 << 20;

/// How requests are sent.
#[derive(Clone)]
pub struct Settings {
    /// How long a node may be silent.
    pub deadline: Duration,
    pub secret: Option<Secret>,
    /// After a node was silent for the deadline, refuse requests to it soon until it answers again, so that many that need
    /// it do not each wait for the deadline.
    pub fail_fast: bool,
    /// As whom it asks for leases, if it does.
    pub holder: Option<Holder>,
}

impl Default for Settings {
    fn default() -> Self {
        Self { deadline: protocol::DEADLINE, secret: None, fail_fast: false, holder: None }
    }
}

/// The shared secret that daemons may ask for.
#[derive(Clone)]
pub struct Secret(HeaderValue);

impl Secret {
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

/// A handle on a cluster. Clones share their connections.
#[derive(Clone)]
pub struct Client(Arc<Inner>);

struct Inner {
    cluster: Cluster,
    digest: HeaderValue,
    settings: Settings,
    /// Whether each node was silent and has not answered since.
    silent: Vec<watch::Sender<bool>>,
    http: legacy::Client<HttpConnector, BoxBody>,
    /// With each node.
    sessions: Vec<sessions::Pool>,
}

impl Client {
    pub fn new(cluster: Cluster, settings: Settings) -> Self {
        let mut connector = HttpConnector::new();
        connector.set_nodelay(true);
        connector.set_connect_timeout(Some(settings.deadline));
        connector.set_keepalive(Some(Duration::from_secs(15)));
        let http = legacy::Client::builder(TokioExecutor::new())
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(IDLE)
            .build(connector);
        let digest = HeaderValue::from_str(&cluster.digest()).expect("hexadecimal digits make a header");
        let silent = cluster.ids().map(|_| watch::Sender::new(false)).collect();
        let sessions = cluster.ids().map(|_| sessions::Pool::new()).collect();
        Self(Arc::new(Inner { cluster, digest, settings, silent, http, sessions }))
    }

    pub fn cluster(&self) -> &Cluster {
        &self.0.cluster
    }

    pub fn deadline(&self) -> Duration {
        self.0.settings.deadline
    }

    /// The same cluster with another deadline.
    pub fn with_deadline(&self, deadline: Duration) -> Self {
        Self::new(self.cluster().clone(), Settings { deadline, ..self.0.settings.clone() })
    }

    /// How long a node may be silent that reads or writes `len` bytes before it answers.
    pub fn patience(&self, len: u64) -> Duration {
        self.deadline() + Duration::from_secs(len / SURELY_A_SECOND)
    }

    /// The same cluster, with that patience.
    pub fn patient(&self, len: u64) -> Self {
        match self.patience(len) {
            same if same == self.deadline() => self.clone(),
            longer => self.with_deadline(longer),
        }
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
        let answer = activity.watch(self.0.http.request(request), self.deadline()).await;
        let response = match answer {
            Some(Ok(response)) => response,
            Some(Err(error)) => return Err(self.unreachable(node, &error)),
            None => {
                self.note_silence(node);
                return Err(self.late(node));
            }
        };
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
        let mut request = self.request(node, method, path, body::empty())?;
        stream::mark(request.headers_mut());
        self.exchange(node, request, &Activity::default()).await
    }

    /// The stream that the answer grants; the answer itself if it grants none.
    async fn granted(
        &self,
        response: Response<Incoming>,
        who: String,
    ) -> Result<std::result::Result<Stream, Response<Incoming>>> {
        if response.status() != StatusCode::SWITCHING_PROTOCOLS {
            return Ok(Err(response));
        }
        Stream::take(hyper::upgrade::on(response), self.deadline(), Side::Client, who).await.map(Ok)
    }

    /// True if `node` was silent for a deadline and does not answer now either.
    async fn is_silent(&self, node: NodeId) -> bool {
        let mut silent = self.0.silent[node].subscribe();
        let answers = tokio::time::timeout(FAIL_FAST, silent.wait_for(|silent| !silent));
        answers.await.is_err()
    }

    /// Marks `node` as silent, until a request that goes on asking gets any answer.
    pub fn note_silence(&self, node: NodeId) {
        if !self.0.settings.fail_fast || self.0.silent[node].send_replace(true) {
            return;
        }
        let client = self.clone();
        tokio::spawn(async move {
            loop {
                let activity = Activity::default();
                let asked = client.send_now(node, Method::GET, "/v1/health", body::empty(), &activity);
                // Any other error tells that it is not silent any more.
                if !asked.await.is_err_and(|error| error.kind() == ErrorKind::Deadline) {
                    break;
                }
            }
            client.0.silent[node].send_replace(false);
        });
    }

    fn request(&self, node: NodeId, method: Method, path: &str, body: BoxBody) -> Result<Request<BoxBody>> {
        let uri = format!("http://{}{path}", self.cluster().address(node));
        let mut request = Request::builder().method(method).uri(uri).header(CLUSTER_HEADER, &self.0.digest);
        if let Some(secret) = &self.0.settings.secret {
            request = request.header(SECRET_HEADER, &secret.0);
        }
        if let Some(holder) = self.0.settings.holder {
            request = request.header(HOLDER_HEADER, holder.to_string());
        }
        request.body(body).map_err(|e| Error::new(ErrorKind::BadRequest, format!("{}: {e}", self.cluster().name(node))))
    }

    fn unreachable(&self, node: NodeId, error: &legacy::Error) -> Error {
        let name = self.cluster().name(node);
        let cause = body::root_cause(error);
        match error.is_connect() {
            true => Error::new(ErrorKind::Unreachable, format!("{name}: cannot connect: {cause}")),
            false => Error::new(ErrorKind::Unreachable, format!("{name}: the request broke off: {cause}")),
        }
    }

    fn late(&self, node: NodeId) -> Error {
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
        let malformed = |why: String| {
            Error::new(ErrorKind::Unreachable, format!("{}: malformed answer: {why}", self.cluster().name(node)))
        };
        let collect = Limited::new(response.into_body(), MAX_ANSWER as usize).collect();
        let collected = tokio::time::timeout(self.deadline(), collect).await.map_err(|_| self.late(node))?;
        let bytes = collected.map_err(|e| malformed(e.to_string()))?.to_bytes();
        serde_json::from_slice(&bytes).map_err(|e| malformed(e.to_string()))
    }

    fn chunks(&self, node: NodeId, response: Response<Incoming>) -> Chunks<Incoming> {
        let who = self.cluster().name(node).to_string();
        Chunks::new(response.into_body(), self.deadline(), Side::Client, who)
    }
}

/// Runs blocking work off the async threads and hands its panic on.
pub async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    match tokio::task::spawn_blocking(work).await {
        Ok(output) => output,
        Err(error) => std::panic::resume_unwind(error.into_panic()),
    }
}
