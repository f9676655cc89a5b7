//! The selections of the user of `s4 top`, changed by keys.

use super::rows::Order;
use ratatui::crossterm::event::{KeyCode, KeyEvent, KeyModifiers};

/// The selections of the user.
#[derive(Default)]
pub struct Choice {
    pub order: Order,
    /// The first node to show.
    pub scroll: usize,
}

impl Choice {
    /// Handles a key; false if it quits.
    pub fn take(&mut self, key: KeyEvent) -> bool {
        let control = key.modifiers.contains(KeyModifiers::CONTROL);
        match key.code {
            KeyCode::Char('q') | KeyCode::Esc => return false,
            KeyCode::Char('c') if control => return false,
            KeyCode::Down | KeyCode::Char('j') => self.scroll += 1,
            KeyCode::Up | KeyCode::Char('k') => self.scroll = self.scroll.saturating_sub(1),
            KeyCode::PageDown => self.scroll += 10,
            KeyCode::PageUp => self.scroll = self.scroll.saturating_sub(10),
            KeyCode::Home => self.scroll = 0,
            // The next drawing limits it to the last node.
            KeyCode::End => self.scroll = usize::MAX / 2,
            KeyCode::Char('s') => self.order = self.order.next(),
            _ => {}
        }
        true
    }
}
