//! A live display on a terminal: lines on stderr that are redrawn.

use std::io::{IsTerminal, Write};
use std::time::{Duration, Instant};

/// The interval between two drawings.
const REDRAW: Duration = Duration::from_millis(200);
/// The maximal length of a bar, in characters.
const BAR: usize = 40;

/// True if stderr is a terminal that can move its cursor.
pub fn is_terminal() -> bool {
    std::io::stderr().is_terminal() && std::env::var_os("TERM").is_some_and(|term| term != "dumb")
}

/// The lines on the terminal. Dropping it clears them.
#[derive(Default)]
pub struct Display {
    /// The width of each line that was drawn.
    drawn: Vec<usize>,
    at: Option<Instant>,
}

impl Display {
    /// Draws the lines that `lines` returns for a number of columns and rows. Does nothing if the last drawing was just
    /// now.
    pub fn draw(&mut self, lines: impl FnOnce(usize, usize) -> Vec<String>) {
        if self.at.is_some_and(|at| at.elapsed() < REDRAW) {
            return;
        }
        let (width, height) = terminal_size();
        let lines = lines(width.saturating_sub(1), height.saturating_sub(1).max(1));
        // Without line wrap: a character may be wider than expected.
        let text = format!("{}\x1b[?7l{}\n\x1b[?7h", self.to_wipe(width), lines.join("\n"));
        self.drawn = lines.iter().map(|line| line.chars().count()).collect();
        self.at = Some(Instant::now());
        write(&text);
    }

    /// Clears the display.
    pub fn wipe(&mut self) {
        let (width, _) = terminal_size();
        write(&self.to_wipe(width));
        self.drawn.clear();
        self.at = None;
    }

    fn to_wipe(&self, width: usize) -> String {
        // If the terminal has become narrower since, it has wrapped the lines.
        let rows: usize = self.drawn.iter().map(|&drawn| drawn.div_ceil(width).max(1)).sum();
        match rows {
            0 => String::new(),
            rows => format!("\r\x1b[{rows}A\x1b[J"),
        }
    }
}

impl Drop for Display {
    fn drop(&mut self) {
        self.wipe();
    }
}

fn write(text: &str) {
    // The terminal may be closed.
    let _ = std::io::stderr().write_all(text.as_bytes());
}

/// Columns and rows of the terminal on stderr, each at least 1.
fn terminal_size() -> (usize, usize) {
    match terminal_size::terminal_size_of(std::io::stderr()) {
        Some((terminal_size::Width(width), terminal_size::Height(height))) => {
            (usize::from(width).max(1), usize::from(height).max(1))
        }
        None => (80, 24),
    }
}

/// A bar like `[###...]` of at most `width` characters; empty if it would be too short.
pub fn bar(share: f64, width: usize) -> String {
    let inner = width.saturating_sub(2).min(BAR);
    if inner < 4 {
        return String::new();
    }
    let full = (share * inner as f64) as usize;
    format!("[{}{}]", "#".repeat(full), ".".repeat(inner - full))
}
