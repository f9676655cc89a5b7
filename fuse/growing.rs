//! Files that become large while they are still written. Those for other nodes are [sent](crate::ahead) meanwhile; those that
//! stay here get space ahead of what is written, as do the others while they are sent.

use crate::ahead::Sending;
use crate::spool::Spool;
use s4::reserve;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant};
use tokio::sync::Notify;

/// Bytes from which on a file is worth it.
pub const LARGE: u64 = reserve::LEAST;
/// How long after its making a file is looked at first, and how seldom at last.
const FIRST_LOOK: Duration = Duration::from_millis(20);
const LAST_LOOK: Duration = Duration::from_secs(1);

/// Looks after files until they are sent or closed. One task does so for all: to start or to wake one for each small file would
/// cost more than its close. Clones look after the same.
#[derive(Clone)]
pub struct Growing {
    sending: Sending,
    watched: Arc<Mutex<Watched>>,
    /// Tells the task that a file is to be looked at before it would.
    sooner: Arc<Notify>,
}

/// Guards the files that are looked after.
#[derive(Default)]
struct Watched {
    files: Vec<Young>,
    /// When the task that looks after them does so next, if there is one.
    next: Option<Instant>,
}

/// A file that may become large.
struct Young {
    spool: Weak<Spool>,
    /// Its key's node is on this machine.
    stays: bool,
    /// Its length at the last look.
    len: u64,
    look: Instant,
    pause: Duration,
}

impl Growing {
    pub fn new(sending: Sending) -> Self {
        Self { sending, watched: Arc::default(), sooner: Arc::default() }
    }

    /// Looks after one more; `stays` if its key's node is on this machine.
    pub fn watch(&self, spool: &Arc<Spool>, stays: bool) {
        let mut watched = self.watched();
        let look = Instant::now() + FIRST_LOOK;
        watched.files.push(Young { spool: Arc::downgrade(spool), stays, len: 0, look, pause: FIRST_LOOK });
        match watched.next {
            None => {
                watched.next = Some(look);
                tokio::spawn(self.clone().look_after_all(look));
            }
            Some(next) if next > look + FIRST_LOOK => {
                watched.next = Some(look);
                self.sooner.notify_one();
            }
            Some(_) => {}
        }
    }

    /// From `next` on, until there are none.
    async fn look_after_all(self, mut next: Instant) {
        loop {
            let called = tokio::time::timeout_at(next.into(), self.sooner.notified()).await.is_ok();
            let (now, mut watched) = (Instant::now(), self.watched());
            if !called {
                watched.files.retain_mut(|young| young.look > now || self.look_at(young, now));
                let sooner = watched.files.iter().map(|young| young.look).min();
                watched.next = sooner.map(|look| look.max(now + FIRST_LOOK));
            }
            match watched.next {
                Some(look) => next = look,
                None => return,
            }
        }
    }

    /// False if there is no need to look at it again.
    fn look_at(&self, young: &mut Young, now: Instant) -> bool {
        let Some(spool) = young.spool.upgrade().filter(|spool| spool.may_go_ahead()) else { return false };
        let len = spool.len().unwrap_or(0);
        let has_grown = len > std::mem::replace(&mut young.len, len);
        young.pause = match (len >= LARGE, young.stays) {
            (true, false) if self.sending.begin(spool.clone()) => return false,
            (true, true) if has_grown => {
                tokio::task::spawn_blocking(move || spool.make_room());
                FIRST_LOOK
            }
            _ => (young.pause * 2).min(LAST_LOOK),
        };
        young.look = now + young.pause;
        true
    }

    fn watched(&self) -> MutexGuard<'_, Watched> {
        self.watched.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
