//! The close that publishes: which one it is, and how the bytes come to their node.

use super::{Fs, Handle, is_sure};
use crate::errno::Result;
use crate::growing::LARGE;
use crate::inodes::Ino;
use crate::proc::{Caller, Closing, anyone_writes};
use crate::spool::Spool;
use bytes::Bytes;
use nix::errno::Errno;
use s4::checksum::{self, Checksum};
use s4::client::blocking;
use s4::error::{Error, ErrorKind, Result as S4Result};
use s4::file::{AtPosition, is_alone, read_full};
use s4::key::Key;
use s4::protocol::{Change, KeyStat, Stat};
use s4::stored::draft;
use s4::time::{from_nanoseconds, to_nanoseconds};
use std::fs::File;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant, SystemTime};

/// Keys up to this size are published in one request.
pub(super) const SMALL: u64 = 256 * 1024;

/// How long it may take to find out who has a file open or in memory.
const LOOK: Duration = Duration::from_secs(1);

/// Files below this size are copied when they are published: that costs less than to find out who else has them open.
const SMALL_COPY: u64 = 1 << 20;

/// How long the kernel may take to let go of a file after its last close.
const LET_GO: Duration = Duration::from_millis(20);

/// How often it is looked at whether a mapping is gone that outlives the last close.
const MAPPED: Duration = Duration::from_millis(100);

/// After a lost answer: how long it is asked what became of the key though the deadline is over, and how often.
const LAST_QUESTION: Duration = Duration::from_millis(500);
const ASK_AGAIN: Duration = Duration::from_millis(100);

/// What is published: how the file looked when its bytes were taken, and what they are.
type Taken = ((u64, SystemTime), Checksum);

impl Fs {
    /// One descriptor is closed. Publishes if it is the close that does, and tells how that went.
    pub async fn flush(&self, ino: Ino, handle: u64, caller: Caller) -> Result<()> {
        let handle = self.handle(handle)?;
        let (spool, writer) = match &*handle {
            Handle::Spool { spool, writer: Some(writer) } => (spool, *writer),
            Handle::Control(file) => return file.close(ino, caller).await,
            Handle::Spool { .. } | Handle::Local(_) | Handle::Small(_) | Handle::Remote(_) => return Ok(()),
        };
        if spool.was_written_late() {
            tracing::warn!("{}: written to after its publishing close; that is in no key", spool.key());
            return Err(Errno::EIO);
        }
        if let Some(errno) = spool.failed() {
            // What it has written is in no key either.
            return Err(errno);
        }
        let written = spool.len().map_err(crate::errno::io_errno)? > 0;
        if !spool.is_open_ended() {
            return Ok(());
        }
        let is_opener = caller.is_of(writer);
        if !is_opener && spool.is_pending() && !(Caller { thread: writer }).is_over() {
            // The opener's close publishes, or the last one.
            spool.set_killed(caller.was_killed());
            return Ok(());
        }
        let closing = caller.closing(ino, !written);
        spool.set_killed(closing == Closing::Killed);
        if closing != Closing::Done || (!written && !spool.is_pending()) {
            return Ok(());
        }
        if spool.is_mappable() && self.has_mapped(ino, caller).await {
            // What it stores through a mapping is published once that is gone too.
            return Ok(());
        }
        // The opener has published an empty key, or is gone. Whoever else writes has until the last of them is done.
        let age = spool.age();
        if !is_opener && self.looked(move || anyone_writes(ino, false, age)).await {
            return Ok(());
        }
        self.publish(ino, spool, false).await
    }

    async fn has_mapped(&self, ino: Ino, caller: Caller) -> bool {
        match caller.is_alone() {
            // It waits for us, so that nobody is changing its memory: the look need not wait either.
            true => caller.has_mapped(ino),
            false => self.looked(move || caller.has_mapped(ino)).await,
        }
    }

    /// The last descriptor is closed, and nobody hears how it went.
    pub async fn release(&self, ino: Ino, handle: u64) {
        let handle = self.handles().files.remove(&handle);
        let (spool, writes) = match handle.as_deref() {
            Some(Handle::Spool { spool, writer }) => (spool, writer.is_some()),
            Some(Handle::Control(file)) => return file.release().await,
            Some(Handle::Local(_) | Handle::Small(_) | Handle::Remote(_)) => return self.inodes.closed(ino),
            None => return,
        };
        let (handles, writers) = spool.closed(writes);
        if handles == 0 && spool.is_open_ended() {
            self.release_last(ino, spool).await;
        }
        if writers == 0 {
            self.inodes.settle_spool(ino, spool);
            spool.settled.notify_waiters();
        }
        self.inodes.closed(ino);
        self.inodes.drop_unnamed(ino);
        if let Some(file) = spool.end() {
            self.spool_files.keep(&spool.dir, file);
        }
    }

    async fn release_last(&self, ino: Ino, spool: &Arc<Spool>) {
        let is_pending = spool.is_pending();
        if spool.was_killed() {
            if is_pending {
                spool.discard();
                self.inodes.unname_spool(spool);
            }
            return;
        }
        let _under_way = self.publishing.subscribe();
        if spool.is_mappable() {
            self.unmapped(spool).await;
        }
        if (is_pending || spool.len().is_ok_and(|len| len > 0))
            && let Err(errno) = self.publish(ino, spool, true).await
        {
            tracing::error!("{}: not published: {}", spool.key(), errno.desc());
        }
    }

    /// Waits until nobody stores in the file by a mapping any more. Where the kernel writes the file itself, one outlives the
    /// last close. Where that cannot be found out, a copy is published.
    async fn unmapped(&self, spool: &Spool) {
        let began = Instant::now();
        while self.passthrough.load(Ordering::Relaxed) && spool.file().is_ok_and(|file| is_alone(&file) == Ok(false)) {
            let is_late = began.elapsed() > LET_GO;
            tokio::time::sleep(if is_late { MAPPED } else { Duration::from_millis(1) }).await;
        }
    }

    /// Publishes a file, once; or once more if only an empty key was published of it. With `is_last`, nobody has it open.
    async fn publish(&self, ino: Ino, spool: &Arc<Spool>, is_last: bool) -> Result<()> {
        let _under_way = self.publishing.subscribe();
        let _turn = spool.publishing.lock().await;
        if !spool.is_open_ended() {
            return Ok(());
        }
        let (key, asked) = (spool.key(), spool.change());
        let making = self.misses.making_key(&key);
        let published = self.publish_surely(ino, spool, &key, asked, is_last).await;
        making.end(is_sure(&published));
        match published {
            Ok((snapshot, stat)) => {
                let is_whole = stat.checksum.len > 0;
                spool.set_published(snapshot, stat);
                if is_whole {
                    self.inodes.publish_spool(ino, spool);
                }
                self.change_late(spool, &key, asked).await;
                Ok(())
            }
            Err(error) => {
                tracing::warn!("{key}: not published: {error}");
                let errno = Errno::from_raw(error.kind().errno());
                spool.fail(errno);
                self.inodes.unname_spool(spool);
                Err(errno)
            }
        }
    }

    /// What the file was given while it was published is the key's too.
    async fn change_late(&self, spool: &Spool, key: &Key, published: Change) {
        let now = spool.change();
        if now == published {
            return;
        }
        spool.set_stat(now);
        if let Err(error) = self.client.change(key, now).await {
            // Published it is, so the close must not say that it is not.
            tracing::warn!("published, but the mode and time that it was given meanwhile are lost: {error}");
        }
    }

    /// Publishes; and where the answer is lost, finds out what became of the key, until the deadline.
    async fn publish_surely(
        &self,
        ino: Ino,
        spool: &Arc<Spool>,
        key: &Key,
        asked: Change,
        is_last: bool,
    ) -> S4Result<((u64, SystemTime), KeyStat)> {
        let failed = |e: std::io::Error| Error::io(key, &e);
        if spool.len().map_err(failed)? >= LARGE {
            let grown = spool.clone();
            // To make some changes its time for a moment.
            blocking(move || grown.stop_room()).await;
        }
        let until = Instant::now() + self.client.deadline();
        loop {
            let (.., mtime) = spool.look().map_err(failed)?;
            let mtime = to_nanoseconds(mtime);
            let over_empty = spool.published().is_some();
            let change = Change { mtime: Some(mtime), over_empty, ..asked };
            let stat = |checksum| KeyStat { checksum, mtime, mode: asked.mode.unwrap_or(0o444) };
            let error = match self.publish_bytes(ino, spool, key, change, is_last).await {
                Ok((snapshot, checksum)) => return Ok((snapshot, stat(checksum))),
                Err(error) if is_sure(&Err::<(), _>(error.clone())) => return Err(error),
                Err(error) => error,
            };
            let (file, snapshot) = (spool.file().map_err(failed)?, spool.snapshot().map_err(failed)?);
            match self.became(key, until).await {
                Some(Stat::Key(found)) if is_ours(&found, file, snapshot.0, mtime).await.map_err(failed)? => {
                    return Ok((snapshot, found));
                }
                Some(Stat::Key(found)) if !over_empty || found.checksum.len > 0 => {
                    return Err(Error::new(ErrorKind::AlreadyExists, format!("{key}: key already exists")));
                }
                // The node has not made it, and does not for one who has hung up: it may be sent again.
                Some(_) if Instant::now() < until => tracing::info!("{error}; it is published again"),
                Some(_) | None => return Err(error),
            }
        }
    }

    /// What is at the name now; `None` if the node says nothing until the deadline.
    async fn became(&self, key: &Key, until: Instant) -> Option<Stat> {
        let until = until.max(Instant::now() + LAST_QUESTION);
        let node = self.home(key);
        loop {
            let left = until.saturating_duration_since(Instant::now());
            match tokio::time::timeout(left, self.client.stat(node, key.as_str())).await {
                Ok(Ok(stat)) => return Some(stat),
                Ok(Err(_)) if Instant::now() + ASK_AGAIN < until => tokio::time::sleep(ASK_AGAIN).await,
                Ok(Err(_)) | Err(_) => return None,
            }
        }
    }

    async fn publish_bytes(
        &self,
        ino: Ino,
        spool: &Arc<Spool>,
        key: &Key,
        change: Change,
        is_last: bool,
    ) -> S4Result<Taken> {
        let failed = |e: std::io::Error| Error::io(key, &e);
        let (file, snapshot) = (spool.file().map_err(failed)?, spool.seal().map_err(failed)?);
        if snapshot.0 <= SMALL {
            let mut bytes = vec![0; snapshot.0 as usize];
            let filled = read_full(&file, &mut bytes, 0).map_err(failed)?;
            bytes.truncate(filled);
            let checksum = self.client.put_small(key, Bytes::from(bytes), change).await?;
            return Ok((snapshot, checksum));
        }
        if let Some(dir) = self.local.dir(self.home(key)) {
            match self.publish_here(ino, spool, dir, (snapshot, change), is_last).await {
                // A daemon that cannot see our file takes its bytes.
                Err(error) if error.kind() == ErrorKind::BadRequest => {}
                done => return done,
            }
        }
        if let Some(ahead) = spool.take_ahead()
            && let Some(checksum) = ahead.publish(file.clone(), snapshot.0, change).await?
        {
            return Ok((snapshot, checksum));
        }
        let input = AtPosition::new(file, 0);
        let checksum = self.client.put_born(key, input, "the spool", change).await?;
        Ok((snapshot, checksum))
    }

    /// Has the daemon of this machine link the file itself, or a copy where others may still write to it: the kernel lets
    /// them write without asking us.
    async fn publish_here(
        &self,
        ino: Ino,
        spool: &Arc<Spool>,
        dir: &Path,
        (snapshot, change): ((u64, SystemTime), Change),
        is_last: bool,
    ) -> S4Result<Taken> {
        let key = spool.key();
        let failed = |e: std::io::Error| Error::io(&key, &e);
        let file = spool.file().map_err(failed)?;
        let copied = match self.may_change(ino, spool, &file, snapshot.0, is_last).await {
            true => {
                let (original, dir) = (file.clone(), dir.to_owned());
                Some(blocking(move || copy(original, &dir)).await.map_err(failed)?)
            }
            false => None,
        };
        if copied.is_none() && snapshot.0 >= LARGE {
            let grown = spool.clone();
            blocking(move || grown.end_room()).await;
        }
        // The daemon reads the whole file before it answers.
        let adoption = spool.adoption(copied.as_ref().unwrap_or(&file), change)?;
        let checksum = self.client.patient(snapshot.0).adopt(&key, &adoption).await?;
        // Linked, it has the key's time, unless it was written to since.
        let linked = change.mtime.filter(|_| copied.is_none()).map(from_nanoseconds);
        Ok(((snapshot.0, linked.unwrap_or(snapshot.1)), checksum))
    }

    /// True if anyone may still write to the file without asking us, or if it costs too much to find out.
    async fn may_change(&self, ino: Ino, spool: &Spool, file: &Arc<File>, len: u64, is_last: bool) -> bool {
        if !self.passthrough.load(Ordering::Relaxed) {
            return false;
        }
        // One that has just opened it may not have its descriptor yet.
        let (handles, writers) = spool.handles();
        if writers > 1 || (is_last && handles > 0) {
            return true;
        }
        if is_last {
            let began = Instant::now();
            loop {
                match is_alone(file) {
                    Ok(true) => return false,
                    Ok(false) if began.elapsed() <= LET_GO => tokio::time::sleep(Duration::from_millis(1)).await,
                    Ok(false) | Err(_) => return true,
                }
            }
        }
        let (mappable, age) = (spool.is_mappable(), spool.age());
        len < SMALL_COPY || self.looked(move || anyone_writes(ino, mappable, age)).await
    }

    /// What a look at processes finds, or true if it takes too long: one that hangs while it executes another program holds up
    /// who looks at it. So few look at once that those who are held up take little; the others wait for their turn.
    async fn looked(&self, look: impl FnOnce() -> bool + Send + 'static) -> bool {
        let looked = async {
            // It would fail once the semaphore is closed, which it never is.
            let permit = self.looks.clone().acquire_owned().await.ok()?;
            let look = move || (look(), permit).0;
            Some(blocking(look).await)
        };
        tokio::time::timeout(LOOK, looked).await.ok().flatten().unwrap_or(true)
    }
}

/// True if the key is the one that we have made of `file`: of the same bytes, last written in the same nanosecond.
async fn is_ours(found: &KeyStat, file: Arc<File>, len: u64, mtime: i64) -> std::io::Result<bool> {
    // To read much only for a key that may be ours: the close waits.
    let may_be = found.mtime == mtime && found.checksum.len == len;
    Ok(may_be && blocking(move || checksum::of_file(&file)).await? == found.checksum)
}

fn copy(file: Arc<File>, dir: &Path) -> std::io::Result<File> {
    let mut copy = draft(dir)?;
    std::io::copy(&mut AtPosition::new(file, 0), &mut copy)?;
    Ok(copy)
}
