//! The state of a followed job as reported by the nodes, and its output to the user.

use super::events;
use super::failures::Failures;
use super::parts::{Part, total};
use super::reruns::kept_text;
use super::view::View;
use crate::cli::ShowArgs;
use crate::commands::console::print_message;
use crate::commands::display::{Display, is_terminal};
use crate::commands::format::{counted, size_text};
use s4::client::Client;
use s4::client::job_table::{ClusterJob, JobState};
use s4::cluster::Cluster;
use s4::error::Result;
use s4::placement::NodeId;
use s4::protocol::{Event, JobId, JobSpec, Plan, Progress};
use s4::skew::Spread;
use std::time::{Duration, Instant};

/// The interval of progress lines if stderr is no terminal.
const PROGRESS_INTERVAL: Duration = Duration::from_secs(5);
/// How long to wait for the nodes' final counts after a cancel.
const FINAL_TIMEOUT: Duration = Duration::from_millis(500);

/// The form of the output.
enum Output {
    /// A live display on a terminal.
    Live(Display),
    /// A progress line at intervals, for a log.
    Lines {
        printed: Instant,
    },
    Quiet,
    /// JSON events for a program.
    Json,
}

pub struct Report {
    pub(super) cluster: Cluster,
    pub(super) spec: JobSpec,
    pub(super) parts: Vec<Part>,
    pub(super) failures: Failures,
    /// True for `s4 wait`, which continues if a node is lost.
    watches: bool,
    pub(super) lost: Vec<(NodeId, String)>,
    /// Some nodes have not reported their final state.
    pub(super) is_incomplete: bool,
    /// Where the outputs of a 1:n map went.
    pub(super) spread: Spread,
    output: Output,
    /// When the report began; `None` if the job had ended before.
    began: Option<Instant>,
    /// How long the job had run at that time.
    passed: Duration,
}

impl Report {
    /// The report of a job that was started just now.
    pub fn new(client: &Client, spec: &JobSpec, plans: Vec<Plan>, show: &ShowArgs, began: Instant) -> Self {
        let output = match () {
            () if show.json => Output::Json,
            () if show.quiet => Output::Quiet,
            () if is_terminal() => Output::Live(Display::default()),
            () => Output::Lines { printed: Instant::now() },
        };
        Self {
            cluster: client.cluster().clone(),
            spec: spec.clone(),
            parts: plans.into_iter().map(|plan| Part { plan, ..Part::default() }).collect(),
            failures: Failures::default(),
            watches: false,
            lost: Vec::new(),
            is_incomplete: false,
            spread: Spread::new(client.cluster().len()),
            output,
            began: Some(began),
            passed: Duration::ZERO,
        }
    }

    /// The report of a job that was started elsewhere, possibly long ago.
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
        match self.output {
            Output::Json => {
                let plans: Vec<Plan> = self.parts.iter().map(|part| part.plan).collect();
                events::print(&events::planned_line(&self.spec, &plans))
            }
            Output::Live(_) | Output::Lines { .. } | Output::Quiet => Ok(()),
        }
    }

    pub fn take(&mut self, node: NodeId, event: Event) -> Result<()> {
        if matches!(self.output, Output::Json) {
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
            | Event::Existing(_)
            | Event::Complete
            | Event::Deleted { .. }
            | Event::Error(_) => {}
        }
        Ok(())
    }

    /// True for `s4 wait`: interrupting it does not end the job.
    pub fn watches(&self) -> bool {
        self.watches
    }

    /// The connection to a node has ended before the node's part of the job.
    pub fn lose(&mut self, node: NodeId, error: s4::error::Error) -> Result<()> {
        if !self.watches {
            return Err(error);
        }
        self.print_above(&error.to_string());
        self.lost.push((node, error.to_string()));
        Ok(())
    }

    /// Updates the display.
    pub fn tick(&mut self) {
        if !self.is_json() {
            // The complete summary may come hours later.
            self.failures.take_new().iter().for_each(|failure| self.print_above(failure));
        }
        let (line, elapsed) = (self.progress_line(), self.elapsed());
        match &mut self.output {
            Output::Live(display) => {
                let view = View { spec: &self.spec, parts: &self.parts, elapsed };
                display.draw(|width, height| view.lines(width, height));
            }
            Output::Lines { printed } if printed.elapsed() >= PROGRESS_INTERVAL => {
                *printed = Instant::now();
                print_message(line);
            }
            Output::Lines { .. } | Output::Quiet | Output::Json => {}
        }
    }

    fn progress_line(&self) -> String {
        let (sum, kept) = (total(&self.parts), kept_text(&self.plan()));
        let bytes = match sum.bytes {
            0 => String::new(),
            bytes => format!(", {} of {}", size_text(sum.bytes_done), size_text(bytes)),
        };
        let Progress { tasks, done, running, failed, .. } = sum;
        let tasks = counted(tasks, self.spec.unit());
        format!("{}: {done} of {tasks} done{kept}, {running} running, {failed} failed{bytes}", self.spec.kind)
    }

    /// Prints a message above the display, if there is one.
    pub(super) fn print_above(&mut self, text: &str) {
        if let Output::Live(display) = &mut self.output {
            display.wipe();
        }
        print_message(text);
    }

    pub(super) fn wipe(&mut self) {
        if let Output::Live(display) = &mut self.output {
            display.wipe();
        }
    }

    pub(super) fn is_json(&self) -> bool {
        matches!(self.output, Output::Json)
    }

    pub(super) fn is_quiet(&self) -> bool {
        matches!(self.output, Output::Quiet)
    }

    /// The sum of all nodes' plans.
    pub(super) fn plan(&self) -> Plan {
        self.parts.iter().map(|part| &part.plan).sum()
    }

    pub(super) fn state(&self) -> JobState {
        JobState::of(self.parts.iter().map(|part| part.outcome))
    }

    pub(super) fn elapsed(&self) -> Duration {
        self.passed + self.began.map_or(Duration::ZERO, |began| began.elapsed())
    }

    /// Asks the nodes for their final state after a cancel.
    pub async fn refresh(&mut self, client: &Client) {
        let client = client.with_deadline(client.deadline().min(FINAL_TIMEOUT));
        self.is_incomplete = true;
        if let Ok(job) = client.cluster_job(&self.spec.id).await {
            self.is_incomplete = job.nodes.len() < self.parts.len();
            for (node, record) in job.nodes {
                self.parts[node].progress = record.progress;
            }
        }
    }
}
