//! A scrub of this node, for as long as its client listens. It reads at a bounded rate, so that requests are not held
//! up.

use super::{Answer, Pulse};
use crate::app::App;
use crate::store::{ScrubPosition, ScrubStep, Strays};
use http_body_util::BodyExt;
use hyper::Response;
use s4::body::{ChunkSender, Disconnected};
use s4::error::{Error, ErrorKind, Result};
use s4::protocol::{HEARTBEAT, ScrubLine};
use std::sync::{Arc, TryLockError};
use std::time::{Duration, Instant};

/// The bytes that a file counts for in the rate, besides its own: a disk is not asked for empty files without a limit.
const PER_FILE: u64 = 4096;
/// The interval between two records of the position, in case the daemon is killed.
const NOTED: Duration = Duration::from_secs(5);

/// Scrubs from the beginning; or what the last scrub has left, which may be nothing.
pub fn answer(app: &Arc<App>, rate: u64, resume: bool, strays: Strays) -> Answer {
    let (sender, body) = app.channel();
    let app = app.clone();
    tokio::task::spawn_blocking(move || {
        let last =
            run(&app, (rate, resume, strays), &sender).unwrap_or_else(|error| ScrubLine::Error(app.named(error)));
        // A client that has disconnected needs no end.
        let _ = send(&sender, &last);
    });
    Ok(Response::new(body.boxed_unsync()))
}

/// The last line.
fn run(app: &App, (rate, resume, strays): (u64, bool, Strays), sender: &ChunkSender) -> Result<ScrubLine> {
    let _scrubbing = match app.scrubbing.try_lock() {
        Err(TryLockError::WouldBlock) => return Err(Error::new(ErrorKind::Busy, "another scrub reads this node")),
        locked => locked,
    };
    let store = &app.jobs.shared.store;
    let position = if resume { store.scrub_position() } else { ScrubPosition::default() };
    if position.is_whole {
        return Ok(ScrubLine::End(position.so_far));
    }
    let after = position.after.clone();
    let mut scrub = Scrub { app, sender, position, pace: Pace::new(rate), pulse: Pulse::new(), noted: Instant::now() };
    let scrubbed = store.scrub(&after, strays, &mut |step| scrub.step(step));
    let position = ScrubPosition { is_whole: scrubbed == Ok(true), ..scrub.position };
    store.note_scrub_position(&position)?;
    match scrubbed? {
        true => Ok(ScrubLine::End(position.so_far)),
        false => Err(Error::new(ErrorKind::ShuttingDown, "the daemon is ending")),
    }
}

struct Scrub<'a> {
    app: &'a App,
    sender: &'a ChunkSender,
    position: ScrubPosition,
    pace: Pace,
    pulse: Pulse,
    /// When the position was last recorded.
    noted: Instant,
}

impl Scrub<'_> {
    /// False if the scrub must end.
    fn step(&mut self, step: ScrubStep) -> bool {
        let counts = &self.app.watch.scrubs;
        match step {
            ScrubStep::Read(bytes) => {
                counts.add_bytes(bytes);
                self.position.so_far.bytes += bytes;
                self.pace.add(bytes);
            }
            ScrubStep::Checked(path, finding) => {
                counts.add_key(finding.as_ref().map(|finding| finding.fault));
                self.position.so_far.keys += 1;
                self.position.after = path;
                self.pace.add(PER_FILE);
                if let Some(finding) = finding {
                    self.position.so_far.findings += 1;
                    tracing::warn!("scrub: s4://{}: {}", finding.path, finding.message);
                    if send(self.sender, &ScrubLine::Finding(finding)).is_err() {
                        return false;
                    }
                }
            }
        }
        self.wait()
    }

    /// Waits as the rate demands, and sends the progress meanwhile. False if nobody listens, or the daemon ends.
    fn wait(&mut self) -> bool {
        loop {
            let is_due = self.pulse.is_due();
            if is_due && send(self.sender, &ScrubLine::Progress(self.position.so_far)).is_err() {
                return false;
            }
            if self.app.upgrades.is_ending() {
                return false;
            }
            if is_due && self.noted.elapsed() >= NOTED {
                self.note();
            }
            match self.pace.left() {
                Duration::ZERO => return true,
                left => std::thread::sleep(left.min(HEARTBEAT / 10)),
            }
        }
    }

    fn note(&mut self) {
        self.noted = Instant::now();
        if let Err(error) = self.app.jobs.shared.store.note_scrub_position(&self.position) {
            tracing::warn!("{error}");
        }
    }
}

fn send(sender: &ChunkSender, line: &ScrubLine) -> std::result::Result<(), Disconnected> {
    let mut json = serde_json::to_vec(line).expect("a line is plain JSON");
    json.push(b'\n');
    sender.send(json.into())
}

/// Keeps to a rate.
struct Pace {
    rate: u64,
    /// When the bytes so far are paid for.
    free_at: Instant,
}

impl Pace {
    fn new(rate: u64) -> Self {
        Self { rate, free_at: Instant::now() }
    }

    /// Time that was not used before does not permit more now.
    fn add(&mut self, bytes: u64) {
        let cost = Duration::from_secs_f64(bytes as f64 / self.rate as f64);
        self.free_at = self.free_at.max(Instant::now()) + cost;
    }

    fn left(&self) -> Duration {
        self.free_at.saturating_duration_since(Instant::now())
    }
}
