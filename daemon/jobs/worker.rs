//! The part of a copy on this node: one worker, a program that is started as a command is. It gets its task on stdin, which
//! stays open as long as it shall work, and reports counts and failures on stdout, a JSON object per line. What it copies, and how, is
//! its own business.

use super::cgroup::Limits;
use super::command::{self, Control, OutputSink, Setup, Stream};
use super::job::{Job, RunningNow};
use super::logs::TaskLog;
use super::shared::Shared;
use super::task::{self, Failed, TaskResult};
use s4::body::Disconnected;
use s4::client::blocking;
use s4::error::{Error, ErrorKind};
use s4::key::Key;
use s4::protocol::{CopySpec, MAX_WORKER_TASK, Progress, TaskFailure, WorkerEvent, WorkerTask};
use std::fs::File;
use std::io::Write;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// How long a worker that shall end may take to abort what it has begun.
const GRACE: Duration = Duration::from_secs(4);
/// Limit of bytes of a line of a worker.
const MAX_LINE: usize = 64 << 10;
/// Limit of failures that are recorded one by one; more are only counted.
const MAX_FAILURES: u64 = 10_000;

impl Job {
    /// Runs the worker of a copy to its end.
    pub(super) async fn run_worker(self: &Arc<Self>, shared: &Arc<Shared>, copy: &CopySpec) -> TaskResult<()> {
        let job = self.clone();
        blocking(move || job.save().and_then(|()| job.journal.begin(&job.spec))).await?;
        let Some(slot) = self.await_slot(shared, None).await else {
            return Ok(());
        };
        let dir = shared.store.tasks_dir().join(self.spec.id.as_str()).join("0");
        let entered = shared.running.enter(dir.clone(), Limits::default())?;
        let (control, key) = (entered.control(), self.own_key()?);
        let now = RunningNow { control: control.clone(), key: key.clone(), since: Instant::now() };
        self.lock_running().insert(0, now);
        // A cancel that came before the worker was registered did not end it.
        if self.state().ending.is_some() {
            return Ok(());
        }
        let task = worker_task(self, shared, copy)?;
        let (job, shared) = (self.clone(), shared.clone());
        let result = blocking(move || {
            let ended = run(&job, &shared, &control, key, &task);
            // The last reference to the control group.
            drop((entered, slot));
            ended
        });
        let result = result.await;
        self.lock_running().remove(&0);
        self.state.send_modify(|state| state.progress.running = 0);
        result
    }

    /// A key for what concerns the job as a whole.
    pub(super) fn own_key(&self) -> s4::error::Result<Key> {
        self.spec.outdir.join(self.spec.id.as_str())
    }
}

fn worker_task(job: &Job, shared: &Shared, copy: &CopySpec) -> s4::error::Result<Vec<u8>> {
    let cluster = shared.client.cluster();
    let task = WorkerTask {
        copy: copy.clone(),
        node: shared.node,
        jobs: job.spec.jobs,
        cluster: cluster.lines(),
        secret: shared.client.secret().map(|secret| secret.as_text().to_owned()),
        credentials: job.take_credentials(),
    };
    let mut line = serde_json::to_vec(&task).expect("a task is plain JSON");
    line.push(b'\n');
    match line.len() > MAX_WORKER_TASK {
        true => Err(Error::new(ErrorKind::TooLarge, "the copy's options and the cluster file together are too long")),
        false => Ok(line),
    }
}

fn run(job: &Arc<Job>, shared: &Shared, control: &Control, key: Key, task: &[u8]) -> TaskResult<()> {
    let failed = |e: std::io::Error| Error::io("the worker's stdin", &e);
    let (reader, mut writer) = std::io::pipe().map_err(failed)?;
    let dir = shared.dirs.create(control.dir().to_owned())?;
    let env = task::node_environment(shared);
    let setup =
        Setup { cmd: &job.spec.cmd, dir: &dir, env: &env, stdin: File::from(OwnedFd::from(reader)), stdout: None };
    let running = command::start(setup, control)?;
    // A worker that has ended already is reported by its exit status.
    let _ = writer.write_all(task);
    control.end_gracefully_by(OwnedFd::from(writer), GRACE);
    let mut output = Output { job, node: shared.node, log: job.logs.task(&key), line: Vec::new(), recorded: 0 };
    let timeout = job.spec.timeout.and_then(s4::time::seconds);
    let ended = running.forward_output(&mut output, timeout);
    control.note_end();
    let stderr = output.log.end().to_vec();
    match task::failure(&ended?, control, &job.spec) {
        Some(reason) => Err(Failed::of_command(format!("the worker of the copy: {reason}"), stderr)),
        None => Ok(()),
    }
}

/// Reads the lines of a worker, and keeps its stderr.
struct Output<'a> {
    job: &'a Arc<Job>,
    node: usize,
    log: TaskLog,
    /// The beginning of a line whose end has not come.
    line: Vec<u8>,
    /// Failures that were written down.
    recorded: u64,
}

impl Output<'_> {
    fn take_line(&mut self) {
        match serde_json::from_slice(&self.line) {
            Ok(WorkerEvent::Progress(progress)) => self.take_progress(progress),
            Ok(WorkerEvent::Failure { key, reason }) => self.take_failure(key, reason),
            Err(error) => tracing::debug!("job {}: a line of the worker: {error}", self.job.spec.id),
        }
        self.line.clear();
    }

    fn take_progress(&self, progress: Progress) {
        self.job.state.send_modify(|state| {
            let before = state.progress.failed;
            state.progress = Progress { failed: progress.failed.max(before), ..progress };
        });
    }

    /// A failure is recorded before it is counted.
    fn take_failure(&mut self, key: Option<Key>, reason: String) {
        let Some(key) = key.or_else(|| self.job.own_key().ok()) else { return };
        if self.recorded < MAX_FAILURES {
            self.recorded += 1;
            let failure = TaskFailure { node: self.node, key, reason, stderr: String::new() };
            if let Err(error) = self.job.failures.append(&failure) {
                tracing::error!("job {}: cannot record a failure: {error}: {failure:?}", self.job.spec.id);
            }
        }
        self.job.state.send_modify(|state| state.progress.failed += 1);
    }
}

impl OutputSink for Output<'_> {
    fn output(&mut self, stream: Stream, bytes: &[u8]) -> std::result::Result<(), Disconnected> {
        if stream == Stream::Stderr {
            return self.log.output(stream, bytes);
        }
        for part in bytes.split_inclusive(|&b| b == b'\n') {
            // What is longer is no line of a worker, and cannot be parsed.
            let room = MAX_LINE.saturating_sub(self.line.len());
            self.line.extend_from_slice(&part[..part.len().min(room)]);
            if part.ends_with(b"\n") {
                self.take_line();
            }
        }
        Ok(())
    }

    fn idle(&mut self) -> std::result::Result<(), Disconnected> {
        Ok(())
    }
}
