//! The end of a job: its summary, and the advice how to continue.

use super::copies;
use super::events;
use super::parts::{Part, total};
use super::report::Report;
use super::reruns::{gone_text, kept_text, reasons_text};
use crate::commands::console::print_message;
use crate::commands::format::{counted, seconds_text};
use crate::commands::warning::skew_text;
use s4::client::job_table::JobState;
use s4::error::{Error, ErrorKind, ExitStatus, Result};
use s4::protocol::{MapKind, Outcome, Rerun};

impl Report {
    /// Prints the summary of a job that has ended on all nodes, except nodes that `s4 wait` has lost.
    pub fn finish(mut self) -> Result<ExitStatus> {
        self.wipe();
        let state = self.state();
        if self.lost.is_empty() && state == JobState::Done {
            if self.spec.copy.is_some() && total(&self.parts).tasks == 0 {
                let error = Error::new(ErrorKind::NotFound, format!("{}: nothing found there", self.spec.from()));
                self.print_failure(state.name(), &error)?;
                return Err(error);
            }
            match (self.is_json(), self.is_quiet()) {
                (true, _) => self.print_end(state.name(), None)?,
                (false, false) => {
                    print_message(self.success());
                    self.spread.skew().iter().for_each(|(skew, example)| print_message(skew_text(skew, example)));
                }
                (false, true) => {}
            }
            return Ok(ExitStatus::Done);
        }
        let error = Error::new(ErrorKind::Command, self.failure(state));
        self.print_failure(state.name(), &error)?;
        Err(error)
    }

    /// The error that stopped following the job, with the state in which the job was left.
    pub fn give_up(mut self, error: &Error) -> Error {
        self.wipe();
        let error = Error::new(error.kind(), format!("{error}; {}", self.state_left()));
        let state = if error.kind() == ErrorKind::Cancelled { JobState::Cancelled } else { JobState::Failed };
        // The original error is more important than an error of printing.
        let _ = self.print_failure(state.name(), &error);
        error
    }

    fn success(&self) -> String {
        if let Some(copy) = &self.spec.copy {
            return copies::success(copy, &self.parts, self.elapsed());
        }
        let (sum, plan) = (total(&self.parts), self.plan());
        let reasons = reasons_text(&self.spec, &plan);
        let kept = kept_text(&plan) + &gone_text(&plan, "removed");
        let (kind, outdir, time) = (self.spec.kind, &self.spec.outdir, seconds_text(self.elapsed().as_secs_f64()));
        let hint = match (kind, sum.outputs, sum.done) {
            (MapKind::MapToN, 0, 1..) => {
                "; CMD prints the names of the files that it makes, one a line, and printed none"
            }
            _ => "",
        };
        let (done, outputs) = (counted(sum.done, "task"), counted(sum.outputs, "output"));
        format!("{kind}: {done} done{reasons}{kept}, {outputs} in {outdir}, {time}{hint}")
    }

    /// Prints the failures, or in JSON the last event.
    fn print_failure(&self, state: &str, error: &Error) -> Result<()> {
        if self.is_json() {
            return self.print_end(state, Some(error));
        }
        let tasks = total(&self.parts).tasks;
        self.failures.summary(&self.spec, tasks, &self.cluster).iter().for_each(print_message);
        Ok(())
    }

    fn print_end(&self, state: &str, error: Option<&Error>) -> Result<()> {
        let sum = total(&self.parts);
        let seconds = self.elapsed().as_secs_f64();
        events::print(&events::ended_line(self.job(), state, (&sum, self.plan().done_before), seconds, error))
    }

    fn failure(&self, state: JobState) -> String {
        let (sum, kind) = (total(&self.parts), self.spec.kind);
        let how = match state {
            _ if !self.lost.is_empty() => format!("{kind}: lost {}", self.lost_text()),
            JobState::Cancelled => format!("{kind} cancelled"),
            JobState::Interrupted => format!("{kind} interrupted: {}", self.interrupted_text()),
            JobState::Planned | JobState::Running | JobState::Done | JobState::Failed | JobState::Unknown => {
                format!("{kind} failed")
            }
        };
        let kept = kept_text(&self.plan());
        let time = seconds_text(self.elapsed().as_secs_f64());
        let tasks = counted(sum.tasks, self.spec.unit());
        let counts = format!("{} of {tasks} done{kept}, {} failed, {time}", sum.done, sum.failed);
        let left = match self.lost.is_empty() {
            true => self.outputs_left(),
            false => {
                let id = &self.spec.id;
                format!("what was made there is not known: 's4 wait {id}' asks again, 's4 cancel {id}' ends the job")
            }
        };
        format!("{how}: {counts}; {left}")
    }

    fn lost_text(&self) -> String {
        let names: Vec<String> = self.lost.iter().map(|(node, _)| self.cluster.name(*node).to_string()).collect();
        format!("{}, where the job may go on; as far as the nodes have told", names.join(" and "))
    }

    fn interrupted_text(&self) -> String {
        let ended = |(_, part): &(usize, &Part)| part.outcome == Some(Outcome::Interrupted);
        let nodes = self.parts.iter().enumerate().filter(ended);
        let names: Vec<String> = nodes.map(|(node, _)| self.cluster.name(node).to_string()).collect();
        let daemons = if names.len() == 1 { "daemon" } else { "daemons" };
        format!("the {daemons} of {} ended before the job", names.join(" and "))
    }

    /// The state of a job that could not be followed to its end. If nodes cannot be reached, it is unknown.
    fn state_left(&self) -> String {
        let id = &self.spec.id;
        match self.is_incomplete {
            false => format!("job {id}: {}", self.outputs_left()),
            true => format!(
                "job {id} may go on where it cannot be reached, and what was made there is not known: \
                 's4 wait {id}' follows it, 's4 cancel {id}' ends it"
            ),
        }
    }

    fn outputs_left(&self) -> String {
        if let Some(copy) = &self.spec.copy {
            return copies::left(copy);
        }
        let outputs = match (total(&self.parts).outputs, self.plan().done_before) {
            (0, 0) if self.spec.rerun != Rerun::Refuse => {
                "no new output was made; run the same command again to go on".to_owned()
            }
            (0, 0) => "no output was made".to_owned(),
            (outputs, before) => {
                let besides =
                    if before > 0 { format!(" besides those of the {before} done before") } else { String::new() };
                let outdir = &self.spec.outdir;
                let again = if self.spec.rerun == Rerun::Refuse { "with --resume" } else { "again" };
                format!(
                    "{outputs} outputs are kept{besides}; run the same command {again} to go on, or 's4 rm -r {outdir}' \
                     to begin anew"
                )
            }
        };
        match self.failures.stderr {
            false => outputs,
            true => format!("{outputs}; 's4 logs {}' has the stderr", self.spec.id),
        }
    }
}
