//! Watches files for nodes of other machines while they are written, until they are large, closed, or gone. A large
//! file is [uploaded](crate::eager_upload) before its close.

use crate::eager_upload::EagerUploads;
use crate::spool::Spool;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant};
use tokio::sync::{Notify, OwnedSemaphorePermit};

/// Bytes from which on a file counts as large.
const LARGE: u64 = 16 << 20;
/// How long after its creation a file is first checked, and the longest pause between two checks.
const FIRST_CHECK: Duration = Duration::from_millis(20);
const LONGEST_PAUSE: Duration = Duration::from_secs(1);

/// One task watches all files: starting or waking a task for each small file would cost more than its close. Clones
/// share the task.
#[derive(Clone)]
pub struct SizeWatcher {
    uploads: EagerUploads,
    watched: Arc<Mutex<Watched>>,
    /// Wakes the task for a file that is due before the others.
    sooner: Arc<Notify>,
}

/// Guards the files that are watched.
#[derive(Default)]
struct Watched {
    files: Vec<WatchedFile>,
    /// When the task checks them next; `None` if there is no task.
    next: Option<Instant>,
}

struct WatchedFile {
    spool: Weak<Spool>,
    due: Instant,
    pause: Duration,
}

impl SizeWatcher {
    pub fn new(uploads: EagerUploads) -> Self {
        Self { uploads, watched: Arc::default(), sooner: Arc::default() }
    }

    /// Watches one more file.
    pub fn watch(&self, spool: &Arc<Spool>) {
        let mut watched = self.watched();
        let due = Instant::now() + FIRST_CHECK;
        watched.files.push(WatchedFile { spool: Arc::downgrade(spool), due, pause: FIRST_CHECK });
        match watched.next {
            None => {
                watched.next = Some(due);
                tokio::spawn(self.clone().run(due));
            }
            Some(next) if next > due + FIRST_CHECK => {
                watched.next = Some(due);
                self.sooner.notify_one();
            }
            Some(_) => {}
        }
    }

    /// Checks all files that are due, from `next` on, until none is left.
    async fn run(self, mut next: Instant) {
        loop {
            let was_woken = tokio::time::timeout_at(next.into(), self.sooner.notified()).await.is_ok();
            let (now, mut watched) = (Instant::now(), self.watched());
            if !was_woken {
                watched.files.retain_mut(|file| file.due > now || self.check(file, now));
                let due = watched.files.iter().map(|file| file.due).min();
                watched.next = due.map(|due| due.max(now + FIRST_CHECK));
            }
            match watched.next {
                Some(due) => next = due,
                None => return,
            }
        }
    }

    /// False if the file need not be watched any more.
    fn check(&self, file: &mut WatchedFile, now: Instant) -> bool {
        let Some(spool) = file.spool.upgrade().filter(|spool| spool.may_upload()) else { return false };
        if spool.len().is_ok_and(|len| len >= LARGE)
            && let Some(permit) = self.uploads.permit()
        {
            tokio::spawn(upload(self.uploads.clone(), spool, permit));
            return false;
        }
        file.pause = (file.pause * 2).min(LONGEST_PAUSE);
        file.due = now + file.pause;
        true
    }

    fn watched(&self) -> MutexGuard<'_, Watched> {
        self.watched.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Starts the upload of `spool`, and hands it over for the close.
async fn upload(uploads: EagerUploads, spool: Arc<Spool>, permit: OwnedSemaphorePermit) {
    let Ok(file) = spool.file() else { return };
    if let Some(upload) = uploads.start(spool.key(), file, permit).await {
        spool.set_upload(upload);
    }
}
