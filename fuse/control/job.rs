//! A job that a control file started. It is followed to its end, and readers of the control file get its progress.

use crate::errno::Result;
use bytes::Bytes;
use nix::errno::Errno;
use s4::client::Client;
use s4::error::{Error, Result as S4Result};
use s4::key::{Dir, is_url};
use s4::pattern::Pattern;
use s4::protocol::{CommandText, Event, HEARTBEAT, JobId, JobSpec, MapKind, Outcome, Progress, TaskFailure};
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::Arc;
use tokio::sync::{Mutex, watch};

/// Failures that are kept in full.
const FAILURES: usize = 1000;

/// The progress of a job, over all nodes.
#[derive(Debug, Clone, Default)]
struct State {
    nodes: Vec<(Progress, Option<Outcome>)>,
    failures: Vec<Arc<TaskFailure>>,
    /// Why it cannot be followed any more.
    error: Option<String>,
    /// Whether it succeeded, once it has ended.
    ended: Option<bool>,
}

pub struct MountJob {
    pub kind: MapKind,
    pub name: String,
    pub id: JobId,
    tasks: u64,
    state: watch::Sender<State>,
}

impl MountJob {
    /// Follows a job that has been started.
    pub fn follow(client: Client, name: String, spec: &JobSpec, tasks: u64) -> Arc<Self> {
        let nodes = vec![(Progress::default(), None); client.cluster().len()];
        let state = watch::Sender::new(State { nodes, ..State::default() });
        let job = Arc::new(Self { kind: spec.kind, name, id: spec.id.clone(), tasks, state });
        tokio::spawn(job.clone().run(client));
        job
    }

    /// A job that could not be started. Its file says why: many programs ignore the error of a close.
    pub fn refused(kind: MapKind, name: String, error: &Error) -> Arc<Self> {
        let state = State { error: Some(error.to_string()), ended: Some(false), ..State::default() };
        Arc::new(Self { kind, name, id: JobId::new(), tasks: 0, state: watch::Sender::new(state) })
    }

    async fn run(self: Arc<Self>, client: Client) {
        let mut events = client.follow_everywhere(&self.id);
        while let Some((node, event)) = events.recv().await {
            match event {
                Ok(Event::Progress(progress)) => self.state.send_modify(|state| state.nodes[node].0 = progress),
                Ok(Event::Failure(failure)) => self.state.send_modify(|state| {
                    if state.failures.len() < FAILURES {
                        state.failures.push(Arc::new(failure));
                    }
                }),
                Ok(Event::Ended { outcome, progress, .. }) => {
                    self.state.send_modify(|state| state.nodes[node] = (progress, Some(outcome)));
                }
                Ok(_) => {}
                Err(error) => {
                    client.cancel_everywhere(&self.id).await;
                    self.state.send_modify(|state| state.error = Some(error.to_string()));
                    break;
                }
            }
        }
        self.state.send_modify(|state| {
            let done = state.nodes.iter().all(|(_, outcome)| *outcome == Some(Outcome::Done));
            state.ended = Some(done && state.error.is_none());
        });
    }

    pub fn was_started(&self) -> bool {
        self.tasks > 0
    }

    /// One line: the progress of the job, or its outcome.
    pub fn status(&self) -> String {
        self.status_of(&self.state.borrow())
    }

    fn status_of(&self, state: &State) -> String {
        let sum = |count: fn(&Progress) -> u64| state.nodes.iter().map(|(progress, _)| count(progress)).sum::<u64>();
        let word = match (state.ended, &state.error) {
            (None, _) => "running",
            (Some(true), _) => "done",
            (Some(false), _) => "failed",
        };
        let counts = format!(
            "{} of {} tasks done, {} failed, {} running, {} outputs",
            sum(|progress| progress.done),
            self.tasks,
            sum(|progress| progress.failed),
            sum(|progress| progress.running),
            sum(|progress| progress.outputs)
        );
        match &state.error {
            Some(error) => format!("{word}: {counts}: {error}\n"),
            None => format!("{word}: {counts}\n"),
        }
    }

    /// A line for each failed task: key, node, reason.
    pub fn failed(&self) -> String {
        self.state.borrow().failures.iter().map(|failure| failure_line(failure)).collect()
    }

    /// The end of each failed command's stderr, under its key.
    pub fn stderr(&self) -> String {
        let state = self.state.borrow();
        state.failures.iter().map(|failure| format!("== {}\n{}\n", failure.key, failure.stderr.trim_end())).collect()
    }
}

fn failure_line(failure: &TaskFailure) -> String {
    format!("{} node {}: {}\n", failure.key, failure.node, failure.reason)
}

/// One reader of a job's control file.
pub struct Follower {
    job: Arc<MountJob>,
    /// Guards the position of this reader.
    reader: Mutex<Reader>,
}

struct Reader {
    watch: watch::Receiver<State>,
    failures: usize,
    status: String,
    /// Text that did not fit into the last read.
    left: Vec<u8>,
    ended: bool,
}

impl Follower {
    pub fn new(job: Arc<MountJob>) -> Self {
        let watch = job.state.subscribe();
        let reader = Reader { watch, failures: 0, status: String::new(), left: Vec::new(), ended: false };
        Self { job, reader: Mutex::new(reader) }
    }

    /// The next lines. After the last one, a job that failed gives an error, any other job the end of the file.
    pub async fn read(&self, size: usize) -> Result<Bytes> {
        let mut reader = self.reader.lock().await;
        if reader.left.is_empty() {
            if reader.ended {
                let done = reader.watch.borrow().ended == Some(true);
                return if done { Ok(Bytes::new()) } else { Err(Errno::EIO) };
            }
            self.next_lines(&mut reader).await;
        }
        let end = size.min(reader.left.len());
        let rest = reader.left.split_off(end);
        Ok(std::mem::replace(&mut reader.left, rest).into())
    }

    async fn next_lines(&self, reader: &mut Reader) {
        let (status, failures) = (reader.status.clone(), reader.failures);
        let news = |state: &State| state.ended.is_some() || state.failures.len() > failures;
        if !status.is_empty() {
            // Without news within a heartbeat the same line is returned again, so that no read waits for long.
            let _ = tokio::time::timeout(HEARTBEAT, reader.watch.wait_for(news)).await;
        }
        let state = reader.watch.borrow_and_update().clone();
        for failure in &state.failures[reader.failures..] {
            reader.left.extend_from_slice(failure_line(failure).as_bytes());
        }
        reader.failures = state.failures.len();
        reader.status = self.job.status_of(&state);
        reader.left.extend_from_slice(reader.status.as_bytes());
        reader.ended = state.ended.is_some();
    }
}

/// Parses `INDIR OUTDIR CMD`, where CMD is all that follows. Directories may be paths in the mount.
pub fn parse(kind: MapKind, text: &[u8], mountpoint: &Path) -> S4Result<JobSpec> {
    let malformed = || Error::usage("a job is written as INDIR OUTDIR CMD");
    let (indir, rest) = word(text).ok_or_else(malformed)?;
    let (outdir, cmd) = word(rest).ok_or_else(malformed)?;
    let cmd = cmd.trim_ascii_end();
    let indir = Pattern::parse_url(&url(indir, mountpoint)?)?;
    let outdir = Dir::parse_url(&url(outdir, mountpoint)?)?;
    let cmd = CommandText::new(OsStr::from_bytes(cmd.trim_ascii_start()).to_owned())?;
    Ok(JobSpec::new(kind, indir, outdir, cmd))
}

/// The first word and what follows it.
fn word(text: &[u8]) -> Option<(&str, &[u8])> {
    let text = text.trim_ascii_start();
    let end = text.iter().position(u8::is_ascii_whitespace)?;
    let (word, rest) = text.split_at(end);
    Some((std::str::from_utf8(word).ok()?, rest))
}

fn url(word: &str, mountpoint: &Path) -> S4Result<String> {
    if is_url(word) {
        return Ok(word.to_owned());
    }
    let below = Path::new(word).strip_prefix(mountpoint).ok().and_then(Path::to_str);
    let below = below.ok_or_else(|| Error::usage(format!("'{word}': neither s4://… nor a path in the mount")))?;
    Ok(format!("s4://{below}"))
}
