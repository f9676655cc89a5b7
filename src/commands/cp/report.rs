//! The messages of a copy of many keys: failures as they happen, progress on a terminal, and counts at the end.

use crate::commands::console::print_message;
use crate::commands::display::{Display, bar, is_terminal};
use crate::commands::format::{counted, cut, seconds_text, size_text};
use s4::client::PutCounts;
use s4::error::{Error, ErrorKind, ExitStatus, Result};
use s4::error_summary::Errors;
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};
use tokio::task::AbortHandle;
use tokio::time::MissedTickBehavior;

/// The interval of the display. A shorter copy shows none.
const TICK: Duration = Duration::from_millis(200);

/// True if the node no longer answers.
pub fn is_of_lost_node(error: &Error) -> bool {
    matches!(error.kind(), ErrorKind::Deadline | ErrorKind::Unreachable)
}

/// The counters of a copy.
#[derive(Debug, Default)]
pub struct Counts {
    pub copied: PutCounts,
    existing: AtomicU64,
    existing_bytes: AtomicU64,
    /// Keys and bytes of the whole copy, once they are known.
    pub all: OnceLock<(u64, u64)>,
}

impl Counts {
    pub fn add_key(&self) {
        self.copied.keys.fetch_add(1, Ordering::Relaxed);
    }

    pub fn add_bytes(&self, bytes: u64) {
        self.copied.bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    /// Counts a key that is skipped because it exists.
    pub fn add_existing(&self, bytes: u64) {
        self.existing.fetch_add(1, Ordering::Relaxed);
        self.existing_bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    fn now(&self, elapsed: Duration) -> Snapshot {
        Snapshot {
            keys: self.copied.keys.load(Ordering::Relaxed),
            bytes: self.copied.bytes.load(Ordering::Relaxed),
            existing: self.existing.load(Ordering::Relaxed),
            existing_bytes: self.existing_bytes.load(Ordering::Relaxed),
            all: self.all.get().copied(),
            elapsed,
        }
    }
}

/// The counters at one moment.
struct Snapshot {
    keys: u64,
    bytes: u64,
    existing: u64,
    existing_bytes: u64,
    all: Option<(u64, u64)>,
    elapsed: Duration,
}

impl Snapshot {
    fn rate(&self) -> String {
        size_text((self.bytes as f64 / self.elapsed.as_secs_f64().max(0.001)) as u64) + "/s"
    }

    /// The share that is done, from 0 to 1. Measured in bytes if there are any.
    fn share(&self) -> Option<f64> {
        let (keys, bytes) = self.all?;
        let share = match bytes {
            0 => (self.keys + self.existing) as f64 / keys.max(1) as f64,
            _ => (self.bytes + self.existing_bytes) as f64 / bytes as f64,
        };
        Some(share.clamp(0.0, 1.0))
    }

    fn left_out(&self) -> String {
        match self.existing {
            0 => String::new(),
            existing => format!(", {} left out", counted(existing, "existing key")),
        }
    }

    /// Two lines of at most `width` characters; fewer if `height` is less.
    fn lines(&self, width: usize, height: usize) -> Vec<String> {
        let (keys, bytes) = match self.all {
            Some((keys, bytes)) => {
                (format!("{}/{keys}", self.keys), format!("{} of {}", size_text(self.bytes), size_text(bytes)))
            }
            None => (self.keys.to_string(), size_text(self.bytes)),
        };
        let mut text = String::new();
        if let Some(share) = self.share() {
            text += &format!(" {:3.0}%,", share * 100.0);
        }
        text += &format!(" {}", self.rate());
        if let Some(share) = self.share().filter(|share| *share > 0.0) {
            text += &format!(", {} left", seconds_text(self.elapsed.as_secs_f64() / share * (1.0 - share)));
        }
        let bar = self.share().map_or_else(String::new, |share| bar(share, width.saturating_sub(text.len())));
        let lines = [format!("cp {keys} keys, {bytes}{}", self.left_out()), bar + &text];
        lines.iter().take(height).map(|line| cut(line.trim_start(), width)).collect()
    }
}

/// The text for the end of the copy.
impl fmt::Display for Snapshot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (keys, bytes, time) =
            (counted(self.keys, "key"), size_text(self.bytes), seconds_text(self.elapsed.as_secs_f64()));
        write!(f, "{keys} copied, {bytes} in {time} ({}){}", self.rate(), self.left_out())
    }
}

/// The report of a copy. Dropping it clears the display.
pub struct Report {
    pub counts: Arc<Counts>,
    began: Instant,
    live: Option<Live>,
    errors: Errors,
    /// Print the counts even without a terminal, because skipped files must not be missing silently.
    prints_end: bool,
}

/// The display and its task.
struct Live {
    display: Arc<Mutex<Display>>,
    drawing: AbortHandle,
}

impl Report {
    /// Shows progress if stderr is a terminal.
    pub fn start(prints_end: bool) -> Self {
        let (counts, began) = (Arc::new(Counts::default()), Instant::now());
        let live = is_terminal().then(|| Live::start(counts.clone(), began));
        Self { counts, began, live, errors: Errors::default(), prints_end }
    }

    /// True if progress is shown, so that counting the total is useful.
    pub fn is_live(&self) -> bool {
        self.live.is_some()
    }

    /// Reports an error of one key. The first error is kept for the exit status. Of each kind, the next errors are
    /// printed at once, and the others are counted.
    pub fn fail(&mut self, error: Error) {
        self.fail_all(error.into());
    }

    /// Reports errors.
    pub fn fail_all(&mut self, errors: Errors) {
        let known = self.errors.kept().len().max(1);
        self.errors.append(errors);
        self.errors.kept().iter().skip(known).for_each(|error| self.print_above(error));
    }

    /// Prints a message above the display.
    pub fn print_above(&self, text: impl fmt::Display) {
        let _display = self.live.as_ref().map(Live::wiped);
        print_message(text);
    }

    /// True once a node is lost. Then the copy cannot be complete, so it ends at once.
    pub fn is_lost(&self) -> bool {
        self.errors.kept().first().is_some_and(is_of_lost_node)
    }

    /// Clears the display, and prints the counts.
    pub fn finish(mut self) -> Result<ExitStatus> {
        self.errors.others().for_each(|(kind, more)| self.print_above(others_text(kind, more)));
        if self.live.is_some() || self.prints_end {
            self.print_above(self.counts.now(self.began.elapsed()));
        }
        std::mem::take(&mut self.errors).into_first().map_or(Ok(ExitStatus::Done), Err)
    }
}

/// The text about the errors of a kind that were not printed.
fn others_text(kind: ErrorKind, more: u64) -> String {
    let more = counted(more, "more key");
    match kind {
        ErrorKind::AlreadyExists => format!("{more} already exist; --skip-existing leaves such keys out"),
        _ => format!("{more} failed in the same way"),
    }
}

impl Live {
    fn start(counts: Arc<Counts>, began: Instant) -> Self {
        let display: Arc<Mutex<Display>> = Arc::default();
        let shown = display.clone();
        let drawing = tokio::spawn(async move {
            let mut ticks = tokio::time::interval_at(tokio::time::Instant::now() + TICK, TICK);
            ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
            loop {
                ticks.tick().await;
                let snapshot = counts.now(began.elapsed());
                let mut display = shown.lock().unwrap_or_else(PoisonError::into_inner);
                display.draw(|width, height| snapshot.lines(width, height));
            }
        });
        Self { display, drawing: drawing.abort_handle() }
    }

    fn wiped(&self) -> MutexGuard<'_, Display> {
        let mut display = self.display.lock().unwrap_or_else(PoisonError::into_inner);
        display.wipe();
        display
    }
}

impl Drop for Live {
    fn drop(&mut self) {
        self.drawing.abort();
        drop(self.wiped());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn snapshot(all: Option<(u64, u64)>) -> Snapshot {
        Snapshot { keys: 120, bytes: 1 << 30, existing: 3, existing_bytes: 0, all, elapsed: Duration::from_secs(4) }
    }

    #[test]
    fn the_lines_say_keys_bytes_rate_and_time_left() {
        let lines = snapshot(Some((500, 4 << 30))).lines(100, 24);
        assert_eq!(lines[0], "cp 120/500 keys, 1.0G of 4.0G, 3 existing keys left out");
        assert!(lines[1].starts_with("[#####") && lines[1].ends_with("]  25%, 256.0M/s, 12.0 s left"), "{}", lines[1]);
        // Before the listing has ended, the total is not known.
        assert_eq!(snapshot(None).lines(100, 24)[1], "256.0M/s");
        assert_eq!(snapshot(None).to_string(), "120 keys copied, 1.0G in 4.00 s (256.0M/s), 3 existing keys left out");
    }

    #[test]
    fn the_display_fits_into_every_size_of_terminal() {
        for width in 0..100 {
            for height in 1..4 {
                let lines = snapshot(Some((500, 4 << 30))).lines(width, height);
                assert!(
                    lines.len() <= height && lines.iter().all(|line| line.chars().count() <= width),
                    "{width}: {lines:?}"
                );
            }
        }
    }
}
