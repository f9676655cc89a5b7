//! Requests over connections of frames. Idle connections are pooled. A thread that may wait a moment sends a small
//! request and waits for its response itself: waking another thread would take longer than most responses.

use super::core::{Client, blocking, retry_if_broken};
use super::upload::PutOptions;
use crate::body::{self, Activity};
use crate::checksum::Checksum;
use crate::error::{ErrorKind, Result};
use crate::key::{Dir, Key};
use crate::placement::NodeId;
use crate::protocol::Stat;
use crate::timeout::Timeout;
use crate::wire::{self, Connection, Incoming, Put, PutEnd, REQUEST_HEADER, Request, Response, SMALL};
use hyper::Method;
use hyper::header::HeaderValue;
use std::cell::Cell;
use std::os::fd::{AsRawFd, BorrowedFd, RawFd};
use std::time::{Duration, Instant};

/// A node that was heard on a connection at most so long ago cannot have gone down and come back since.
const FRESH: Duration = Duration::from_secs(1);

/// How long the calling thread waits for a response before another thread takes over.
const SHORT_WAIT: Duration = Duration::from_millis(10);

thread_local! {
    /// If this thread may wait for a response now: the descriptor that it must not neglect.
    static MAY_WAIT: Cell<Option<RawFd>> = const { Cell::new(None) };
}

/// Runs `work`, in which this thread may wait a moment for a response. A wait ends early when `other` becomes readable.
pub fn with_short_waits<T>(other: BorrowedFd, work: impl FnOnce() -> T) -> T {
    /// The descriptor must not be used later, even if `work` panics.
    struct Over(Option<RawFd>);
    impl Drop for Over {
        fn drop(&mut self) {
            MAY_WAIT.set(self.0);
        }
    }
    let _over = Over(MAY_WAIT.replace(Some(other.as_raw_fd())));
    work()
}

impl Client {
    /// A connection to `node` on which `request` is sent, or buffered to be sent with what follows. `subject` names the
    /// peer in errors.
    pub(super) async fn start_request(&self, node: NodeId, request: &Request, subject: String) -> Result<Connection> {
        if self.is_silent(node).await {
            return Err(self.deadline_error(node));
        }
        let idle = match request.has_data() {
            true => self.take_alive(node, &subject).await?,
            false => self.take(node).map(|(mut connection, _)| {
                connection.reuse_for(self.timeout(node), subject.clone());
                connection
            }),
        };
        match idle {
            Some(mut connection) => connection.put_message(request).map(|()| connection),
            None => self.connect(node, Some(request), subject).await,
        }
    }

    /// An idle connection. The node of a connection knows the deadline of its client, so a client with another deadline
    /// does not use the pool.
    fn take(&self, node: NodeId) -> Option<(Connection, Duration)> {
        let has_usual_deadline = self.deadline() == self.inner.settings.deadline;
        if has_usual_deadline { self.inner.connections[node].take() } else { None }
    }

    /// An idle connection for requests that cannot be repeated if it breaks: the node has answered on it just now. A
    /// machine that lost its power has told nobody, and resets the connection only at the next request.
    async fn take_alive(&self, node: NodeId, subject: &str) -> Result<Option<Connection>> {
        let Some((mut connection, idle)) = self.take(node) else { return Ok(None) };
        connection.reuse_for(self.timeout(node), subject.to_owned());
        if idle < FRESH {
            return Ok(Some(connection));
        }
        let asked = blocking(move || {
            connection.put_message(&Request::Ping)?;
            connection.flush()?;
            connection.receive_next::<Response>().map(|_| connection)
        });
        match self.noting(node, asked.await) {
            Err(error) if error.is_of_broken_connection() => Ok(None),
            alive => alive.map(Some),
        }
    }

    /// Sends a request that changes nothing, and receives its response by `receive` on a blocking thread. Retries if
    /// the connection breaks.
    pub(super) async fn read_request<T: Send + 'static>(
        &self,
        node: NodeId,
        request: &Request,
        subject: &str,
        receive: impl Fn(Connection) -> Result<T> + Clone + Send + 'static,
    ) -> Result<T> {
        retry_if_broken(|| async {
            let connection = self.start_request(node, request, subject.to_owned()).await?;
            let receive = receive.clone();
            self.noting(node, blocking(move || receive(connection)).await)
        })
        .await
    }

    async fn connect(&self, node: NodeId, first: Option<&Request>, subject: String) -> Result<Connection> {
        let json = first.map(serde_json::to_vec).transpose().map_err(|e| self.malformed(node, &e.to_string()))?;
        let mut request = self.request(node, Method::POST, "/v1/connect", body::empty())?;
        wire::mark(request.headers_mut());
        if let Some(json) = &json {
            let header = HeaderValue::from_bytes(json).map_err(|e| self.malformed(node, &e.to_string()))?;
            request.headers_mut().insert(REQUEST_HEADER, header);
        }
        let response = self.exchange(node, request, &Activity::default()).await?;
        self.upgraded(node, response, subject).await
    }

    /// Sends a request that the node does not execute before its data has come. So it is safe to retry if the
    /// connection breaks.
    pub(super) async fn start_data_request(&self, node: NodeId, request: &Request) -> Result<Connection> {
        retry_if_broken(|| self.start_request(node, request, self.cluster().name(node).to_string())).await
    }

    /// A connection to `node` without a request.
    pub(super) async fn connection(&self, node: NodeId) -> Result<Connection> {
        let subject = || self.cluster().name(node).to_string();
        if self.is_silent(node).await {
            return Err(self.deadline_error(node));
        }
        match self.take_alive(node, &subject()).await? {
            Some(connection) => Ok(connection),
            None => retry_if_broken(|| self.connect(node, None, subject())).await,
        }
    }

    /// Keeps a connection whose requests are all answered, for the next request.
    pub(super) fn keep(&self, node: NodeId, connection: Connection) {
        // On a thread of no runtime, nobody could close it when it is idle for too long.
        let Ok(runtime) = tokio::runtime::Handle::try_current() else { return };
        if self.deadline() == self.inner.settings.deadline && self.inner.connections[node].keep(connection) {
            let client = self.clone();
            runtime.spawn(async move { client.inner.connections[node].sweep().await });
        }
    }

    async fn open(self, node: NodeId) {
        let opened = self.connect(node, None, String::new()).await;
        self.inner.connections[node].note_opened(opened.is_err());
        match opened {
            Ok(connection) => self.keep(node, connection),
            Err(error) => tracing::debug!("{error}"),
        }
    }
}

/// A request that was sent, and is not answered yet.
struct Pending {
    client: Client,
    node: NodeId,
    connection: Connection,
    timeout: Timeout,
}

/// The response, with its connection, which is free again; or the pending request if there is no response yet.
type InlineResult = std::result::Result<Result<(Response, Connection)>, Box<Pending>>;

impl Pending {
    /// Waits for the response until `until`. A response that is already here is returned in any case.
    fn receive(mut self, until: Instant) -> InlineResult {
        // SAFETY: `with_short_waits` has borrowed this descriptor for longer than this call.
        let other = MAY_WAIT.get().map(|other| unsafe { BorrowedFd::borrow_raw(other) });
        let received = match self.connection.receive_until(until, other) {
            Ok(None) => return Err(Box::new(self)),
            Ok(Some(received)) => received,
            Err(error) => return Ok(Err(error)),
        };
        self.timeout.note_alive();
        Ok(match received {
            Incoming::Message(response) => Ok((response, self.connection)),
            Incoming::Error(error) => {
                let error = error.of_peer(self.client.cluster().name(self.node));
                self.client.keep(self.node, self.connection);
                Err(error)
            }
            Incoming::Data(_) | Incoming::Stderr(_) => Err(self.connection.malformed("data was not asked for")),
        })
    }

    /// The response, within the deadline.
    async fn answer(self) -> Result<(Response, Connection)> {
        let (client, node) = (self.client.clone(), self.node);
        let received = blocking(move || self.receive_in_time()).await;
        client.noting(node, received.unwrap_or_else(|pending| Err(pending.client.deadline_error(node))))
    }

    fn receive_in_time(mut self) -> InlineResult {
        loop {
            let until = Instant::now() + self.timeout.step();
            match self.receive(until) {
                Ok(received) => return Ok(received),
                Err(pending) => self = *pending,
            }
            if self.timeout.is_over() {
                return Err(Box::new(self));
            }
        }
    }

    async fn answer_inline(self) -> Result<(Response, Connection)> {
        match self.receive(Instant::now() + SHORT_WAIT) {
            Ok(received) => received,
            Err(pending) => pending.answer().await,
        }
    }
}

impl Client {
    /// What `path` stands for, by its home. Uses an idle connection and waits on this thread for a moment, if both are
    /// possible; else does as [`Client::look_up`].
    pub async fn look_up_inline(&self, path: &Dir) -> Result<Stat> {
        let node = self.home_of(path.as_str());
        let request = Request::Stat { path: path.clone() };
        let Some(mut connection) = self.idle_connection(node, self.cluster().name(node).to_string()) else {
            return self.look_up(path).await;
        };
        let sent = connection.put_message(&request).and_then(|()| connection.send_some());
        match self.finish(node, connection, sent).await {
            // The idle connection was closed; the node may be fine.
            Err(error) if error.kind() == ErrorKind::Unreachable => self.look_up(path).await,
            Ok((Response::Stat(stat), connection)) => {
                self.keep(node, connection);
                Ok(stat)
            }
            Ok(_) => Err(self.malformed(node, "another response than to what was asked")),
            Err(error) => Err(error),
        }
    }

    /// Puts a small key over an idle connection, and waits on this thread for a moment; `None` if that is not possible.
    pub(super) async fn put_inline(
        &self,
        key: &Key,
        checksum: Checksum,
        bytes: &[u8],
        options: &PutOptions,
    ) -> Option<Result<()>> {
        if bytes.len() > SMALL {
            return None;
        }
        let node = self.cluster().node_of(key);
        let mut connection = self.idle_connection(node, format!("{}: {key}", self.cluster().name(node)))?;
        let PutOptions { change, metadata, part } = options.clone();
        let (key, number) = (key.clone(), self.put_number());
        let request = Request::Put(Put { key, number, delivery: None, metadata, part });
        let mut send = || {
            connection.put_message(&request)?;
            connection.put_small_data(bytes)?;
            connection.put_message(&Request::PutEnd(PutEnd { checksum, change }))?;
            // The rest is sent during the wait for the response.
            connection.send_some()
        };
        let sent = send();
        Some(match self.finish(node, connection, sent).await {
            Ok((Response::Stored, connection)) => {
                self.keep(node, connection);
                Ok(())
            }
            Ok(_) => Err(self.malformed(node, "another response than to what was asked")),
            Err(error) => Err(error),
        })
    }

    /// An idle connection, if this thread may wait for a response.
    fn idle_connection(&self, node: NodeId, subject: String) -> Option<Connection> {
        if MAY_WAIT.get().is_none() || self.inner.liveness[node].is_silent(self.deadline()) {
            return None;
        }
        let pool = &self.inner.connections[node];
        match self.take(node) {
            Some((mut connection, _)) => {
                connection.reuse_for(self.timeout(node), subject);
                Some(connection)
            }
            None => {
                if pool.should_open() {
                    tokio::spawn(self.clone().open(node));
                }
                None
            }
        }
    }

    async fn finish(&self, node: NodeId, connection: Connection, sent: Result<()>) -> Result<(Response, Connection)> {
        sent?;
        Pending { client: self.clone(), node, connection, timeout: self.timeout(node) }.answer_inline().await
    }
}
