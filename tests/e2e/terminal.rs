//! A terminal for tests, with all that a program writes to it and the final screen.

use crate::harness::{Cluster, text};
use crate::observe::end_within;
use nix::pty::{Winsize, openpty};
use std::fs::File;
use std::io::Read;
use std::process::{Child, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

const LIMIT: Duration = Duration::from_secs(60);

/// A running `s4` whose stderr is a terminal, and the bytes that it has written there.
pub struct OnTerminal {
    child: Child,
    shown: Arc<Mutex<Vec<u8>>>,
    reader: std::thread::JoinHandle<()>,
    size: (usize, usize),
    began: Instant,
}

impl OnTerminal {
    pub fn start(cluster: &Cluster, (columns, rows): (u16, u16), args: &[&str]) -> Self {
        let size = Winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
        let pty = openpty(Some(&size), None).expect("a terminal");
        let child = cluster
            .command(args)
            .env("TERM", "xterm")
            .stdout(Stdio::piped())
            .stderr(File::from(pty.slave))
            .spawn()
            .unwrap();
        let shown = Arc::new(Mutex::new(Vec::new()));
        let (mut master, seen) = (File::from(pty.master), shown.clone());
        let reader = std::thread::spawn(move || {
            let mut block = [0; 4096];
            // The read fails once no program has the terminal open.
            while let Ok(n @ 1..) = master.read(&mut block) {
                seen.lock().unwrap().extend_from_slice(&block[..n]);
            }
        });
        Self { child, shown, reader, size: (columns.into(), rows.into()), began: Instant::now() }
    }

    pub fn text(&self) -> String {
        text(&self.shown.lock().unwrap())
    }

    /// The exit status, the bytes that were sent to the terminal, and the final screen.
    pub fn finish(self) -> (i32, String, Vec<String>) {
        let output = end_within(LIMIT, self.child);
        self.reader.join().unwrap();
        let took = self.began.elapsed().as_secs_f64();
        let sent = text(&self.shown.lock().unwrap());
        let draws = sent.matches("\x1b[?7l").count() as f64;
        assert!(draws <= 5.0 * took + 1.0, "{draws} drawings in {took} s");
        assert_eq!(sent.matches("\x1b[?7l").count(), sent.matches("\x1b[?7h").count(), "line wrap is on in the end");
        let screen = Screen::after(&sent, self.size);
        (output.status.code().unwrap(), sent, screen.lines)
    }
}

/// The part of a terminal that a progress display needs. Scrolled lines are kept.
struct Screen {
    lines: Vec<String>,
    row: usize,
    column: usize,
    wraps: bool,
}

impl Screen {
    fn after(sent: &str, (columns, rows): (usize, usize)) -> Self {
        let mut screen = Self { lines: vec![String::new()], row: 0, column: 0, wraps: true };
        let mut rest = sent;
        while let Some(c) = rest.chars().next() {
            rest = &rest[c.len_utf8()..];
            match c {
                '\x1b' => {
                    let end = rest.find(|c: char| c.is_ascii_alphabetic()).expect("a whole sequence");
                    screen.control(&rest[..=end], rows);
                    rest = &rest[end + 1..];
                }
                '\r' => screen.column = 0,
                '\n' => screen.down(),
                c => screen.put(c, columns),
            }
        }
        screen.lines.iter_mut().for_each(|line| line.truncate(line.trim_end().len()));
        while screen.lines.last().is_some_and(String::is_empty) {
            screen.lines.pop();
        }
        screen
    }

    fn control(&mut self, sequence: &str, rows: usize) {
        match sequence {
            "[?7l" => self.wraps = false,
            "[?7h" => self.wraps = true,
            "[J" => {
                self.lines.truncate(self.row + 1);
                self.lines[self.row] = self.lines[self.row].chars().take(self.column).collect();
            }
            _ => {
                let up: usize =
                    sequence.strip_prefix('[').and_then(|text| text.strip_suffix('A')).unwrap().parse().unwrap();
                assert!(up < rows, "the display is higher than the terminal: {up} of {rows}");
                self.row = self.row.checked_sub(up).expect("not above the first line");
            }
        }
    }

    fn down(&mut self) {
        self.row += 1;
        if self.row == self.lines.len() {
            self.lines.push(String::new());
        }
    }

    fn put(&mut self, c: char, columns: usize) {
        if self.column == columns {
            assert!(self.wraps, "a line of the display is too long");
            self.column = 0;
            self.down();
        }
        let mut line: Vec<char> = self.lines[self.row].chars().collect();
        line.resize(line.len().max(self.column + 1), ' ');
        line[self.column] = c;
        self.lines[self.row] = line.into_iter().collect();
        self.column += 1;
    }
}
