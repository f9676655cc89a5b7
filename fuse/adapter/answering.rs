//! How requests are answered: on the thread that took them where nothing is waited for, else on a task.

use super::Adapter;
use super::replies::{Refuse, to_fuse};
use crate::errno::Result;
use crate::fs::Fs;
use crate::proc::{self, Caller};
use fuser::Request;
use s4::client::with_moments;
use std::os::fd::AsFd;
use std::sync::Arc;
use std::task::{Context, Waker};

impl Adapter {
    /// Answers a request, here and now if it need not wait: to hand it to another thread would cost more than most take.
    /// One that waits goes on as a task of its own, so that it holds up no other.
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
        let mut answering = Box::pin(self.answering(request, reply, work, done));
        let _entered = self.runtime.enter();
        let mut begin = || answering.as_mut().poll(&mut Context::from_waker(Waker::noop()));
        // An exchange with a node is waited for here, for a moment, as long as the kernel asks nothing else.
        let begun = match self.requests.get() {
            Some(requests) => with_moments(requests.as_fd(), begin),
            None => begin(),
        };
        if begun.is_pending() {
            // Asked again there, it learns whom to wake.
            self.runtime.spawn(answering);
        }
    }

    /// Answers a request on a thread of its own: one whose work waits for a disk.
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
        let (runtime, answering) = (self.runtime.clone(), self.answering(request, reply, work, done));
        self.runtime.spawn_blocking(move || runtime.block_on(answering));
    }

    /// A caller that is killed while it waits is let go: the library does not hand interrupts on.
    fn answering<R: Refuse, T: Send + 'static, F, W, D>(
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

/// What `work` gives, unless the caller is killed meanwhile.
pub(super) async fn unless_killed<T>(caller: Option<Caller>, work: impl Future<Output = Result<T>>) -> Result<T> {
    tokio::select! {
        biased;
        answered = work => answered,
        () = proc::killed(caller) => Err(nix::errno::Errno::EINTR),
    }
}
