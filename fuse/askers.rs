//! Those who take the mount away and ask whether all that was closed in it is published; see `s4::mounts`.

use nix::sys::socket::{Shutdown, shutdown};
use s4::mounts;
use std::io::{ErrorKind, Read, Write};
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};
use tokio::net::UnixListener;

/// How long the last releases may take to come to their publish.
pub const SETTLE: Duration = Duration::from_millis(50);

pub struct Askers {
    listener: Option<UnixListener>,
    asked: Vec<Asker>,
}

struct Asker {
    stream: UnixStream,
    /// When it had taken the mount away.
    since: Option<Instant>,
}

impl Askers {
    /// Of the mount whose file system has this number.
    pub fn of(device: Option<&str>) -> Self {
        let in_runtime = |listener: std::os::unix::net::UnixListener| {
            listener.set_nonblocking(true).and_then(|()| UnixListener::from_std(listener)).ok()
        };
        let listener = device.and_then(mounts::listen).and_then(in_runtime);
        if listener.is_none() {
            tracing::warn!("no socket can be made for 's4 umount', which so will not wait until all is published");
        }
        Self { listener, asked: Vec::new() }
    }

    /// Takes the next one. Never, without a place where is asked.
    pub async fn take(&mut self) {
        let Some(listener) = &self.listener else { return std::future::pending().await };
        match listener.accept().await.and_then(|(stream, _)| stream.into_std()) {
            Ok(stream) => self.asked.push(Asker { stream, since: None }),
            Err(_) => tokio::time::sleep(SETTLE).await,
        }
    }

    /// Answers those who have taken the mount away, which others still use.
    pub fn answer(&mut self, all_published: bool) {
        self.asked.retain_mut(|asker| {
            let waits = asker.waits();
            if waits == Some(false) && all_published {
                tell(&asker.stream);
            }
            waits == Some(true)
        });
    }

    /// To be called once the mount is gone: who comes then asks for another of its number.
    pub fn take_no_more(&mut self) {
        let Some(listener) = self.listener.take().and_then(|listener| listener.into_std().ok()) else { return };
        // Those who have come are heard all the same.
        if shutdown(listener.as_raw_fd(), Shutdown::Read).is_ok() {
            while let Ok((stream, _)) = listener.accept() {
                self.asked.push(Asker { stream, since: None });
            }
        }
    }

    /// Answers all: all is published.
    pub fn end(mut self) {
        self.take_no_more();
        self.asked.iter().for_each(|asker| tell(&asker.stream));
    }
}

impl Asker {
    /// True while it is too early for an answer; `None` for one who wants none any more.
    fn waits(&mut self) -> Option<bool> {
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

fn tell(mut stream: &UnixStream) {
    // Nobody may be listening any more.
    let _ = stream.write_all(&[1]);
}
