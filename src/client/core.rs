//! The client, and how it sends a request to a node over HTTP and reads the response. A node that was silent for a
//! deadline is probed in the background; until it answers, requests to it fail fast. The requests themselves are in the
//! other modules of `client`.

use super::connect::Connector;
use super::pool::Pool;
use super::proxy::Proxy;
use super::secret::Secret;
use crate::body::{self, Activity, BoxBody, ChunkReader, Chunks, Role};
use crate::cluster::Cluster;
use crate::error::{Error, ErrorKind, Result};
use crate::placement::NodeId;
use crate::protocol::{self, CLUSTER_HEADER, Health, PUT_HEADER, SECRET_HEADER, WAITS_HEADER};
use crate::timeout::{Liveness, Timeout, within};
use crate::wire::{self, Connection};
use bytes::{Bytes, BytesMut};
use hyper::body::Incoming;
use hyper::header::HeaderValue;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::client::legacy;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use std::hash::{BuildHasher, Hasher, RandomState};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// The longest JSON response that is read as a whole, in bytes.
const MAX_ANSWER: u64 = 1024 * 1024;
/// How long an idle connection is kept: shorter than in the daemon, and than a machine takes to boot, so that a request
/// rarely uses a connection that is being closed, or whose node has been down.
const IDLE: Duration = Duration::from_secs(5);

/// How often a read request is sent if its connection breaks, and how often a transfer is resumed without any progress.
pub const TRIES: usize = 4;

/// How long a request to a silent node waits for the node to answer again.
const FAIL_FAST: Duration = Duration::from_millis(200);

/// How requests are sent.
#[derive(Clone)]
pub struct Settings {
    /// How long a node may be silent.
    pub deadline: Duration,
    pub secret: Option<Secret>,
    /// How long to retry a connection that is refused: the daemon may be restarting.
    pub restart: Duration,
    /// For the nodes that it [is for](Proxy::is_for).
    pub proxy: Option<Proxy>,
}

impl Default for Settings {
    fn default() -> Self {
        Self { deadline: protocol::DEADLINE, secret: None, restart: protocol::RESTART, proxy: None }
    }
}

/// A running put.
#[derive(Clone, Copy)]
pub(super) struct Put {
    /// A random id.
    pub number: u64,
    pub began: Instant,
}

/// A client of a cluster. Clones share their connections, and the state of the nodes.
#[derive(Clone)]
pub struct Client {
    pub(super) inner: Arc<Inner>,
    deadline: Duration,
    /// The put, if this client was made for one put.
    pub(super) put: Option<Put>,
}

pub(super) struct Inner {
    cluster: Cluster,
    digest: HeaderValue,
    pub(super) settings: Settings,
    /// One for each node. After a deadline of silence, no request waits for the node until it answers.
    pub(super) liveness: Vec<Liveness>,
    http: legacy::Client<Connector, BoxBody>,
    /// One for each node.
    pub(super) connections: Vec<Pool>,
}

impl Client {
    pub fn new(cluster: Cluster, settings: Settings) -> Self {
        let http = legacy::Client::builder(TokioExecutor::new())
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(IDLE)
            .build(Connector::new(settings.restart, settings.deadline, settings.proxy.clone()));
        let digest = HeaderValue::from_str(&cluster.digest()).expect("hexadecimal digits make a header");
        let liveness = cluster.ids().map(|_| Liveness::default()).collect();
        let connections = cluster.ids().map(|_| Pool::default()).collect();
        let deadline = settings.deadline;
        Self { inner: Arc::new(Inner { cluster, digest, settings, liveness, http, connections }), deadline, put: None }
    }

    pub fn cluster(&self) -> &Cluster {
        &self.inner.cluster
    }

    /// The secret that it sends, if the cluster has one.
    pub fn secret(&self) -> Option<&Secret> {
        self.inner.settings.secret.as_ref()
    }

    pub fn deadline(&self) -> Duration {
        self.deadline
    }

    /// A client with another deadline.
    pub fn with_deadline(&self, deadline: Duration) -> Self {
        Self { deadline, ..self.clone() }
    }

    /// A client for one put.
    pub fn putting(&self) -> Self {
        let number = RandomState::new().build_hasher().finish();
        Self { put: Some(Put { number, began: Instant::now() }), ..self.clone() }
    }

    /// A timeout for `node`, with the deadline of this client.
    pub fn timeout(&self, node: NodeId) -> Timeout {
        Timeout::of(&self.inner.liveness[node], self.deadline)
    }

    /// The timeout for a node that reads or writes `len` bytes before it answers.
    pub fn timeout_for(&self, len: u64) -> Duration {
        protocol::transfer_timeout(self.deadline(), len)
    }

    /// A client with the timeout for `len` bytes as its deadline.
    pub fn with_timeout_for(&self, len: u64) -> Self {
        self.with_deadline(self.timeout_for(len))
    }

    /// The health of `node`, as it reports it.
    pub async fn health(&self, node: NodeId) -> Result<Health> {
        let response = self.send(node, Method::GET, "/v1/health", body::empty(), &Activity::default()).await?;
        self.json(node, response).await
    }

    /// Sends a request and waits for the head of the response. Any status other than 2xx is returned as the error in
    /// the response, with the name of the node. A GET is retried if the connection breaks.
    pub(super) async fn send(
        &self,
        node: NodeId,
        method: Method,
        path: &str,
        body: BoxBody,
        activity: &Activity,
    ) -> Result<Response<Incoming>> {
        if self.is_silent(node).await {
            return Err(self.deadline_error(node));
        }
        if method == Method::GET {
            let ask = || self.send_now(node, Method::GET, path, body::empty(), activity);
            return retry_if_broken(ask).await;
        }
        self.send_now(node, method, path, body, activity).await
    }

    pub(super) async fn send_now(
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

    pub(super) async fn exchange(
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
            None => return Err(self.deadline_error(node)),
        };
        self.inner.liveness[node].note_alive();
        match response.status() {
            // The request has asked for an upgrade.
            StatusCode::SWITCHING_PROTOCOLS => Ok(response),
            status if status.is_success() => Ok(response),
            _ => Err(self.refusal(node, response).await),
        }
    }

    /// Sends a request without a body. It asks for an upgrade to frames, which the node may grant.
    pub(super) async fn send_for_connection(
        &self,
        node: NodeId,
        method: Method,
        path: &str,
    ) -> Result<Response<Incoming>> {
        if self.is_silent(node).await {
            return Err(self.deadline_error(node));
        }
        let ask = || async {
            let mut request = self.request(node, method.clone(), path, body::empty())?;
            wire::mark(request.headers_mut());
            self.exchange(node, request, &Activity::default()).await
        };
        // Retrying is safe: the connection does not carry anything yet.
        retry_if_broken(ask).await
    }

    /// The connection that the response grants. Errors: it grants none.
    pub(super) async fn upgraded(
        &self,
        node: NodeId,
        response: Response<Incoming>,
        subject: String,
    ) -> Result<Connection> {
        match response.status() {
            StatusCode::SWITCHING_PROTOCOLS => {
                Connection::take(hyper::upgrade::on(response), self.timeout(node), Role::Client, subject).await
            }
            _ => Err(self.malformed(node, "no connection was granted")),
        }
    }

    /// True if `node` was silent for a deadline and still does not answer.
    pub(super) async fn is_silent(&self, node: NodeId) -> bool {
        let liveness = &self.inner.liveness[node];
        if !liveness.is_silent(self.deadline) {
            return false;
        }
        self.probe(node);
        within(FAIL_FAST, liveness.until_alive()).await.is_none()
    }

    /// Starts a task that probes a silent node until it answers.
    fn probe(&self, node: NodeId) {
        if !self.inner.liveness[node].set_asked(true) {
            return;
        }
        let client = self.clone();
        tokio::spawn(async move {
            let liveness = &client.inner.liveness[node];
            while liveness.is_silent(Duration::ZERO) {
                let activity = Activity::default();
                let asked = client.send_now(node, Method::GET, "/v1/health", body::empty(), &activity);
                // Any other error proves that the node is not silent.
                if !asked.await.is_err_and(|error| error.kind() == ErrorKind::Deadline) {
                    liveness.note_alive();
                }
            }
            liveness.set_asked(false);
        });
    }

    /// Returns `result` of a transfer. If it says that the node was silent, starts to probe the node.
    pub fn noting<T>(&self, node: NodeId, result: Result<T>) -> Result<T> {
        result.inspect_err(|error| {
            if error.kind() == ErrorKind::Deadline {
                self.probe(node);
            }
        })
    }

    pub(super) fn request(&self, node: NodeId, method: Method, path: &str, body: BoxBody) -> Result<Request<BoxBody>> {
        let uri = format!("http://{}{path}", self.cluster().address(node));
        let mut request = Request::builder().method(method).uri(uri).header(CLUSTER_HEADER, &self.inner.digest);
        if let Some(secret) = &self.inner.settings.secret {
            request = request.header(SECRET_HEADER, secret.header());
        }
        // The node does not start work for a client that does not wait any more.
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
            _ if cause.is_silence() => self.deadline_error(node),
            true => Error::new(ErrorKind::Unreachable, format!("{name}: cannot connect: {cause}")),
            false => Error::new(ErrorKind::Unreachable, format!("{name}: the request broke off: {cause}"))
                .of_broken_connection(),
        }
    }

    pub(super) fn deadline_error(&self, node: NodeId) -> Error {
        if self.inner.liveness[node].is_silent(Duration::ZERO) {
            self.probe(node);
        }
        let seconds = self.deadline().as_secs_f64();
        Error::new(ErrorKind::Deadline, format!("{}: no answer within {seconds} s", self.cluster().name(node)))
    }

    /// The error in a response.
    async fn refusal(&self, node: NodeId, response: Response<Incoming>) -> Error {
        let status = response.status();
        let name = self.cluster().name(node);
        let error = match self.json::<Error>(node, response).await {
            Ok(error) => error.of_peer(&name),
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

    pub(super) async fn json<T: serde::de::DeserializeOwned>(
        &self,
        node: NodeId,
        response: Response<Incoming>,
    ) -> Result<T> {
        let bytes = self.whole_body(node, response, MAX_ANSWER).await?;
        serde_json::from_slice(&bytes).map_err(|e| self.malformed(node, &e.to_string()))
    }

    pub(super) fn malformed(&self, node: NodeId, why: &str) -> Error {
        Error::new(ErrorKind::Unreachable, format!("{}: malformed answer: {why}", self.cluster().name(node)))
    }

    /// A body of at most `most` bytes.
    pub(super) async fn whole_body(&self, node: NodeId, response: Response<Incoming>, most: u64) -> Result<Bytes> {
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

    pub(super) fn reader(&self, node: NodeId, response: Response<Incoming>) -> ChunkReader {
        let subject = self.cluster().name(node).to_string();
        body::reader(response.into_body(), self.timeout(node), Role::Client, subject)
    }

    pub(super) fn chunks(&self, node: NodeId, response: Response<Incoming>) -> Chunks<Incoming> {
        let subject = self.cluster().name(node).to_string();
        Chunks::new(response.into_body(), self.timeout(node), Role::Client, subject)
    }
}

/// Repeats a request that changes nothing if its connection breaks, up to `TRIES` times: the daemon may be restarting.
pub(super) async fn retry_if_broken<T, F: Future<Output = Result<T>>>(mut ask: impl FnMut() -> F) -> Result<T> {
    for _ in 1..TRIES {
        match ask().await {
            Err(error) if error.is_of_broken_connection() => tracing::debug!("again: {error}"),
            answered => return answered,
        }
    }
    ask().await
}

/// Runs blocking work outside the async threads. A panic of the work is passed on.
pub async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    match tokio::task::spawn_blocking(work).await {
        Ok(output) => output,
        Err(error) => std::panic::resume_unwind(error.into_panic()),
    }
}
