//! The log of requests: at the level debug a line for each; at any level a line, with the reason, for each that is refused
//! or that this node cannot serve. Of those, some lines of each kind of error are written in a while, and the others are
//! counted, so that a flood of requests is no flood of lines.
//!
//! A line has method and path, or kind and key, and never a header, a body or a command: these may hold secrets.

use s4::bounds::beginning;
use s4::error::{Error, ErrorKind};
use std::fmt::Display;
use std::net::SocketAddr;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Lines of one kind of error that are written within [`WINDOW`].
const LINES: u64 = 10;
const WINDOW: Duration = Duration::from_secs(10);
/// Limit of bytes of what a request is called in a line. Keys are shorter.
const MAX_WHAT: usize = 2048;

/// What an error means for the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Meaning {
    /// An answer like others: the key is absent, or there already.
    Ordinary,
    Refused,
    /// This node, or one that it asked, could not do its work.
    Failed,
}

impl Meaning {
    fn of(kind: ErrorKind) -> Self {
        match kind {
            ErrorKind::NotFound
            | ErrorKind::AlreadyExists
            | ErrorKind::NotEmpty
            | ErrorKind::Command
            | ErrorKind::Cancelled
            | ErrorKind::OutputClosed => Self::Ordinary,
            ErrorKind::Usage
            | ErrorKind::BadName
            | ErrorKind::BadRequest
            | ErrorKind::Forbidden
            | ErrorKind::MethodNotAllowed
            | ErrorKind::RequestTimeout
            | ErrorKind::ClusterMismatch
            | ErrorKind::TooLarge
            | ErrorKind::WrongNode
            | ErrorKind::Busy
            | ErrorKind::ShuttingDown => Self::Refused,
            ErrorKind::Config
            | ErrorKind::Checksum
            | ErrorKind::Io
            | ErrorKind::Unreachable
            | ErrorKind::Deadline
            | ErrorKind::NoSpace => Self::Failed,
        }
    }
}

/// Where a request comes from, and when it came.
#[derive(Clone, Copy)]
pub struct Origin {
    pub peer: Option<SocketAddr>,
    pub since: Instant,
}

impl Origin {
    pub fn now(peer: Option<SocketAddr>) -> Self {
        Self { peer, since: Instant::now() }
    }

    fn peer(self) -> String {
        self.peer.map_or_else(|| "?".to_owned(), |peer| peer.to_string())
    }
}

/// The lines of one kind of error.
struct Window {
    kind: ErrorKind,
    began: Instant,
    lines: u64,
    suppressed: u64,
}

impl Window {
    /// True if one more line may be written. Otherwise, it is counted.
    fn admit(&mut self) -> bool {
        let is_admitted = self.lines < LINES;
        match is_admitted {
            true => self.lines += 1,
            false => self.suppressed += 1,
        }
        is_admitted
    }
}

/// The log of the requests of one daemon.
#[derive(Default)]
pub struct RequestLog {
    /// Guards the windows: one for each kind of error that occurred of late.
    windows: Mutex<Vec<Window>>,
}

impl RequestLog {
    /// A request was answered, or its answer begun.
    pub fn answered(&self, origin: Origin, what: &dyn Display, outcome: std::result::Result<(), &Error>) {
        match outcome.map_err(|error| (Meaning::of(error.kind()), error)) {
            Err((Meaning::Refused, error)) => self.refused(origin, what, error),
            Err((Meaning::Failed, error)) if self.admits(error.kind(), Instant::now()) => {
                tracing::warn!("{} from {} failed: {error}", bounded(what), origin.peer());
            }
            _ => {}
        }
        if tracing::enabled!(tracing::Level::DEBUG) {
            let took = origin.since.elapsed().as_secs_f64() * 1e3;
            let outcome = outcome.map_or_else(Error::to_string, |()| "ok".to_owned());
            tracing::debug!("request {} from {}, {took:.2} ms: {outcome}", bounded(what), origin.peer());
        }
    }

    /// A request or a connection was refused.
    pub fn refused(&self, origin: Origin, what: &dyn Display, reason: &Error) {
        if self.admits(reason.kind(), Instant::now()) {
            tracing::warn!("{} from {} refused: {reason}", bounded(what), origin.peer());
        }
    }

    /// True if a line about an error of this kind may be written now.
    fn admits(&self, kind: ErrorKind, now: Instant) -> bool {
        self.report_windows(|window| now - window.began >= WINDOW);
        let mut windows = self.windows.lock().unwrap_or_else(PoisonError::into_inner);
        let at = windows.iter().position(|window| window.kind == kind).unwrap_or_else(|| {
            windows.push(Window { kind, began: now, lines: 0, suppressed: 0 });
            windows.len() - 1
        });
        windows[at].admit()
    }

    /// Logs how many lines were left out in windows that have ended.
    pub fn report(&self) {
        self.report_windows(|window| window.began.elapsed() >= WINDOW);
    }

    /// Logs how many lines were left out: the daemon ends.
    pub fn report_all(&self) {
        self.report_windows(|_| true);
    }

    fn report_windows(&self, has_ended: impl Fn(&Window) -> bool) {
        let mut windows = self.windows.lock().unwrap_or_else(PoisonError::into_inner);
        let ended = windows.extract_if(.., |window| has_ended(window)).filter(|window| window.suppressed > 0);
        for Window { kind, began, lines, suppressed } in ended {
            let seconds = began.elapsed().as_secs();
            tracing::warn!("{suppressed} more like the {lines} above ({kind:?}) in {seconds} s, not logged one by one");
        }
    }
}

fn bounded(what: &dyn Display) -> String {
    let whole = what.to_string();
    beginning(&whole, MAX_WHAT).to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kind_has_a_bounded_number_of_lines_in_a_window_whatever_the_others_do() {
        let (log, began) = (RequestLog::default(), Instant::now());
        let admitted = |kind, now| (0..1000).filter(|_| log.admits(kind, now)).count() as u64;
        assert_eq!(admitted(ErrorKind::Forbidden, began), LINES);
        assert_eq!(admitted(ErrorKind::Checksum, began), LINES, "another kind");
        assert_eq!(admitted(ErrorKind::Forbidden, began + WINDOW / 2), 0);
        assert_eq!(admitted(ErrorKind::Forbidden, began + WINDOW), LINES, "another window");
    }

    #[test]
    fn what_is_left_out_is_counted() {
        let log = RequestLog::default();
        (0..25).for_each(|_| _ = log.admits(ErrorKind::Busy, Instant::now()));
        let suppressed = log.windows.lock().unwrap().iter().map(|window| window.suppressed).sum::<u64>();
        assert_eq!(suppressed, 25 - LINES);
        log.report_all();
        assert!(log.windows.lock().unwrap().is_empty());
    }
}
