//! Processes that unmount this mount and wait until all of its closed files are published (see `s4::mounts`). Each is
//! connected to a socket of the mount.

use nix::sys::socket::{Shutdown, shutdown};
use s4::mounts;
use std::io::{ErrorKind, Read, Write};
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};
use tokio::net::UnixListener;

/// How long the last releases may accept to begin their publishes.
pub const SETTLE: Duration = Duration::from_millis(50);

pub struct Requesters {
    listener: Option<UnixListener>,
    waiting: Vec<Requester>,
}

struct Requester {
    stream: UnixStream,
    /// When the process reported that it had unmounted.
    since: Option<Instant>,
}

impl Requesters {
    /// The requesters of the mount whose file system has the number `device`.
    pub fn for_device(device: Option<&str>) -> Self {
        let in_runtime = |listener: std::os::unix::net::UnixListener| {
            listener.set_nonblocking(true).and_then(|()| UnixListener::from_std(listener)).ok()
        };
        let listener = device.and_then(mounts::listen).and_then(in_runtime);
        if listener.is_none() {
            tracing::warn!("no socket can be made for 's4 umount', which so will not wait until all is published");
        }
        Self { listener, waiting: Vec::new() }
    }

    /// Accepts the next requester. Never resolves if there is no socket.
    pub async fn accept(&mut self) {
        let Some(listener) = &self.listener else { return std::future::pending().await };
        match listener.accept().await.and_then(|(stream, _)| stream.into_std()) {
            Ok(stream) => self.waiting.push(Requester { stream, since: None }),
            Err(_) => tokio::time::sleep(SETTLE).await,
        }
    }

    /// Answers the requesters that have unmounted, while other processes still use the mount. Drops those that have
    /// disconnected.
    pub fn answer(&mut self, all_published: bool) {
        self.waiting.retain_mut(|requester| {
            let waits = requester.must_wait();
            if waits == Some(false) && all_published {
                answer(&requester.stream);
            }
            waits == Some(true)
        });
    }

    /// To be called once the mount is gone: another mount may get its number, and later requests are meant for that
    /// mount.
    pub fn stop_accepting(&mut self) {
        let Some(listener) = self.listener.take().and_then(|listener| listener.into_std().ok()) else { return };
        // Requesters that have already connected are still answered.
        if shutdown(listener.as_raw_fd(), Shutdown::Read).is_ok() {
            while let Ok((stream, _)) = listener.accept() {
                self.waiting.push(Requester { stream, since: None });
            }
        }
    }

    /// Answers all requesters: all files are published.
    pub fn end(mut self) {
        self.stop_accepting();
        self.waiting.iter().for_each(|requester| answer(&requester.stream));
    }
}

impl Requester {
    /// True while it is too early for an answer; `None` if the process has disconnected.
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
    // The process may be gone.
    let _ = stream.write_all(&[1]);
}
