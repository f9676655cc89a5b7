//! Sessions with the nodes that are asked again and again, for callers that may wait a moment.

use super::{Client, blocking};
use crate::checksum::Checksum;
use crate::error::{Error, ErrorKind, Result};
use crate::key::{Dir, Key};
use crate::placement::NodeId;
use crate::protocol::{Change, Stat};
use crate::session::{IDLE, MAX_BYTES, Question, Reply, Session};
use crate::timeout::Timeout;
use hyper::Method;
use std::cell::Cell;
use std::os::fd::{AsRawFd, BorrowedFd, RawFd};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// How long a caller waits for an answer before another thread goes on to.
const MOMENT: Duration = Duration::from_millis(10);
/// Sessions with each node.
const MOST: usize = 2;
/// A node that is asked again within this time is worth a session.
const AGAIN: Duration = Duration::from_millis(100);
/// How long one is kept that nobody uses: less than the node does.
const KEPT: Duration = Duration::from_secs(IDLE.as_secs() / 2);
/// How long a node is not asked for another after it refused one.
const REFUSED: Duration = Duration::from_secs(10);

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

/// The sessions with one node.
pub(super) struct Pool {
    permits: Arc<Semaphore>,
    /// Guards those that nobody uses.
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    idle: Vec<Open>,
    /// When there was none for who asked.
    missed: Option<Instant>,
    refused: Option<Instant>,
    /// A task closes those that nobody uses for long.
    sweeping: bool,
}

struct Open {
    session: Box<Session>,
    used: Instant,
    _permit: OwnedSemaphorePermit,
}

impl Pool {
    pub(super) fn new() -> Self {
        Self { permits: Arc::new(Semaphore::new(MOST)), state: Mutex::default() }
    }

    /// A session that is free; else whether it is time to open one.
    fn take(&self) -> std::result::Result<Open, Option<OwnedSemaphorePermit>> {
        let mut state = self.lock();
        while let Some(open) = state.idle.pop() {
            if open.used.elapsed() < KEPT && open.session.is_quiet() {
                return Ok(open);
            }
        }
        let again = state.missed.replace(Instant::now()).is_some_and(|then| then.elapsed() < AGAIN);
        let refused = state.refused.is_some_and(|then| then.elapsed() < REFUSED);
        Err(if again && !refused { self.permits.clone().try_acquire_owned().ok() } else { None })
    }

    fn keep(&self, mut open: Open) {
        open.used = Instant::now();
        self.lock().idle.push(open);
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A question that was sent, and is not answered yet.
pub struct Asked {
    client: Client,
    node: NodeId,
    /// The key that is put; else it is asked what a name is.
    puts: Option<Key>,
    open: Open,
    timeout: Timeout,
}

/// An answer that came in a moment, or else what waits for it.
pub type Soon<T> = std::result::Result<Result<T>, Box<Asked>>;

impl Asked {
    /// Also if `until` is over, an answer that is here is taken.
    fn hear(mut self, until: Instant) -> Soon<Reply> {
        // SAFETY: the number is that of a descriptor which `with_moments` has borrowed for longer than this.
        let other = MAY_WAIT.get().map(|other| unsafe { BorrowedFd::borrow_raw(other) });
        Ok(match self.open.session.hear(until, other) {
            Ok(None) => return Err(Box::new(self)),
            Ok(Some((reply, _))) => self.fitting(reply),
            // The session ends with what was asked in it.
            Err(error) => Err(self.about(&error)),
        })
    }

    /// A reply to this question, after which the session serves others. One to another ends it.
    fn fitting(mut self, reply: Reply) -> Result<Reply> {
        self.timeout.hear();
        let answered = match (reply, &self.puts) {
            (Reply::Failed { error }, _) => Err(error.by(self.open.session.who())),
            (reply @ Reply::Stored, Some(_)) | (reply @ Reply::Stat { .. }, None) => Ok(reply),
            (Reply::Stored, None) | (Reply::Stat { .. }, Some(_)) => {
                return Err(self.about(&Error::new(ErrorKind::Unreachable, "malformed answer")));
            }
        };
        self.client.inner.sessions[self.node].keep(self.open);
        answered
    }

    /// The error with the node and the key in it.
    fn about(&self, error: &Error) -> Error {
        let (who, kind) = (self.open.session.who(), error.kind());
        let cause = error.to_string();
        let cause = cause.strip_prefix(&format!("{who}: ")).unwrap_or(&cause);
        let about = match &self.puts {
            Some(key) => Error::new(kind, format!("{who}: {key}: {cause}")),
            None => Error::new(kind, format!("{who}: {cause}")),
        };
        if error.is_of_broken_connection() { about.of_broken_connection() } else { about }
    }

    /// The answer, within the deadline.
    async fn answer(self) -> Result<Reply> {
        let (client, node) = (self.client.clone(), self.node);
        let heard = blocking(move || self.hear_in_time()).await;
        client.noting(node, heard.unwrap_or_else(|asked| Err(asked.client.late(node))))
    }

    fn hear_in_time(mut self) -> Soon<Reply> {
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
}

impl Client {
    /// What `path` is: the home is asked in a session, if there is one; else as [`Client::look_up`] does. May block for a moment.
    pub async fn look_up_soon(&self, path: &Dir) -> Result<Stat> {
        let question = Question::Stat { path: path.clone() };
        let Some(asked) = self.begin(self.home_of(path.as_str()), None, &question, &[]) else {
            return self.look_up(path).await;
        };
        let heard = match asked.hear(Instant::now() + MOMENT) {
            Ok(heard) => heard,
            Err(asked) => asked.answer().await,
        };
        match heard {
            // The session has ended; the node may be well.
            Err(error) if error.kind() == ErrorKind::Unreachable => self.look_up(path).await,
            Ok(Reply::Stat { stat }) => Ok(stat),
            Ok(Reply::Stored | Reply::Failed { .. }) => Err(Error::new(ErrorKind::Unreachable, "malformed answer")),
            Err(error) => Err(error),
        }
    }

    /// Puts a small key in a session; `None` if there is none. Blocks for a moment.
    pub(super) async fn put_soon(
        &self,
        key: &Key,
        checksum: Checksum,
        bytes: &[u8],
        change: Change,
    ) -> Option<Result<()>> {
        if bytes.len() > MAX_BYTES {
            return None;
        }
        let put = self.put.map(|put| put.number);
        let question = Question::Put { key: key.clone(), checksum, change, put };
        let asked = self.begin(self.cluster().node_of(key), Some(key), &question, bytes)?;
        Some(match asked.hear(Instant::now() + MOMENT) {
            Ok(reply) => reply.map(drop),
            Err(asked) => asked.answer().await.map(drop),
        })
    }

    /// Asks `node` in a session, if this thread may wait and there is one that is free.
    fn begin(&self, node: NodeId, puts: Option<&Key>, question: &Question, bytes: &[u8]) -> Option<Asked> {
        if MAY_WAIT.get().is_none() || self.inner.liveness[node].is_silent(self.deadline()) {
            return None;
        }
        match self.inner.sessions[node].take() {
            Ok(mut open) => {
                open.session.say(question, bytes);
                Some(Asked { client: self.clone(), node, puts: puts.cloned(), open, timeout: self.timeout(node) })
            }
            Err(permit) => {
                if let Some(permit) = permit {
                    tokio::spawn(self.clone().open_session(node, permit));
                }
                None
            }
        }
    }

    async fn open_session(self, node: NodeId, permit: OwnedSemaphorePermit) {
        let pool = &self.inner.sessions[node];
        match self.ask_for_session(node).await {
            Ok(session) => pool.keep(Open { session: Box::new(session), used: Instant::now(), _permit: permit }),
            Err(error) => {
                tracing::debug!("{error}");
                pool.lock().refused = Some(Instant::now());
                return;
            }
        }
        if std::mem::replace(&mut pool.lock().sweeping, true) {
            return;
        }
        loop {
            tokio::time::sleep(KEPT).await;
            let mut state = pool.lock();
            state.idle.retain(|open| open.used.elapsed() < KEPT);
            // Whoever opens another has its permit already.
            state.sweeping = pool.permits.available_permits() < MOST;
            if !state.sweeping {
                return;
            }
        }
    }

    async fn ask_for_session(&self, node: NodeId) -> Result<Session> {
        let name = self.cluster().name(node).to_string();
        let response = self.send_for_stream(node, Method::POST, "/v1/session").await?;
        let refused = || Error::new(ErrorKind::Unreachable, format!("{name}: malformed answer"));
        self.granted(response, node, name.clone()).await?.map(Session::new).map_err(|_| refused())
    }
}
