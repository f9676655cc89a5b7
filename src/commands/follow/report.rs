//! What the nodes have told of a job so far, and who hears of it.

use super::events;
use super::failures::Failures;
use super::parts::{Part, total};
use super::reruns::kept_text;
use super::view::View;
use crate::cli::ShowArgs;
use crate::commands::console::say;
use crate::commands::display::{Display, is_terminal};
use crate::commands::format::size_text;
use s4::client::Client;
use s4::client::job_table::{ClusterJob, JobState};
use s4::cluster::Cluster;
use s4::error::Result;
use s4::placement::NodeId;
use s4::protocol::{Event, JobId, JobSpec, Plan, Progress};
use s4::skew::Spread;
use std::time::{Duration, Instant};

/// How often progress is told where nobody watches live.
const PROGRESS: Duration = Duration::from_secs(5);
/// How long the nodes may take to say what a cancelled job has left.
const LAST_LOOK: Duration = Duration::from_millis(500);

/// Who hears of the job.
enum Voice {
    /// A terminal.
    Live(Display),
    /// A log: a line now and then.
    Lines {
        told: Instant,
    },
    Quiet,
    /// A program that reads events.
    Json,
}

pub struct Report {
    pub(super) cluster: Cluster,
    pub(super) spec: JobSpec,
    pub(super) parts: Vec<Part>,
    pub(super) failures: Failures,
    /// True of `s4 wait`, which does not end with a node.
    watches: bool,
    pub(super) lost: Vec<(NodeId, String)>,
    /// Some nodes did not say how it stands with them at the end.
    pub(super) unheard: bool,
    /// Where outputs of a 1:n map went.
    pub(super) spread: Spread,
    voice: Voice,
    /// When the report began; `None` if the job had ended before.
    began: Option<Instant>,
    /// What had passed of the job then.
    passed: Duration,
}

impl Report {
    /// Of a job that was started just now.
    pub fn new(client: &Client, spec: &JobSpec, plans: Vec<Plan>, show: &ShowArgs, began: Instant) -> Self {
        let voice = match () {
            () if show.json => Voice::Json,
            () if show.quiet => Voice::Quiet,
            () if is_terminal() => Voice::Live(Display::default()),
            () => Voice::Lines { told: Instant::now() },
        };
        Self {
            cluster: client.cluster().clone(),
            spec: spec.clone(),
            parts: plans.into_iter().map(|plan| Part { plan, ..Part::default() }).collect(),
            failures: Failures::default(),
            watches: false,
            lost: Vec::new(),
            unheard: false,
            spread: Spread::new(client.cluster().len()),
            voice,
            began: Some(began),
            passed: Duration::ZERO,
        }
    }

    /// Of a job that was started by someone else, maybe long ago.
    pub fn watching(client: &Client, job: &ClusterJob, show: &ShowArgs) -> Self {
        let plan = |node| job.nodes.get(&node).map_or_else(Plan::default, |record| record.plan);
        let mut report = Self::new(client, &job.spec, client.cluster().ids().map(plan).collect(), show, Instant::now());
        report.began = report.began.filter(|_| job.ended().is_none());
        report.passed = Duration::from_millis(job.elapsed().unwrap_or(0).max(0) as u64);
        report.watches = true;
        report
    }

    pub fn job(&self) -> &JobId {
        &self.spec.id
    }

    pub fn tell_plan(&self) -> Result<()> {
        match self.voice {
            Voice::Json => {
                let plans: Vec<Plan> = self.parts.iter().map(|part| part.plan).collect();
                events::print(&events::planned_line(&self.spec, &plans))
            }
            Voice::Live(_) | Voice::Lines { .. } | Voice::Quiet => Ok(()),
        }
    }

    pub fn take(&mut self, node: NodeId, event: Event) -> Result<()> {
        if matches!(self.voice, Voice::Json) {
            events::print(&events::event_line(node, &event))?;
        }
        match event {
            Event::Progress(progress) => self.parts[node].progress = progress,
            Event::Failure(failure) => self.failures.add(&failure, &self.spec, &self.cluster),
            Event::Running { tasks } => self.parts[node].running = tasks,
            Event::Ended { outcome, progress, spread } => {
                if let Some(spread) = spread {
                    self.spread.add(*spread);
                }
                let part = &mut self.parts[node];
                (part.progress, part.outcome) = (progress, Some(outcome));
                part.running.clear();
            }
            Event::Alive
            | Event::Planned(_)
            | Event::Job(_)
            | Event::Source(_)
            | Event::Standing(_)
            | Event::Complete
            | Event::Deleted { .. }
            | Event::Error(_) => {}
        }
        Ok(())
    }

    /// True if the job is another's, which this report does not end.
    pub fn watches(&self) -> bool {
        self.watches
    }

    /// A node's events have ended before its part of the job.
    pub fn lose(&mut self, node: NodeId, error: s4::error::Error) -> Result<()> {
        if !self.watches {
            return Err(error);
        }
        self.speak(&error.to_string());
        self.lost.push((node, error.to_string()));
        Ok(())
    }

    /// Shows what is new since the last time.
    pub fn tick(&mut self) {
        if !self.is_json() {
            // The summary, which may be hours away, tells all.
            self.failures.take_untold().iter().for_each(|failure| self.speak(failure));
        }
        let (line, elapsed) = (self.progress_line(), self.elapsed());
        match &mut self.voice {
            Voice::Live(display) => {
                let view = View { spec: &self.spec, parts: &self.parts, elapsed };
                display.draw(|width, height| view.lines(width, height));
            }
            Voice::Lines { told } if told.elapsed() >= PROGRESS => {
                *told = Instant::now();
                say(line);
            }
            Voice::Lines { .. } | Voice::Quiet | Voice::Json => {}
        }
    }

    fn progress_line(&self) -> String {
        let (sum, kept) = (total(&self.parts), kept_text(&self.plan()));
        let bytes = match sum.bytes {
            0 => String::new(),
            bytes => format!(", {} of {}", size_text(sum.bytes_done), size_text(bytes)),
        };
        let Progress { tasks, done, running, failed, .. } = sum;
        format!("{}: {done} of {tasks} tasks done{kept}, {running} running, {failed} failed{bytes}", self.spec.kind)
    }

    /// Says something above the display, if there is one.
    pub(super) fn speak(&mut self, text: &str) {
        if let Voice::Live(display) = &mut self.voice {
            display.wipe();
        }
        say(text);
    }

    pub(super) fn wipe(&mut self) {
        if let Voice::Live(display) = &mut self.voice {
            display.wipe();
        }
    }

    pub(super) fn is_json(&self) -> bool {
        matches!(self.voice, Voice::Json)
    }

    pub(super) fn is_quiet(&self) -> bool {
        matches!(self.voice, Voice::Quiet)
    }

    /// Of all nodes.
    pub(super) fn plan(&self) -> Plan {
        self.parts.iter().map(|part| &part.plan).sum()
    }

    pub(super) fn state(&self) -> JobState {
        JobState::of(self.parts.iter().map(|part| part.outcome))
    }

    pub(super) fn elapsed(&self) -> Duration {
        self.passed + self.began.map_or(Duration::ZERO, |began| began.elapsed())
    }

    /// Asks the nodes once more, after a job was cancelled.
    pub async fn refresh(&mut self, client: &Client) {
        let client = client.with_deadline(client.deadline().min(LAST_LOOK));
        self.unheard = true;
        if let Ok(job) = client.cluster_job(&self.spec.id).await {
            self.unheard = job.nodes.len() < self.parts.len();
            for (node, record) in job.nodes {
                self.parts[node].progress = record.progress;
            }
        }
    }
}
