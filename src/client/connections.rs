//! Connections of frames with the nodes: those that nobody uses are kept for a while, and small questions go over them from threads
//! that may wait a moment for the answer.

use super::core::{Client, again_if_broken, blocking};
use crate::body::{self, Activity};
use crate::checksum::Checksum;
use crate::error::{ErrorKind, Result};
use crate::key::{Dir, Key};
use crate::placement::NodeId;
use crate::protocol::{Change, Stat};
use crate::timeout::Timeout;
use crate::wire::{self, Connection, Incoming, PutEnd, REQUEST_HEADER, Request, Response, SMALL};
use hyper::Method;
use hyper::header::HeaderValue;
use std::cell::Cell;
use std::os::fd::{AsRawFd, BorrowedFd, RawFd};
use std::time::{Duration, Instant};

/// How long a caller waits for an answer before another thread goes on to.
const MOMENT: Duration = Duration::from_millis(10);

thread_local! {
    /// What this thread waits for otherwise, if it may wait for an answer now.
    static MAY_WAIT: Cell<Option<RawFd>> = const { Cell::new(None) };
}

/// Runs `work`, which may have this thread wait a moment for an answer, until there is something to read from `other`.
pub fn with_moments<T>(other: BorrowedFd, work: impl FnOnce() -> T) -> T {
    /// Also where `work` panics, nobody is to use the number later.
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
    /// A connection with `node` on which `request` is sent, or gathered to be sent with what follows. `who` names the peer in errors.
    pub(super) async fn ask(&self, node: NodeId, request: &Request, who: String) -> Result<Connection> {
        if self.is_silent(node).await {
            return Err(self.late(node));
        }
        match self.take(node) {
            Some(mut connection) => {
                connection.serve_for(self.timeout(node), who);
                connection.put_message(request).map(|()| connection)
            }
            None => self.connect(node, Some(request), who).await,
        }
    }

    /// One that is free. A connection tells its node how long the client waits, so that one with another deadline has its own.
    fn take(&self, node: NodeId) -> Option<Connection> {
        let has_usual_deadline = self.deadline() == self.inner.settings.deadline;
        if has_usual_deadline { self.inner.connections[node].take() } else { None }
    }

    /// Asks what changes nothing: again, as often as the connection breaks off before `receive` has its answer. Blocks no asynchronous
    /// thread.
    pub(super) async fn asking<T: Send + 'static>(
        &self,
        node: NodeId,
        request: &Request,
        who: &str,
        receive: impl Fn(Connection) -> Result<T> + Clone + Send + 'static,
    ) -> Result<T> {
        again_if_broken(|| async {
            let connection = self.ask(node, request, who.to_owned()).await?;
            let receive = receive.clone();
            self.noting(node, blocking(move || receive(connection)).await)
        })
        .await
    }

    async fn connect(&self, node: NodeId, first: Option<&Request>, who: String) -> Result<Connection> {
        let json = first.map(serde_json::to_vec).transpose().map_err(|e| self.malformed(node, &e.to_string()))?;
        let mut request = self.request(node, Method::POST, "/v1/connect", body::empty())?;
        wire::mark(request.headers_mut());
        if let Some(json) = &json {
            let header = HeaderValue::from_bytes(json).map_err(|e| self.malformed(node, &e.to_string()))?;
            request.headers_mut().insert(REQUEST_HEADER, header);
        }
        let response = self.exchange(node, request, &Activity::default()).await?;
        self.upgraded(node, response, who).await
    }

    /// The same of a request of which nothing is done before its data has come: asked again where the connection breaks off.
    pub(super) async fn ask_to_send(&self, node: NodeId, request: &Request) -> Result<Connection> {
        again_if_broken(|| self.ask(node, request, self.cluster().name(node).to_string())).await
    }

    /// A connection with `node` on which nothing is asked yet.
    pub(super) async fn connection(&self, node: NodeId) -> Result<Connection> {
        let who = || self.cluster().name(node).to_string();
        if self.is_silent(node).await {
            return Err(self.late(node));
        }
        match self.take(node) {
            Some(mut connection) => {
                connection.serve_for(self.timeout(node), who());
                Ok(connection)
            }
            None => again_if_broken(|| self.connect(node, None, who())).await,
        }
    }

    /// Keeps a connection on which everything is answered, for the next request.
    pub(super) fn keep(&self, node: NodeId, connection: Connection) {
        if self.deadline() == self.inner.settings.deadline && self.inner.connections[node].keep(connection) {
            let client = self.clone();
            tokio::spawn(async move { client.inner.connections[node].sweep().await });
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

/// A question that was sent, and is not answered yet.
struct Asked {
    client: Client,
    node: NodeId,
    connection: Connection,
    timeout: Timeout,
}

/// An answer that came in a moment, with the connection if it is free then; or else what waits for it.
type Soon = std::result::Result<Result<(Response, Connection)>, Box<Asked>>;

impl Asked {
    /// Also if `until` is over, an answer that is here is taken.
    fn hear(mut self, until: Instant) -> Soon {
        // SAFETY: the number is that of a descriptor which `with_moments` has borrowed for longer than this.
        let other = MAY_WAIT.get().map(|other| unsafe { BorrowedFd::borrow_raw(other) });
        let heard = match self.connection.receive_until(until, other) {
            Ok(None) => return Err(Box::new(self)),
            Ok(Some(heard)) => heard,
            Err(error) => return Ok(Err(error)),
        };
        self.timeout.hear();
        Ok(match heard {
            Incoming::Message(response) => Ok((response, self.connection)),
            Incoming::Error(error) => {
                let error = error.of_peer(self.client.cluster().name(self.node));
                self.client.keep(self.node, self.connection);
                Err(error)
            }
            Incoming::Data(_) | Incoming::Stderr(_) => Err(self.connection.malformed("data was not asked for")),
        })
    }

    /// The answer, within the deadline.
    async fn answer(self) -> Result<(Response, Connection)> {
        let (client, node) = (self.client.clone(), self.node);
        let heard = blocking(move || self.hear_in_time()).await;
        client.noting(node, heard.unwrap_or_else(|asked| Err(asked.client.late(node))))
    }

    fn hear_in_time(mut self) -> Soon {
        loop {
            let until = Instant::now() + self.timeout.step();
            match self.hear(until) {
                Ok(heard) => return Ok(heard),
                Err(asked) => self = *asked,
            }
            if self.timeout.is_over() {
                return Err(Box::new(self));
            }
        }
    }

    async fn answer_soon(self) -> Result<(Response, Connection)> {
        match self.hear(Instant::now() + MOMENT) {
            Ok(heard) => heard,
            Err(asked) => asked.answer().await,
        }
    }
}

impl Client {
    /// What `path` is: the home is asked over a connection, if there is one; else as [`Client::look_up`] does. May block for a moment.
    pub async fn look_up_soon(&self, path: &Dir) -> Result<Stat> {
        let node = self.home_of(path.as_str());
        let request = Request::Stat { path: path.clone() };
        let Some(mut connection) = self.begin(node, self.cluster().name(node).to_string()) else {
            return self.look_up(path).await;
        };
        let sent = connection.put_message(&request).and_then(|()| connection.send_some());
        match self.asked(node, connection, sent).await {
            // The connection has ended; the node may be well.
            Err(error) if error.kind() == ErrorKind::Unreachable => self.look_up(path).await,
            Ok((Response::Stat(stat), connection)) => {
                self.keep(node, connection);
                Ok(stat)
            }
            Ok(_) => Err(self.malformed(node, "another response than to what was asked")),
            Err(error) => Err(error),
        }
    }

    /// Puts a small key over a connection; `None` if there is none. Blocks for a moment.
    pub(super) async fn put_soon(
        &self,
        key: &Key,
        checksum: Checksum,
        bytes: &[u8],
        change: Change,
    ) -> Option<Result<()>> {
        if bytes.len() > SMALL {
            return None;
        }
        let node = self.cluster().node_of(key);
        let mut connection = self.begin(node, format!("{}: {key}", self.cluster().name(node)))?;
        let request = Request::Put { key: key.clone(), put: self.put.map(|put| put.number), delivery: None };
        let mut send = || {
            connection.put_message(&request)?;
            connection.put_small_data(bytes)?;
            connection.put_message(&Request::PutEnd(PutEnd { checksum, change }))?;
            // The rest is sent while the answer is waited for.
            connection.send_some()
        };
        let sent = send();
        Some(match self.asked(node, connection, sent).await {
            Ok((Response::Stored, connection)) => {
                self.keep(node, connection);
                Ok(())
            }
            Ok(_) => Err(self.malformed(node, "another response than to what was asked")),
            Err(error) => Err(error),
        })
    }

    /// A connection that is free, if this thread may wait for an answer.
    fn begin(&self, node: NodeId, who: String) -> Option<Connection> {
        if MAY_WAIT.get().is_none() || self.inner.liveness[node].is_silent(self.deadline()) {
            return None;
        }
        let pool = &self.inner.connections[node];
        match self.take(node) {
            Some(mut connection) => {
                connection.serve_for(self.timeout(node), who);
                Some(connection)
            }
            None => {
                if pool.is_worth_one() {
                    tokio::spawn(self.clone().open(node));
                }
                None
            }
        }
    }

    async fn asked(&self, node: NodeId, connection: Connection, sent: Result<()>) -> Result<(Response, Connection)> {
        sent?;
        Asked { client: self.clone(), node, connection, timeout: self.timeout(node) }.answer_soon().await
    }
}
