//! Which close publishes a file: the last close of the process that opened it for writing. The kernel sends a flush for
//! every closed descriptor, also for a duplicated or inherited one, so /proc must show which descriptor is the last. If
//! no flush has published the file, the release of its last handle does.

use super::namespace::Namespace;
use super::publisher::Publisher;
use super::writers::Writers;
use crate::errno::{Result, io_errno};
use crate::inodes::Ino;
use crate::proc::{AfterClose, Caller};
use crate::spool::Spool;
use crate::spool::files::SpoolFiles;
use nix::errno::Errno;
use s4::client::blocking;
use std::sync::Arc;

pub struct Closes {
    namespace: Arc<Namespace>,
    writers: Arc<Writers>,
    publisher: Arc<Publisher>,
    spool_files: Arc<SpoolFiles>,
}

impl Closes {
    pub fn new(
        namespace: Arc<Namespace>,
        writers: Arc<Writers>,
        publisher: Arc<Publisher>,
        spool_files: Arc<SpoolFiles>,
    ) -> Self {
        Self { namespace, writers, publisher, spool_files }
    }

    /// Handles a close by `caller` of a handle that process `opener` opened for writing. If this is the publishing
    /// close, publishes the file and returns the result.
    pub async fn flush(&self, ino: Ino, spool: &Arc<Spool>, opener: u32, caller: Caller) -> Result<()> {
        let late = spool.clone();
        if spool.has_changed() && blocking(move || late.was_written_late()).await {
            tracing::warn!("{}: written to after its publishing close; that is in no key", spool.key());
            return Err(Errno::EIO);
        }
        if let Some(errno) = spool.failed() {
            // The bytes of this process are in no key either.
            return Err(errno);
        }
        let has_bytes = spool.len().map_err(io_errno)? > 0;
        if !spool.may_publish() {
            return Ok(());
        }
        let is_opener = caller.is_of(opener);
        if !is_opener && spool.is_unpublished() && !(Caller { thread: opener }).is_over() {
            // A close of the opener or the last release will publish.
            spool.closed_by(caller.was_killed());
            return Ok(());
        }
        let left = caller.after_close(ino, !has_bytes);
        spool.closed_by(left == AfterClose::Killed);
        if left != AfterClose::Closed || (!has_bytes && !spool.is_unpublished()) {
            return Ok(());
        }
        if spool.is_mappable() && self.writers.has_mapped(ino, caller).await {
            // The file is published once the mapping is gone, with the bytes that were written through it.
            spool.acknowledge();
            return Ok(());
        }
        // The opener has published an empty key, or is gone. Then the last of the other writers publishes.
        if !is_opener && self.writers.is_held(ino, spool).await {
            return Ok(());
        }
        let published = self.publisher.publish(ino, spool, false).await;
        if published.is_err() && caller.is_ending() {
            self.publisher.note_lost();
        }
        published
    }

    /// The last descriptor of a handle is closed; errors can only be logged. `writes`: it was opened for writing.
    pub async fn release(&self, ino: Ino, spool: &Arc<Spool>, writes: bool) {
        let left = spool.remove_handle(writes);
        if left.all == 0 && spool.may_publish() {
            self.release_last(ino, spool).await;
        }
        if left.writers == 0 {
            let _turn = spool.publishing.lock().await;
            // Another process may have opened it meanwhile.
            if spool.handles().writers == 0 {
                self.namespace.inodes.settle_spool(ino, spool);
                spool.settled.notify_waiters();
            }
        }
        self.namespace.inodes.remove_open(ino);
        self.namespace.inodes.drop_forgotten(ino);
        if let Some(file) = spool.end() {
            self.spool_files.keep(&spool.dir, file);
        }
    }

    async fn release_last(&self, ino: Ino, spool: &Arc<Spool>) {
        if spool.was_killed() {
            self.discard_killed(spool).await;
            return;
        }
        let _running = self.publisher.begin();
        let is_due = || spool.is_unpublished() || spool.len().is_ok_and(|len| len > 0);
        if is_due() {
            // It must be published, even if a process that opens it from now on is killed.
            spool.acknowledge();
        }
        if spool.is_mappable() {
            self.writers.unmapped(spool).await;
        }
        if is_due()
            && let Err(errno) = self.publisher.publish(ino, spool, true).await
        {
            tracing::error!("{}: not published: {}", spool.key(), errno.desc());
            self.publisher.note_lost();
        }
    }

    /// Discards a file whose writer was killed.
    async fn discard_killed(&self, spool: &Arc<Spool>) {
        let _turn = spool.publishing.lock().await;
        if !spool.is_unpublished() || spool.handles().writers > 0 || !spool.was_killed() {
            return;
        }
        if let Ok(len @ 1..) = spool.len() {
            tracing::warn!("{}: not published: who wrote its {len} bytes was killed", spool.key());
        }
        spool.discard();
        self.namespace.inodes.free_spool_name(spool);
    }
}
