//! Processes that unmount, and wait until all files that were closed in the mount are published; see `s4::mounts`. Each
//! connects to a socket of the mount.

use nix::sys::socket::{Shutdown, shutdown};
use s4::mounts;
use std::io::{ErrorKind, Read, Write};
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};
use tokio::net::UnixListener;

/// How long the last releases may take until they begin to publish.
pub const SETTLE: Duration = Duration::from_millis(50);

pub struct Requesters {
    listener: Option<UnixListener>,
    waiting: Vec<Requester>,
}

struct Requester {
    stream: UnixStream,
    /// When it had unmounted.
    since: Option<Instant>,
}

impl Requesters {
    /// Of the mount whose file system has this number.
    pub fn of(device: Option<&str>) -> Self {
        let in_runtime = |listener: std::os::unix::net::UnixListener| {
            listener.set_nonblocking(true).and_then(|()| UnixListener::from_std(listener)).ok()
        };
        let listener = device.and_then(mounts::listen).and_then(in_runtime);
        if listener.is_none() {
            tracing::warn!("no socket can be made for 's4 umount', which so will not wait until all is published");
        }
        Self { listener, waiting: Vec::new() }
    }

    /// Accepts the next one. Never resolves without a socket.
    pub async fn take(&mut self) {
        let Some(listener) = &self.listener else { return std::future::pending().await };
        match listener.accept().await.and_then(|(stream, _)| stream.into_std()) {
            Ok(stream) => self.waiting.push(Requester { stream, since: None }),
            Err(_) => tokio::time::sleep(SETTLE).await,
        }
    }

    /// Answers those that have unmounted, while other processes still use the mount.
    pub fn answer(&mut self, all_published: bool) {
        self.waiting.retain_mut(|requester| {
            let waits = requester.must_wait();
            if waits == Some(false) && all_published {
                answer(&requester.stream);
            }
            waits == Some(true)
        });
    }

    /// To be called once the mount is gone: another mount may have its number, to which later requests belong.
    pub fn take_no_more(&mut self) {
        let Some(listener) = self.listener.take().and_then(|listener| listener.into_std().ok()) else { return };
        // Those that have connected are still answered.
        if shutdown(listener.as_raw_fd(), Shutdown::Read).is_ok() {
            while let Ok((stream, _)) = listener.accept() {
                self.waiting.push(Requester { stream, since: None });
            }
        }
    }

    /// Answers all of them: all files are published.
    pub fn end(mut self) {
        self.take_no_more();
        self.waiting.iter().for_each(|requester| answer(&requester.stream));
    }
}

impl Requester {
    /// True while it is too early for an answer; `None` if it has gone.
    fn must_wait(&mut self) -> Option<bool> {
        if self.since.is_none() {
            match self.stream.read(&mut [0]) {
                Ok(1..) => self.since = Some(Instant::now()),
                Err(e) if e.kind() == ErrorKind::WouldBlock => {}
                Ok(_) | Err(_) => return None,
            }
        }
        Some(self.since.is_none_or(|since| since.elapsed() < SETTLE))
    }
}

fn answer(mut stream: &UnixStream) {
    // It may have gone.
    let _ = stream.write_all(&[1]);
}
