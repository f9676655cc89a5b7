//! Decides on which thread a request is answered: on the thread that took it if no wait is needed, else in a task of
//! its own.

use super::replies::{Refuse, to_fuse};
use crate::errno::Result;
use crate::fs::Fs;
use crate::proc::{self, Caller};
use fuser::Request;
use s4::client::with_short_waits;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::{Arc, OnceLock};
use std::task::{Context, Waker};
use tokio::runtime::Handle;

pub struct Dispatcher {
    fs: Arc<Fs>,
    runtime: Handle,
    /// The connection to the kernel, once it is known.
    requests: Arc<OnceLock<OwnedFd>>,
}

impl Dispatcher {
    pub fn new(fs: Arc<Fs>, runtime: Handle, requests: Arc<OnceLock<OwnedFd>>) -> Self {
        Self { fs, runtime, requests }
    }

    /// Answers a request in a task.
    pub(super) fn spawn(&self, response: impl Future<Output = ()> + Send + 'static) {
        self.runtime.spawn(response);
    }

    /// Answers a request on this thread as far as it need not wait: handing it to another thread would cost more than
    /// most requests take. A request that waits continues in a task, so that it blocks no other request.
    pub(super) fn answer<R: Refuse, T: Send + 'static, F, W, D>(
        &self,
        request: Option<&Request>,
        reply: R,
        work: W,
        done: D,
    ) where
        F: Future<Output = Result<T>> + Send + 'static,
        W: FnOnce(Arc<Fs>) -> F,
        D: FnOnce(R, T) + Send + 'static,
    {
        let mut response = Box::pin(self.respond(request, reply, work, done));
        let _entered = self.runtime.enter();
        let mut begin = || response.as_mut().poll(&mut Context::from_waker(Waker::noop()));
        // This thread may wait a moment for the answer of a node, but not once the kernel sends another request.
        let begun = match self.requests.get() {
            Some(requests) => with_short_waits(requests.as_fd(), begin),
            None => begin(),
        };
        if begun.is_pending() {
            // The task polls it again, with its own waker.
            self.runtime.spawn(response);
        }
    }

    /// Answers a request on a thread that may wait for a disk.
    pub(super) fn answer_apart<R: Refuse, T: Send + 'static, F, W, D>(
        &self,
        request: Option<&Request>,
        reply: R,
        work: W,
        done: D,
    ) where
        F: Future<Output = Result<T>> + Send + 'static,
        W: FnOnce(Arc<Fs>) -> F,
        D: FnOnce(R, T) + Send + 'static,
    {
        let (runtime, response) = (self.runtime.clone(), self.respond(request, reply, work, done));
        self.runtime.spawn_blocking(move || runtime.block_on(response));
    }

    /// Replies with the result of `work`, or EINTR once the caller is killed: the library does not pass on interrupts.
    fn respond<R: Refuse, T: Send + 'static, F, W, D>(
        &self,
        request: Option<&Request>,
        reply: R,
        work: W,
        done: D,
    ) -> impl Future<Output = ()> + Send + 'static + use<R, T, F, W, D>
    where
        F: Future<Output = Result<T>> + Send + 'static,
        W: FnOnce(Arc<Fs>) -> F,
        D: FnOnce(R, T) + Send + 'static,
    {
        let caller = request.map(|request| Caller { thread: request.pid() });
        let work = work(self.fs.clone());
        async move {
            match unless_killed(caller, work).await {
                Ok(value) => done(reply, value),
                Err(errno) => reply.refuse(to_fuse(errno)),
            }
        }
    }
}

/// The result of `work`, or EINTR once the caller is killed.
pub(super) async fn unless_killed<T>(caller: Option<Caller>, work: impl Future<Output = Result<T>>) -> Result<T> {
    tokio::select! {
        biased;
        answered = work => answered,
        () = proc::killed(caller) => Err(nix::errno::Errno::EINTR),
    }
}
