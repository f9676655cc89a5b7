//! Draws the screen: nodes at the top, jobs below, for any size of the terminal.

use super::choice::{Choice, Page, Pane};
use super::details::{job_lines, node_lines};
#[cfg(test)]
use super::rows::tests::view;
use super::rows::{COLUMNS, cells, command_line, counts, jobs_in_order, summary, time};
use ratatui::Frame;
use ratatui::layout::{Alignment, Constraint, Layout, Rect};
use ratatui::style::{Color, Modifier, Style, Stylize};
use ratatui::text::{Line, Span};
use ratatui::widgets::{Cell, Paragraph, Row, Table};
use s4::bounds::one_line;
use s4::client::cluster_view::{ClusterView, JobView, NodeState, NodeView};

/// The keys of each page.
const OVERVIEW_KEYS: &str = "q quit  arrows move  Tab nodes/jobs  Enter open  l logs  c cancel  s by";
const JOB_KEYS: &str = "q quit  Esc back  arrows scroll  l logs  c cancel the job";
const PAGE_KEYS: &str = "q quit  Esc back  arrows scroll";
/// Lines per job.
const JOB_HEIGHT: u16 = 3;

/// Draws everything. Limits the selection and the scroll position to what exists.
pub fn screen(frame: &mut Frame, view: Option<&ClusterView>, choice: &mut Choice) {
    let Some(view) = view else {
        frame.render_widget(Paragraph::new("asking the nodes …"), frame.area());
        return;
    };
    let [head, body, foot] =
        Layout::vertical([Constraint::Length(1), Constraint::Min(0), Constraint::Length(1)]).areas(frame.area());
    frame.render_widget(Line::from(vec!["s4  ".bold(), summary(view).into()]), head);
    match choice.page.clone() {
        Page::Overview => draw_overview(frame, body, view, choice),
        Page::Node(number) => {
            let lines = view.nodes.get(number).map(node_lines).unwrap_or_default();
            draw_lines(frame, body, lines, choice);
        }
        Page::Job(id) => draw_lines(frame, body, job_lines(view, &id), choice),
        Page::Logs(_) => {
            let lines = choice.logs.iter().map(|line| Line::from(one_line(line.clone()))).collect();
            draw_lines(frame, body, lines, choice);
        }
    }
    draw_foot(frame, foot, choice);
}

fn draw_foot(frame: &mut Frame, area: Rect, choice: &Choice) {
    let line = match (&choice.to_cancel, choice.message.as_str()) {
        (Some(job), _) => Line::from(format!("cancel job {job}? y: yes, any other key: no")).bold(),
        (None, "") => {
            let keys = match choice.page {
                Page::Overview => format!("{OVERVIEW_KEYS} {}", choice.order.name()),
                Page::Job(_) => JOB_KEYS.to_owned(),
                Page::Node(_) | Page::Logs(_) => PAGE_KEYS.to_owned(),
            };
            Line::from(keys).dim()
        }
        (None, message) => Line::from(message.to_owned()).bold(),
    };
    frame.render_widget(line, area);
}

/// The lines from the scroll position on.
fn draw_lines(frame: &mut Frame, area: Rect, lines: Vec<Line<'static>>, choice: &mut Choice) {
    choice.scroll = choice.scroll.min(lines.len().saturating_sub(usize::from(area.height)));
    let shown: Vec<Line> = lines.into_iter().skip(choice.scroll).take(area.height.into()).collect();
    frame.render_widget(Paragraph::new(shown), area);
}

fn draw_overview(frame: &mut Frame, area: Rect, view: &ClusterView, choice: &mut Choice) {
    // The jobs get at least a third, if there are any.
    let wanted = (view.nodes.len() as u16).saturating_add(1);
    let for_jobs = (view.jobs.len() as u16).saturating_mul(JOB_HEIGHT).min(area.height / 3);
    let nodes_height = wanted.min(area.height.saturating_sub(for_jobs));
    let [nodes, jobs] = Layout::vertical([Constraint::Length(nodes_height), Constraint::Min(0)]).areas(area);
    draw_nodes(frame, nodes, view, choice);
    draw_jobs(frame, jobs, view, choice);
}

/// The first of `all` rows to show, so that the selected one is among the `fitting` ones.
fn first_shown(selected: usize, fitting: usize) -> usize {
    (selected + 1).saturating_sub(fitting.max(1))
}

fn draw_nodes(frame: &mut Frame, area: Rect, view: &ClusterView, choice: &mut Choice) {
    let sorted = choice.order.sort(&view.nodes);
    choice.node = choice.node.min(sorted.len().saturating_sub(1));
    let fitting = usize::from(area.height.saturating_sub(1));
    let selected = (choice.pane == Pane::Nodes).then_some(choice.node);
    let numbered = sorted.into_iter().enumerate().skip(first_shown(choice.node, fitting)).take(fitting);
    let rows = numbered.map(|(at, node)| match selected == Some(at) {
        true => node_row(node).add_modifier(Modifier::REVERSED),
        false => node_row(node),
    });
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

fn draw_jobs(frame: &mut Frame, area: Rect, view: &ClusterView, choice: &mut Choice) {
    if view.jobs.is_empty() {
        frame.render_widget(Paragraph::new("\nno jobs").style(Style::new().add_modifier(Modifier::DIM)), area);
        return;
    }
    choice.job = choice.job.min(view.jobs.len() - 1);
    let selected = (choice.pane == Pane::Jobs).then_some(choice.job);
    let fitting = usize::from(area.height / JOB_HEIGHT);
    let mut lines = Vec::new();
    let jobs = jobs_in_order(view).into_iter().enumerate().skip(first_shown(choice.job, fitting));
    for (at, job) in jobs.take(fitting + 1) {
        lines.extend(job_rows(job, area.width, selected == Some(at)));
    }
    frame.render_widget(Paragraph::new(lines), area);
}

fn job_rows(job: &JobView, width: u16, is_selected: bool) -> [Line<'static>; JOB_HEIGHT as usize] {
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
    let mut head = Line::from(vec![state, what.into()]);
    if is_selected {
        head = head.add_modifier(Modifier::REVERSED);
    }
    [Line::default(), head, Line::from(line)]
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
        let mut choice = Choice { node: usize::MAX / 2, ..Choice::default() };
        let text = drawn(80, 24, &view(1000), &mut choice);
        assert!(text.contains(" 999 ") && text.contains("50 of 100 done"), "{text}");
        assert_eq!(choice.node, 999);
    }

    #[test]
    fn a_job_and_a_node_have_pages() {
        let view = view(3);
        let mut choice = Choice { page: Page::Job(view.jobs[0].id.clone()), ..Choice::default() };
        let text = drawn(80, 24, &view, &mut choice);
        for part in [
            "20260101-000000-000-000000 running",
            "1970-01-01 00:00:00 UTC",
            "51%, 50 of 100 done, 1 failed",
            "Esc back",
        ] {
            assert!(text.contains(part), "no {part} in\n{text}");
        }
        choice.page = Page::Node(1);
        assert!(drawn(80, 24, &view, &mut choice).contains("node 1 10.0.0.1:80 down"));
    }

    #[test]
    fn no_size_is_too_small() {
        for (width, height) in [(1, 1), (10, 3), (80, 2), (200, 5), (5, 50)] {
            for page in [Page::Overview, Page::Node(1), Page::Job(view(1).jobs[0].id.clone()), Page::Logs("x".into())] {
                drawn(width, height, &view(20), &mut Choice { page, pane: Pane::Jobs, ..Choice::default() });
            }
        }
    }
}
