//! Draws the screen: nodes at the top, jobs below, for any size of the terminal.

use super::choice::Choice;
use super::rows::{COLUMNS, cells, command_line, counts, summary, time};
use ratatui::Frame;
use ratatui::layout::{Alignment, Constraint, Layout, Rect};
use ratatui::style::{Color, Modifier, Style, Stylize};
use ratatui::text::{Line, Span};
use ratatui::widgets::{Cell, Paragraph, Row, Table};
use s4::client::cluster_view::{ClusterView, JobView, NodeState, NodeView};

const KEYS: &str = "q quit   arrows scroll   s sort";
/// Lines per job.
const JOB_HEIGHT: u16 = 3;

/// Draws everything. Limits the scroll position to what exists.
pub fn screen(frame: &mut Frame, view: Option<&ClusterView>, choice: &mut Choice) {
    let Some(view) = view else {
        frame.render_widget(Paragraph::new("asking the nodes …"), frame.area());
        return;
    };
    // The jobs get at least a third, if there are any.
    let wanted = view.nodes.len() as u16 + 1;
    let body = frame.area().height.saturating_sub(2);
    let for_jobs = (view.jobs.len() as u16).saturating_mul(JOB_HEIGHT).min(body / 3);
    let nodes_height = wanted.min(body.saturating_sub(for_jobs));
    let [head, nodes, jobs, foot] = Layout::vertical([
        Constraint::Length(1),
        Constraint::Length(nodes_height),
        Constraint::Min(0),
        Constraint::Length(1),
    ])
    .areas(frame.area());
    frame.render_widget(Line::from(vec!["s4  ".bold(), summary(view).into()]), head);
    draw_nodes(frame, nodes, view, choice);
    draw_jobs(frame, jobs, view);
    let order = format!("{KEYS}   by {}", choice.order.name());
    frame.render_widget(Paragraph::new(order).style(Style::new().add_modifier(Modifier::DIM)), foot);
}

fn draw_nodes(frame: &mut Frame, area: Rect, view: &ClusterView, choice: &mut Choice) {
    let sorted = choice.order.sort(&view.nodes);
    let fitting = usize::from(area.height.saturating_sub(1));
    choice.scroll = choice.scroll.min(sorted.len().saturating_sub(fitting));
    let rows = sorted.into_iter().skip(choice.scroll).take(fitting).map(node_row);
    let head = COLUMNS.map(|(name, _)| right(name.to_owned()));
    let head = Row::new(head).style(Style::new().add_modifier(Modifier::BOLD | Modifier::UNDERLINED));
    // All columns fit into 80 characters. Wider values are rare, and are cut.
    let widths = COLUMNS.map(|(_, width)| Constraint::Length(width as u16 - u16::from(width == 8)));
    frame.render_widget(Table::new(rows, widths).header(head).column_spacing(1), area);
}

fn right(text: String) -> Cell<'static> {
    Cell::new(Line::from(text).alignment(Alignment::Right))
}

fn node_row(node: &NodeView) -> Row<'static> {
    let row = Row::new(cells(node).map(right));
    // The state is also written as a word, for users who cannot see the colours.
    match node.state {
        NodeState::Up => row,
        NodeState::Full => row.style(Color::Yellow),
        NodeState::Down | NodeState::Refuses => row.style(Color::Red),
    }
}

fn draw_jobs(frame: &mut Frame, area: Rect, view: &ClusterView) {
    if view.jobs.is_empty() {
        frame.render_widget(Paragraph::new("\nno jobs").style(Style::new().add_modifier(Modifier::DIM)), area);
        return;
    }
    let mut lines = Vec::new();
    // Running jobs come first.
    let (running, ended): (Vec<_>, Vec<_>) = view.jobs.iter().partition(|job| job.is_running());
    for job in running.into_iter().chain(ended).take(usize::from(area.height / JOB_HEIGHT) + 1) {
        lines.extend(job_lines(job, area.width));
    }
    frame.render_widget(Paragraph::new(lines), area);
}

fn job_lines(job: &JobView, width: u16) -> [Line<'static>; JOB_HEIGHT as usize] {
    let state = match job.state {
        "running" => job.state.bold(),
        "failed" | "interrupted" => job.state.red().bold(),
        _ => job.state.dim(),
    };
    let what = format!(" {} {} -> {}: {}", job.kind, job.indir, job.outdir, command_line(job));
    let bar_width = (usize::from(width) / 3).clamp(10, 60);
    let mut line = bar(job, bar_width);
    line.push(Span::raw(format!(" {}", counts(job))));
    let time = time(job);
    if !time.is_empty() {
        line.push(Span::raw(format!(", {time}")).dim());
    }
    [Line::default(), Line::from(vec![state, what.into()]), Line::from(line)]
}

/// Done, failed and running tasks as shares of all, each with its own character.
fn bar(job: &JobView, width: usize) -> Vec<Span<'static>> {
    let progress = &job.progress;
    let share = |count: u64| match count {
        0 => 0,
        _ => ((count as f64 / progress.tasks.max(1) as f64 * width as f64) as usize).max(1),
    };
    let failed = share(progress.failed).min(width);
    let done = share(progress.done).min(width - failed);
    let running = share(progress.running).min(width - failed - done);
    vec![
        "█".repeat(done).blue(),
        "×".repeat(failed).red(),
        "▒".repeat(running).cyan(),
        "·".repeat(width - done - failed - running).dim(),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use ratatui::Terminal;
    use ratatui::backend::TestBackend;
    use s4::protocol::{FailureGroups, Progress};

    fn view(nodes: usize) -> ClusterView {
        let nodes = (0..nodes).map(|node| NodeView {
            node,
            address: format!("10.0.0.{node}:80"),
            state: if node == 1 { NodeState::Down } else { NodeState::Up },
            why: None,
            health: None,
            usage: None,
            samples: Vec::new(),
        });
        let job = JobView {
            id: "20260101-000000-000-000000".into(),
            kind: "map".into(),
            indir: "s4://in/".into(),
            outdir: "s4://out/".into(),
            cmd: "sort".into(),
            state: "running",
            started: Some(0),
            ended: None,
            elapsed: Some(5000),
            seconds_left: Some(5.0),
            progress: Progress { tasks: 100, done: 50, failed: 1, running: 2, ..Progress::default() },
            done_before: 0,
            parts: Vec::new(),
            crowded: None,
            failures: FailureGroups::default(),
        };
        ClusterView { now: 5000, nodes: nodes.collect(), crowded: None, jobs: vec![job] }
    }

    fn drawn(width: u16, height: u16, view: &ClusterView, choice: &mut Choice) -> String {
        let mut terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
        terminal.draw(|frame| screen(frame, Some(view), choice)).unwrap();
        terminal.backend().to_string()
    }

    #[test]
    fn nodes_and_a_job_fit_into_80_by_24() {
        let text = drawn(80, 24, &view(12), &mut Choice::default());
        for part in [
            "12 nodes",
            "down",
            "free",
            "running map s4://in/ -> s4://out/: sort",
            "50 of 100 done, 1 failed",
            "q quit",
        ] {
            assert!(text.contains(part), "no {part} in\n{text}");
        }
    }

    #[test]
    fn many_nodes_leave_room_for_the_job_and_can_be_scrolled() {
        let mut choice = Choice { scroll: usize::MAX / 2, ..Choice::default() };
        let text = drawn(80, 24, &view(1000), &mut choice);
        assert!(text.contains(" 999 ") && text.contains("50 of 100 done"), "{text}");
        assert!(choice.scroll < 1000);
    }

    #[test]
    fn no_size_is_too_small() {
        for (width, height) in [(1, 1), (10, 3), (80, 2), (200, 5), (5, 50)] {
            drawn(width, height, &view(20), &mut Choice::default());
        }
    }
}
