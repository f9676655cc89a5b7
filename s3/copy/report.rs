//! What a worker reports: counts, now and then, and each failure. A thread writes it, since the reader may be slow.

use s4::client::blocking;
use s4::key::Key;
use s4::protocol::{Progress, WorkerEvent};
use std::io::Write;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

/// How an object came to be where it is.
pub enum Copied {
    /// Its bytes were compared with a checksum of the source.
    Verified,
    /// The source has no checksum of it.
    Unverified,
    /// It was there before.
    Skipped,
}

/// The interval of counts.
const INTERVAL: Duration = Duration::from_millis(300);
/// Limit of events that are not written yet.
const QUEUE: usize = 1024;

pub struct Report {
    /// Guards the counts.
    counts: Arc<Mutex<Progress>>,
    /// `None` after the end.
    events: Mutex<Option<mpsc::Sender<WorkerEvent>>>,
}

impl Report {
    /// The report, and the task that writes it.
    pub fn start() -> (Self, JoinHandle<()>) {
        let (events, mut queue) = mpsc::channel(QUEUE);
        let counts: Arc<Mutex<Progress>> = Arc::default();
        let (ticking, counted) = (events.downgrade(), counts.clone());
        tokio::spawn(async move {
            let mut last = Progress::default();
            loop {
                tokio::time::sleep(INTERVAL).await;
                let now = *counted.lock().unwrap_or_else(PoisonError::into_inner);
                let Some(events) = ticking.upgrade() else { return };
                if now != last && events.send(WorkerEvent::Progress(now)).await.is_err() {
                    return;
                }
                last = now;
            }
        });
        let last = counts.clone();
        let printer = tokio::spawn(blocking(move || {
            while let Some(event) = queue.blocking_recv() {
                if !print(&event) {
                    return;
                }
            }
            print(&WorkerEvent::Progress(*last.lock().unwrap_or_else(PoisonError::into_inner)));
        }));
        (Self { counts, events: Mutex::new(Some(events)) }, printer)
    }

    /// An object that will be copied.
    pub fn found(&self, len: u64) {
        let mut counts = self.lock();
        (counts.tasks, counts.bytes) = (counts.tasks + 1, counts.bytes + len);
    }

    pub fn begun(&self) {
        self.lock().running += 1;
    }

    pub fn ended(&self) {
        self.lock().running -= 1;
    }

    pub fn done(&self, len: u64, copied: &Copied) {
        let mut counts = self.lock();
        (counts.done, counts.bytes_done) = (counts.done + 1, counts.bytes_done + len);
        match copied {
            Copied::Verified => counts.outputs += 1,
            Copied::Unverified => (counts.outputs, counts.unverified) = (counts.outputs + 1, counts.unverified + 1),
            Copied::Skipped => counts.skipped += 1,
        }
    }

    /// The failure is written before it is counted.
    pub async fn failed(&self, key: Option<Key>, len: u64, reason: String) {
        let events = self.events.lock().unwrap_or_else(PoisonError::into_inner).clone();
        if let Some(events) = events {
            // If nobody reads, nobody needs it.
            let _ = events.send(WorkerEvent::Failure { key, reason }).await;
        }
        let mut counts = self.lock();
        (counts.failed, counts.bytes_failed) = (counts.failed + 1, counts.bytes_failed + len);
    }

    pub fn failures(&self) -> u64 {
        self.lock().failed
    }

    /// Nothing more is reported.
    pub fn finish(&self) {
        self.events.lock().unwrap_or_else(PoisonError::into_inner).take();
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Progress> {
        self.counts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// False if nobody reads.
fn print(event: &WorkerEvent) -> bool {
    let mut line = serde_json::to_vec(event).expect("an event is plain JSON");
    line.push(b'\n');
    let mut stdout = std::io::stdout().lock();
    stdout.write_all(&line).and_then(|()| stdout.flush()).is_ok()
}
