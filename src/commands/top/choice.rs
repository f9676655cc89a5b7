//! What the user of `s4 top` has selected, and how keys change it. Pure: requests to the cluster are returned.

#[cfg(test)]
use super::rows::tests::view;
use super::rows::{Order, jobs_in_order};
use ratatui::crossterm::event::{KeyCode, KeyEvent, KeyModifiers};
use s4::client::cluster_view::ClusterView;
use s4::placement::NodeId;

/// The list in which arrows move.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Pane {
    #[default]
    Nodes,
    Jobs,
}

/// What fills the screen.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Page {
    #[default]
    Overview,
    Node(NodeId),
    Job(String),
    Logs(String),
}

/// A request to the cluster.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ask {
    /// The stderr of the commands of this job.
    Logs(String),
    /// To end this job.
    Cancel(String),
}

/// What follows from a key.
#[derive(Debug, PartialEq, Eq)]
pub enum Reaction {
    Stay,
    Quit,
    Ask(Ask),
}

#[derive(Default)]
pub struct Choice {
    pub order: Order,
    pub pane: Pane,
    /// The selected rows. The next drawing limits them to those that exist.
    pub node: usize,
    pub job: usize,
    pub page: Page,
    /// The first line of a page that is shown, but for the overview.
    pub scroll: usize,
    /// The job that the user is asked whether to cancel.
    pub to_cancel: Option<String>,
    /// What the last request has led to.
    pub message: String,
    /// The lines of the page of logs.
    pub logs: Vec<String>,
}

impl Choice {
    pub fn take(&mut self, key: KeyEvent, view: Option<&ClusterView>) -> Reaction {
        if key.code == KeyCode::Char('c') && key.modifiers.contains(KeyModifiers::CONTROL) {
            return Reaction::Quit;
        }
        if let Some(job) = self.to_cancel.take() {
            return match key.code {
                KeyCode::Char('y') => Reaction::Ask(Ask::Cancel(job)),
                _ => Reaction::Stay,
            };
        }
        self.message.clear();
        match key.code {
            KeyCode::Char('q') => return Reaction::Quit,
            KeyCode::Esc | KeyCode::Backspace => return self.back(),
            KeyCode::Tab if self.page == Page::Overview => self.switch(),
            KeyCode::Enter if self.page == Page::Overview => self.open(view),
            KeyCode::Char('s') => self.order = self.order.next(),
            KeyCode::Char('l') => return self.show_logs(view),
            KeyCode::Char('c') => self.to_cancel = self.selected_job(view),
            code => self.move_by(code),
        }
        Reaction::Stay
    }

    /// The row or line that arrows move.
    fn position(&mut self) -> &mut usize {
        match (&self.page, self.pane) {
            (Page::Overview, Pane::Nodes) => &mut self.node,
            (Page::Overview, Pane::Jobs) => &mut self.job,
            _ => &mut self.scroll,
        }
    }

    fn move_by(&mut self, code: KeyCode) {
        let position = self.position();
        *position = match code {
            KeyCode::Down | KeyCode::Char('j') => *position + 1,
            KeyCode::Up | KeyCode::Char('k') => position.saturating_sub(1),
            KeyCode::PageDown => *position + 10,
            KeyCode::PageUp => position.saturating_sub(10),
            KeyCode::Home => 0,
            KeyCode::End => usize::MAX / 2,
            _ => *position,
        };
    }

    fn switch(&mut self) {
        self.pane = match self.pane {
            Pane::Nodes => Pane::Jobs,
            Pane::Jobs => Pane::Nodes,
        };
    }

    fn go_to(&mut self, page: Page) {
        (self.page, self.scroll) = (page, 0);
    }

    fn back(&mut self) -> Reaction {
        match std::mem::take(&mut self.page) {
            Page::Overview => return Reaction::Quit,
            Page::Logs(job) => self.go_to(Page::Job(job)),
            Page::Node(_) | Page::Job(_) => self.scroll = 0,
        }
        Reaction::Stay
    }

    fn open(&mut self, view: Option<&ClusterView>) {
        let page = match self.pane {
            Pane::Nodes => {
                view.and_then(|view| self.order.sort(&view.nodes).get(self.node).map(|node| Page::Node(node.node)))
            }
            Pane::Jobs => self.selected_job(view).map(Page::Job),
        };
        if let Some(page) = page {
            self.go_to(page);
        }
    }

    fn show_logs(&mut self, view: Option<&ClusterView>) -> Reaction {
        let Some(job) = self.selected_job(view) else { return Reaction::Stay };
        self.logs = vec!["asking the nodes …".to_owned()];
        self.go_to(Page::Logs(job.clone()));
        Reaction::Ask(Ask::Logs(job))
    }

    /// The job of the page, or of the selected row.
    fn selected_job(&self, view: Option<&ClusterView>) -> Option<String> {
        match (&self.page, self.pane) {
            (Page::Job(job) | Page::Logs(job), _) => Some(job.clone()),
            (Page::Overview, Pane::Jobs) => jobs_in_order(view?).get(self.job).map(|job| job.id.clone()),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn press(choice: &mut Choice, code: KeyCode) -> Reaction {
        choice.take(KeyEvent::new(code, KeyModifiers::NONE), Some(&view(3)))
    }

    #[test]
    fn a_job_is_opened_its_logs_are_asked_for_and_esc_leads_back() {
        let mut choice = Choice::default();
        let id = view(3).jobs[0].id.clone();
        assert_eq!(press(&mut choice, KeyCode::Char('l')), Reaction::Stay, "no job is selected");
        press(&mut choice, KeyCode::Tab);
        press(&mut choice, KeyCode::Enter);
        assert_eq!(choice.page, Page::Job(id.clone()));
        assert_eq!(press(&mut choice, KeyCode::Char('l')), Reaction::Ask(Ask::Logs(id.clone())));
        assert_eq!(choice.page, Page::Logs(id.clone()));
        for page in [Page::Job(id), Page::Overview] {
            assert_eq!(press(&mut choice, KeyCode::Esc), Reaction::Stay);
            assert_eq!(choice.page, page);
        }
        assert_eq!(press(&mut choice, KeyCode::Esc), Reaction::Quit);
    }

    #[test]
    fn a_job_is_cancelled_only_after_y() {
        let mut choice = Choice { pane: Pane::Jobs, ..Choice::default() };
        let id = view(3).jobs[0].id.clone();
        for (answer, reaction) in [('n', Reaction::Stay), ('y', Reaction::Ask(Ask::Cancel(id)))] {
            assert_eq!(press(&mut choice, KeyCode::Char('c')), Reaction::Stay);
            assert_eq!(press(&mut choice, KeyCode::Char(answer)), reaction);
            assert_eq!(choice.to_cancel, None);
        }
    }

    #[test]
    fn the_selected_node_is_opened_in_the_order_of_the_screen() {
        let mut choice = Choice { order: Order::State, ..Choice::default() };
        press(&mut choice, KeyCode::Enter);
        assert_eq!(choice.page, Page::Node(1), "it is down, and so comes first");
    }
}
