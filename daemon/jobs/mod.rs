//! The jobs of this node: admission, and the table of jobs. The modules below plan them, run their tasks and commands,
//! and keep their records.

pub mod cgroup;
pub mod command;
pub mod eval;
mod existing;
mod failures;
pub mod fence;
pub mod files;
pub mod imports;
pub mod inputs;
pub mod job;
pub mod journal;
mod lines;
pub mod logs;
mod marks;
mod orphans;
mod outdated;
mod own_path;
pub mod owner;
mod plan;
pub mod process;
mod renamed;
mod rerun;
mod run;
mod running;
pub mod sent;
mod shared;
mod sources;
mod spawn;
pub mod task;
pub mod taskdir;
mod tasks;
mod worker;

pub use job::{Job, State, logs_dir};
pub use shared::Shared;

use crate::store::Store;
use cgroup::Limits;
use owner::Owner;
use s4::attribute::Mark;
use s4::client::blocking;
use s4::error::{Error, ErrorKind, Result};
use s4::key::{Key, Prefix};
use s4::limits::descriptors;
use s4::protocol::{Credentials, Delivery, JobId, JobRecord, JobSpec, MapKind, Outcome, Plan, Rerun, Source};
use s4::time::now_milliseconds;
use sources::Sources;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// A planned job that is not started ends after this time.
const UNSTARTED: Duration = Duration::from_secs(3600);
/// Limit of jobs that have not ended, started or not.
const UNENDED: usize = 1000;
/// Limit of memory for their specs, in MiB.
const UNENDED_MIB: usize = 64;
/// Limits for jobs that have ended and are still listed: number, bytes of their specs, and age.
const ENDED_REMEMBERED: usize = 100;
const ENDED_REMEMBERED_BYTES: usize = 16 << 20;
const ENDED_REMEMBERED_FOR: Duration = Duration::from_secs(7 * 24 * 3600);

/// The jobs of this node.
pub struct Jobs {
    pub shared: Arc<Shared>,
    /// Guards the table. Jobs have their own state.
    table: Mutex<BTreeMap<JobId, Arc<Job>>>,
}

impl Jobs {
    /// Loads the records of an earlier daemon. Tells the other nodes to start no more tasks of the jobs that ended with
    /// that daemon.
    pub fn open(shared: Arc<Shared>) -> Result<Self> {
        let mut table = BTreeMap::new();
        let dir = shared.store.jobs_dir();
        for entry in std::fs::read_dir(&dir).map_err(|e| Error::io(dir.display(), &e))?.flatten() {
            match Job::load(&shared.store, entry.path()) {
                Ok(Some((job, interrupted))) => {
                    if interrupted && !job.spec.keep_going {
                        job.stop_others(&shared.client, shared.node);
                    }
                    table.insert(job.spec.id.clone(), Arc::new(job));
                }
                Ok(None) => remove_dir(&shared.store, &entry.path()),
                // The record stays: it may be readable again after the disk is repaired or this program is updated.
                Err(error) => tracing::warn!("left alone: {error}"),
            }
        }
        let jobs = Self { shared, table: Mutex::new(table) };
        jobs.forget_old();
        jobs.remove_unused_files();
        Ok(jobs)
    }

    /// Checks a job, and lists its tasks and the jobs that write to its INDIR. Blocks. `alive` is called from time to
    /// time; the work stops if it returns false.
    pub fn submit(self: &Arc<Self>, spec: JobSpec, alive: &mut dyn FnMut() -> bool) -> Result<(Plan, Vec<Source>)> {
        spec.files.iter().try_for_each(|file| self.shared.files.claim(&file.digest))?;
        let (dir, plan, sources) = self.plan(&spec, alive)?;
        let store = &self.shared.store;
        // A share of the free space, so that logs alone never fill a disk.
        let log_bytes = store.free_bytes()?.saturating_sub(store.reserve_bytes()) / 8;
        let job = Job::new(store, spec, dir.clone(), plan, log_bytes);
        let entered = job.and_then(|job| self.enter(job));
        entered.map(|()| (plan, sources)).inspect_err(|_| remove_dir(store, &dir))
    }

    /// Plans the job as [`submit`](Self::submit) does, and stores nothing. Blocks.
    pub fn try_plan(&self, spec: JobSpec, alive: &mut dyn FnMut() -> bool) -> Result<(Plan, Vec<Source>)> {
        let (dir, plan, sources) = self.plan(&spec, alive)?;
        remove_dir(&self.shared.store, &dir);
        Ok((plan, sources))
    }

    /// Creates the job's directory, with its plan in it.
    fn plan(&self, spec: &JobSpec, alive: &mut dyn FnMut() -> bool) -> Result<(PathBuf, Plan, Vec<Source>)> {
        self.check(spec)?;
        // A disk may be too full for the directory itself.
        self.shared.store.check_space(format_args!("job {}", spec.id))?;
        let dir = self.shared.store.jobs_dir().join(spec.id.as_str());
        std::fs::create_dir(&dir).map_err(|e| match e.kind() {
            std::io::ErrorKind::AlreadyExists => {
                Error::new(ErrorKind::AlreadyExists, format!("job {}: submitted already", spec.id))
            }
            _ => Error::io(format!("job {}", spec.id), &e),
        })?;
        let mut sources = self.sources(spec);
        match plan::make(&self.shared, spec, &dir, &mut sources, alive) {
            Ok(plan) => Ok((dir, plan, sources.into_jobs())),
            Err(error) => {
                remove_dir(&self.shared.store, &dir);
                Err(error)
            }
        }
    }

    /// Removes files sent with jobs that no job needs any more, and the oldest journals above the limit. Blocks.
    pub fn remove_unused_files(&self) {
        let needs = |digest: &str| {
            let table = self.lock();
            let mut waiting = table.values().filter(|job| job.state().outcome.is_none());
            waiting.any(|job| job.spec.files.iter().any(|file| file.digest == digest))
        };
        let runs = |job: u64| self.lock().values().any(|known| known.is_of(job) && known.state().outcome.is_none());
        let files = self.shared.files.remove_unused(needs);
        for error in [files, journal::prune(&self.shared.store, runs)].into_iter().filter_map(Result::err) {
            tracing::warn!("{error}");
        }
    }

    /// Refuses jobs that cannot run on this node.
    fn check(&self, spec: &JobSpec) -> Result<()> {
        spec.check()?;
        refuse_if_full(&self.lock(), spec.bytes())?;
        self.shared.store.check_there()?;
        self.shared.running.check(Limits::of(spec))?;
        refuse_overlap(&self.lock(), spec)
    }

    /// The jobs that write to the INDIR of `spec`, as far as this node knows; none for `--partial`.
    fn sources(&self, spec: &JobSpec) -> Sources {
        let mut sources = Sources::default();
        if !spec.partial && spec.copy.is_none() {
            let table = self.lock();
            table
                .values()
                .filter(|job| job.spec.makes().is_some_and(|made| spec.indir.overlaps(made)))
                .for_each(|job| sources.add(job));
        }
        sources
    }

    /// Every job that this node knows, in the order of ids.
    pub fn records(&self) -> Vec<JobRecord> {
        self.lock().values().map(|job| job.record()).collect()
    }

    pub fn find(&self, id: &JobId) -> Result<Arc<Job>> {
        let job = self.lock().get(id).cloned();
        job.ok_or_else(|| Error::new(ErrorKind::NotFound, format!("job {id}: no such job here")))
    }

    /// The owner of the keys that are put with this delivery.
    pub fn owner(&self, delivery: Option<&Delivery>) -> Result<Owner> {
        let Some(delivery) = delivery else {
            return Ok(Owner::default());
        };
        let job = self.find(&delivery.job)?;
        let mark = job.mark(delivery.inputs, delivery.outputs);
        Ok(Owner::new(job.fence.clone(), mark, job.spec.kind == MapKind::MapToN))
    }

    /// Starts the job. `credentials` are for the worker of a copy, and are not stored.
    pub async fn start(&self, id: &JobId, credentials: Option<Credentials>) -> Result<()> {
        let job = self.find(id)?;
        {
            // Under one lock, so that only one of two overlapping jobs starts.
            let table = self.lock();
            refuse_overlap(&table, &job.spec)?;
            if !job.claim_start() {
                return Err(Error::new(ErrorKind::AlreadyExists, format!("job {id}: started already, or cancelled")));
            }
            job.hand(credentials);
        }
        let earlier = self.open_earlier(&job);
        if !earlier.is_empty() {
            // Waits for publishes in progress.
            blocking(move || earlier.iter().for_each(|other| other.fence.shut())).await;
        }
        job.log_begin();
        tokio::spawn(job.run_to_end(self.shared.clone()));
        Ok(())
    }

    /// Jobs that have ended here, may have written to the same outputs as `job`, and may still publish.
    fn open_earlier(&self, job: &Job) -> Vec<Arc<Job>> {
        let earlier = |other: &&Arc<Job>| {
            let state = other.state();
            let has_ended = state.started.is_some() && !state.is_running();
            let overlaps = other.spec.id != job.spec.id && other.spec.outdir.overlaps(&job.spec.outdir);
            has_ended && overlaps && !other.fence.is_shut()
        };
        self.lock().values().filter(earlier).cloned().collect()
    }

    /// Deletes the outputs of earlier runs below `prefix` on this node; for a map with `--to-name`, the output `prefix`
    /// itself. `inputs` is the digest of the inputs of the task that made them, or `None` if its inputs no longer
    /// exist. Blocks. The node of the task calls this, possibly before the job was started here.
    pub fn clean(&self, id: &JobId, prefix: &Prefix, inputs: Option<u64>) -> Result<()> {
        let job = self.find(id)?;
        let below = Prefix::below(&job.spec.outdir);
        let task = prefix.as_str().strip_prefix(below.as_str()).and_then(|task| task.strip_suffix('/'));
        let is_task = job.spec.kind == MapKind::MapToN && task.is_some_and(|task| !task.contains('/'));
        let output = job.spec.to_name.as_ref().and_then(|_| Key::parse(prefix.as_str()).ok());
        let output = output.filter(|output| output.as_str().starts_with(below.as_str()));
        if job.spec.rerun == Rerun::Refuse || !is_task && output.is_none() {
            return Err(Error::new(ErrorKind::BadRequest, format!("job {id} has nothing to clean there")));
        }
        self.open_earlier(&job).iter().for_each(|other| other.fence.shut());
        let (rerun, ours) = (job.spec.rerun, job.mark(inputs.unwrap_or_default(), 1));
        let is_removed = |mark: Mark| match inputs {
            Some(_) => rerun::may_replace(rerun, mark, ours),
            None => rerun::may_remove(rerun, mark, ours),
        };
        // A cancelled job removes nothing either: a later job may have made what is there.
        job.fence.pass(|| match output {
            Some(output) => self.shared.store.remove_output(&output, is_removed),
            None => self.shared.store.remove_marked(prefix, is_removed),
        })?;
        self.shared.names.settle(&mut || {});
        Ok(())
    }

    /// Starts no more tasks and no more commands.
    pub fn close(&self) {
        self.shared.running.close();
        for job in self.lock().values().filter(|job| job.state().is_running()) {
            job.close();
        }
    }

    /// Ends the running jobs, because the daemon ends.
    pub fn interrupt(&self) {
        for job in self.lock().values().filter(|job| job.state().is_running()) {
            job.end(Outcome::Interrupted);
        }
    }

    /// The number of jobs that were started and have not ended.
    pub fn running(&self) -> usize {
        self.lock().values().filter(|job| job.state().is_running()).count()
    }

    fn enter(self: &Arc<Self>, job: Job) -> Result<()> {
        let job = Arc::new(job);
        let id = job.spec.id.clone();
        {
            // Checked again: other jobs may have been planned meanwhile.
            let mut table = self.lock();
            refuse_if_full(&table, job.bytes)?;
            table.insert(id.clone(), job);
        }
        self.forget_old();
        let jobs = self.clone();
        tokio::runtime::Handle::current().spawn(async move {
            tokio::time::sleep(UNSTARTED).await;
            blocking(move || jobs.expire_unstarted(&id)).await;
        });
        Ok(())
    }

    /// Ends a job that was planned and never started. It is still listed, since other nodes may have started it.
    /// Blocks.
    fn expire_unstarted(&self, id: &JobId) {
        let job = self.lock().get(id).cloned();
        if let Some(job) = job.filter(|job| job.state().started.is_none() && job.state().outcome.is_none()) {
            job.end_planned(Outcome::Interrupted);
        }
    }

    /// Removes the records of ended jobs above the limits. Blocks.
    fn forget_old(&self) {
        self.take_old().iter().for_each(|job| remove_dir(&self.shared.store, job.dir()));
    }

    /// Removes ended jobs above the limits from the table. Jobs that never started (refused ones, too) do not displace
    /// jobs that did.
    fn take_old(&self) -> Vec<Arc<Job>> {
        let mut table = self.lock();
        let oldest = now_milliseconds() - ENDED_REMEMBERED_FOR.as_millis() as i64;
        let old = |was_started: bool| {
            let of_kind = table.iter().filter(move |(_, job)| job.state().started.is_some() == was_started);
            let ended = of_kind.filter_map(|(id, job)| Some((id.clone(), job.state().ended?, job.bytes)));
            not_remembered(ended.collect(), oldest)
        };
        let old = [old(true), old(false)].concat();
        old.iter().filter_map(|id| table.remove(id)).collect()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, BTreeMap<JobId, Arc<Job>>> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Given ended jobs, each with its end and its bytes: those that are no longer listed. They ended before `oldest`, or
/// there is no room for them beside jobs that ended later.
fn not_remembered(mut ended: Vec<(JobId, i64, usize)>, oldest: i64) -> Vec<JobId> {
    ended.sort_by(|(a, a_end, _), (b, b_end, _)| (b_end, b).cmp(&(a_end, a)));
    let (mut kept, mut held) = (0, 0);
    ended.retain(|(_, end, bytes)| {
        let stays = *end >= oldest && kept < ENDED_REMEMBERED && held + bytes <= ENDED_REMEMBERED_BYTES;
        if stays {
            (kept, held) = (kept + 1, held + bytes);
        }
        !stays
    });
    ended.into_iter().map(|(id, ..)| id).collect()
}

/// Refuses one more job of this size if too many have not ended: each takes descriptors and memory.
fn refuse_if_full(table: &BTreeMap<JobId, Arc<Job>>, bytes: usize) -> Result<()> {
    let unended = || table.values().filter(|job| job.state().outcome.is_none());
    let (count, held) = (unended().count(), unended().map(|job| job.bytes).sum::<usize>());
    let full = if count >= UNENDED.min(descriptors() / 8) {
        format!("{count} jobs have not ended here, which is the most")
    } else if held + bytes > UNENDED_MIB << 20 {
        format!(
            "with this one, the commands and variables of the jobs that have not ended here exceed {UNENDED_MIB} MiB"
        )
    } else {
        return Ok(());
    };
    Err(Error::new(ErrorKind::Busy, format!("{full}; start them, wait for them or cancel some")))
}

/// Refuses a job whose outputs would mix with those of a running job.
fn refuse_overlap(table: &BTreeMap<JobId, Arc<Job>>, spec: &JobSpec) -> Result<()> {
    // A cancelled job publishes nothing any more, also while its last deliveries wait for a node that is down.
    let publishes = |job: &Arc<Job>| job.state().is_running() && !job.fence.is_shut();
    let mut others = table.values().filter(|job| job.spec.id != spec.id && publishes(job));
    let overlaps = |one: &JobSpec| one.makes().zip(spec.makes()).is_some_and(|(one, other)| one.overlaps(other));
    let Some(other) = others.find(|other| overlaps(&other.spec)) else {
        return Ok(());
    };
    let (id, outdir) = (&other.spec.id, &other.spec.outdir);
    let message = format!("job {id} runs and writes to {outdir}; wait for it, cancel it, or choose another OUTDIR");
    Err(Error::new(ErrorKind::AlreadyExists, message))
}

fn remove_dir(store: &Store, dir: &Path) {
    if let Err(error) = store.data_dir().remove_tree(dir) {
        tracing::warn!("cannot remove {}: {error}", dir.display());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_jobs_that_ended_last_are_kept_whatever_their_ids() {
        let job = |number: usize, end: i64, bytes: usize| {
            (JobId::try_from(format!("20990101-000000-000-{number:06x}")).unwrap(), end, bytes)
        };
        let forgotten = |ended: &[(JobId, i64, usize)], oldest: i64| not_remembered(ended.to_vec(), oldest);
        // The first id ends last, like a long job that many short ones overtake.
        let ended: Vec<_> = (0..=ENDED_REMEMBERED).map(|number| job(number, 1000 - number as i64, 1)).collect();
        assert_eq!(forgotten(&ended, 0), [ended[ENDED_REMEMBERED].0.clone()]);
        let half = ENDED_REMEMBERED_BYTES / 2;
        let ended = [job(1, 9, half), job(2, 8, half), job(3, 7, half)];
        assert_eq!(forgotten(&ended, 0), [ended[2].0.clone()]);
        // Jobs that are dropped take no room.
        let ended = [job(3, 9, half), job(2, 8, ENDED_REMEMBERED_BYTES), job(1, 7, half), job(4, 1, 0)];
        assert_eq!(forgotten(&ended, 2), [ended[1].0.clone(), ended[3].0.clone()]);
    }
}
