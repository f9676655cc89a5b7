//! The close that publishes: which one it is, and how the bytes come to their node.

use super::{Fs, Handle};
use crate::errno::Result;
use crate::growing::LARGE;
use crate::inodes::Ino;
use crate::proc::{Caller, Closing, anyone_writes};
use crate::spool::Spool;
use bytes::Bytes;
use nix::errno::Errno;
use s4::checksum::Checksum;
use s4::client::{Client, TRIES, blocking};
use s4::error::{Error, ErrorKind, Result as S4Result};
use s4::file::{AtPosition, is_alone, read_full};
use s4::key::Key;
use s4::protocol::{Change, KeyStat};
use s4::stored::draft;
use s4::time::{from_nanoseconds, to_nanoseconds};
use std::fs::File;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant, SystemTime};
use tokio::task::JoinSet;

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
        let late = spool.clone();
        if spool.has_changed() && blocking(move || late.was_written_late()).await {
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
            spool.owe();
            return Ok(());
        }
        // The opener has published an empty key, or is gone. Whoever else writes has until the last of them is done.
        let age = spool.age();
        if !is_opener && self.looked(move || anyone_writes(ino, false, age)).await {
            return Ok(());
        }
        let published = self.publish(ino, spool, false).await;
        if published.is_err() && caller.is_ending() {
            self.lost.store(true, Ordering::Relaxed);
        }
        published
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
            let _turn = spool.publishing.lock().await;
            // Another may have opened it meanwhile.
            if spool.handles().1 == 0 {
                self.inodes.settle_spool(ino, spool);
                spool.settled.notify_waiters();
            }
        }
        self.inodes.closed(ino);
        self.inodes.drop_unnamed(ino);
        if let Some(file) = spool.end() {
            self.spool_files.keep(&spool.dir, file);
        }
    }

    /// Releases what was closed when the mount was taken away, and of which the kernel has told nothing any more.
    pub async fn release_rest(self: &Arc<Self>) {
        let spool_of = |(number, handle): (&u64, &Arc<Handle>)| match &**handle {
            Handle::Spool { spool, .. } => Some((*number, spool.clone())),
            _ => None,
        };
        let rest: Vec<_> = self.handles().files.iter().filter_map(spool_of).collect();
        let mut releases = JoinSet::new();
        for (number, spool) in rest {
            if let Some(ino) = self.inodes.number_of(&spool) {
                let fs = self.clone();
                releases.spawn(async move { fs.release(ino, number).await });
            }
        }
        releases.join_all().await;
    }

    async fn release_last(&self, ino: Ino, spool: &Arc<Spool>) {
        let is_pending = spool.is_pending();
        if spool.was_killed() && !spool.is_owed() {
            let _turn = spool.publishing.lock().await;
            if is_pending && spool.handles().1 == 0 && !spool.is_owed() {
                if let Ok(len @ 1..) = spool.len() {
                    tracing::warn!("{}: not published: who wrote its {len} bytes was killed", spool.key());
                }
                spool.discard();
                self.inodes.unname_spool(spool);
            }
            return;
        }
        let _under_way = self.publishing.subscribe();
        if is_pending || spool.len().is_ok_and(|len| len > 0) {
            // Also if another opens it now, and is killed.
            spool.owe();
        }
        if spool.is_mappable() {
            self.unmapped(spool).await;
        }
        if (is_pending || spool.len().is_ok_and(|len| len > 0))
            && let Err(errno) = self.publish(ino, spool, true).await
        {
            tracing::error!("{}: not published: {}", spool.key(), errno.desc());
            self.lost.store(true, Ordering::Relaxed);
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

    /// Publishes a file, once; or once more if only an empty key was published of it. With `is_last`, nobody had it open, and the close of
    /// a writer who has it by now will publish it.
    async fn publish(&self, ino: Ino, spool: &Arc<Spool>, is_last: bool) -> Result<()> {
        let _under_way = self.publishing.subscribe();
        let _turn = spool.publishing.lock().await;
        if !spool.is_open_ended() || (is_last && spool.handles().1 > 0) {
            return Ok(());
        }
        let (key, asked) = (spool.key(), spool.change());
        let published = self.publish_surely(ino, spool, &key, asked, is_last).await;
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

    /// Publishes, once more where [`Fs::surely`] does so.
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
        self.surely(|client| async move {
            let (.., mtime) = spool.look().map_err(failed)?;
            let mtime = to_nanoseconds(mtime);
            let change = Change { mtime: Some(mtime), over_empty: spool.published().is_some(), ..asked };
            let (snapshot, checksum) = self.publish_bytes(&client, (ino, is_last), spool, key, change).await?;
            Ok((snapshot, KeyStat { checksum, mtime, mode: asked.mode.unwrap_or(0o444) }))
        })
        .await
    }

    /// Makes a key; once more if the connection breaks off and it was not made.
    pub(super) async fn surely<T, F>(&self, mut make: impl FnMut(Client) -> F) -> S4Result<T>
    where
        F: Future<Output = S4Result<T>>,
    {
        let (mut client, until) = (self.client.clone(), Instant::now() + self.client.deadline());
        let mut tries = TRIES;
        loop {
            tries -= 1;
            match make(client).await {
                Err(error) if error.is_of_broken_connection() && tries > 0 && Instant::now() < until => {
                    tracing::info!("{error}; it is published again");
                    client = self.client.with_deadline(until - Instant::now());
                }
                // The node found that too little of the deadline was left for it, or that we had hung up.
                Err(error) if error.kind() == ErrorKind::Cancelled => {
                    return Err(Error::new(ErrorKind::Deadline, error.to_string()));
                }
                made => return made,
            }
        }
    }

    async fn publish_bytes(
        &self,
        client: &Client,
        closing: (Ino, bool),
        spool: &Arc<Spool>,
        key: &Key,
        change: Change,
    ) -> S4Result<Taken> {
        let failed = |e: std::io::Error| Error::io(key, &e);
        let (file, snapshot) = (spool.file().map_err(failed)?, spool.seal().map_err(failed)?);
        if snapshot.0 <= SMALL {
            let mut bytes = vec![0; snapshot.0 as usize];
            let filled = read_full(&file, &mut bytes, 0).map_err(failed)?;
            bytes.truncate(filled);
            let checksum = client.put_small(key, Bytes::from(bytes), change).await?;
            return Ok((snapshot, checksum));
        }
        if let Some(dir) = self.local.dir(self.home(key)) {
            match self.publish_here(client, closing, spool, dir, (snapshot, change)).await {
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
        let checksum = client.put(key, input, "the spool", change).await?;
        Ok((snapshot, checksum))
    }

    /// Has the daemon of this machine link the file itself, or a copy where others may still write to it: the kernel lets
    /// them write without asking us.
    async fn publish_here(
        &self,
        client: &Client,
        (ino, is_last): (Ino, bool),
        spool: &Arc<Spool>,
        dir: &Path,
        (snapshot, change): ((u64, SystemTime), Change),
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
        let offered = copied.as_ref().unwrap_or(&file);
        let adoption = spool.adoption(offered, change)?;
        let checksum = client.patient(snapshot.0).adopt(&key, offered, &adoption).await?;
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

fn copy(file: Arc<File>, dir: &Path) -> std::io::Result<File> {
    let mut copy = draft(dir)?;
    std::io::copy(&mut AtPosition::new(file, 0), &mut copy)?;
    Ok(copy)
}
