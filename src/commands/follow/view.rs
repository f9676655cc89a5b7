//! The live display of a job.

use super::parts::{Part, counted, total};
use crate::commands::display::bar;
use crate::commands::format::{cut, seconds_text, size_text};
use s4::placement::NodeId;
use s4::protocol::{JobSpec, Progress, RunningTask};
use std::time::Duration;

/// Limit of slow tasks that are named.
const SLOWEST: usize = 3;
/// Seconds after which a task counts as slow.
const SLOW: f64 = 1.0;

/// The data to show.
pub struct View<'a> {
    pub spec: &'a JobSpec,
    pub parts: &'a [Part],
    /// Time since the job began.
    pub elapsed: Duration,
}

impl View<'_> {
    /// Up to `height` lines of at most `width` characters; the most important ones come first.
    pub fn lines(&self, width: usize, height: usize) -> Vec<String> {
        let sum = total(self.parts);
        let mut lines = vec![self.counts(&sum), self.speed(&sum, width)];
        let slowest = self.slowest();
        let rest = height.saturating_sub(lines.len() + usize::from(slowest.is_some()));
        // A single bar would repeat the line above it.
        if self.parts.len() > 1 && self.parts.len() <= rest {
            lines.extend(self.parts.iter().enumerate().map(|(node, part)| self.node(node, part, width)));
        }
        lines.extend(slowest);
        lines.truncate(height);
        lines.iter().map(|line| cut(line, width)).collect()
    }

    fn counts(&self, sum: &Progress) -> String {
        let Progress { tasks, done, running, failed, .. } = sum;
        let bytes = match sum.bytes {
            0 => String::new(),
            bytes => format!(", {} of {}", size_text(sum.bytes_done), size_text(bytes)),
        };
        format!("{} {done}/{tasks} done, {running} running, {failed} failed{bytes}", self.spec.kind)
    }

    fn speed(&self, sum: &Progress, width: usize) -> String {
        let seconds = self.elapsed.as_secs_f64().max(0.001);
        let share = sum.share();
        let mut text = format!(" {:3.0}%", share * 100.0);
        if sum.done > 0 {
            text += &format!(", {:.1} {}s/s", sum.done as f64 / seconds, self.spec.unit());
        }
        if sum.bytes_done > 0 {
            text += &format!(", {}/s", size_text((sum.bytes_done as f64 / seconds) as u64));
        }
        if share > 0.0 {
            text += &format!(", {} left", seconds_text(seconds / share * (1.0 - share)));
        }
        bar(share, width.saturating_sub(text.len())) + &text
    }

    fn node(&self, node: NodeId, part: &Part, width: usize) -> String {
        let progress = counted(part);
        let mut text = format!(" {}/{}", progress.done, progress.tasks);
        if progress.running > 0 {
            text += &format!(", {} running", progress.running);
        }
        if progress.failed > 0 {
            text += &format!(", {} failed", progress.failed);
        }
        let digits = self.parts.len().saturating_sub(1).to_string().len();
        let name = format!("{node:>digits$} ");
        format!("{name}{}{text}", bar(progress.share(), width.saturating_sub(name.len() + text.len())))
    }

    fn slowest(&self) -> Option<String> {
        let tasks = self.parts.iter().flat_map(|part| &part.running).filter(|task| task.seconds >= SLOW);
        let mut tasks: Vec<&RunningTask> = tasks.collect();
        tasks.sort_by(|a, b| b.seconds.total_cmp(&a.seconds));
        let name = |task: &&RunningTask| format!("{} {}", task.key.basename(), seconds_text(task.seconds));
        let names: Vec<String> = tasks.iter().take(SLOWEST).map(name).collect();
        (!names.is_empty()).then(|| format!("slowest: {}", names.join(", ")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use s4::key::{Dir, Key};
    use s4::pattern::Pattern;
    use s4::protocol::{CommandText, MapKind, Plan};

    fn spec() -> JobSpec {
        let (indir, outdir) = (Pattern::parse_url("s4://in/").unwrap(), Dir::parse_url("s4://out/").unwrap());
        JobSpec::new(MapKind::Map, indir, outdir, CommandText::new("cat".into()).unwrap())
    }

    fn part(done: u64) -> Part {
        let key = Key::parse("in/slow_ä").unwrap();
        Part {
            plan: Plan { tasks: 10, keys: 10, bytes: 1000, ..Plan::default() },
            progress: Progress { done, running: 2, failed: 1, bytes_done: 100 * done, ..Progress::default() },
            outcome: None,
            running: vec![RunningTask { key, seconds: 12.0 + done as f64 }],
        }
    }

    #[test]
    fn the_display_fits_into_every_size_of_terminal() {
        let (spec, parts) = (spec(), [part(5), part(0), part(10)]);
        let view = View { spec: &spec, parts: &parts, elapsed: Duration::from_secs(10) };
        for width in 0..120 {
            for height in 1..12 {
                let lines = view.lines(width, height);
                assert!(lines.len() <= height, "{width}x{height}: {lines:?}");
                assert!(lines.iter().all(|line| line.chars().count() <= width), "{width}x{height}: {lines:?}");
            }
        }
    }

    #[test]
    fn the_lines_say_where_the_job_stands() {
        let (spec, parts) = (spec(), [part(5), part(0), part(10)]);
        let lines = View { spec: &spec, parts: &parts, elapsed: Duration::from_secs(10) }.lines(100, 24);
        assert_eq!(lines[0], "map 15/30 done, 6 running, 3 failed, 1.5K of 2.9K");
        assert!(lines[1].ends_with("]  50%, 1.5 tasks/s, 150B/s, 10.0 s left"), "{}", lines[1]);
        assert!(lines[2].starts_with("0 [####") && lines[2].ends_with("] 5/10, 2 running, 1 failed"), "{}", lines[2]);
        // A failed task has ended too.
        assert!(lines[3].starts_with("1 [####....") && lines[4].starts_with("2 [####"), "{lines:?}");
        assert_eq!(lines[5], "slowest: slow_ä 22.0 s, slow_ä 17.0 s, slow_ä 12.0 s");
        assert_eq!(lines.len(), 6);
    }

    #[test]
    fn bars_that_do_not_fit_are_left_out() {
        let (spec, parts) = (spec(), [part(5), part(0), part(10)]);
        let lines = View { spec: &spec, parts: &parts, elapsed: Duration::from_secs(10) }.lines(100, 5);
        assert_eq!(lines.len(), 3, "{lines:?}");
        assert!(lines[2].starts_with("slowest"), "{lines:?}");
    }
}
