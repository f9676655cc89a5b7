//! The daemon's log on stderr: one line for each event, with time, level and the name of this node. Control characters
//! are escaped, so that no key or request of a stranger makes a line that looks like another one.

use clap::ValueEnum;
use std::fmt::{self, Debug, Write};
use std::io::IsTerminal;
use tracing::field::{Field, Visit};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::time::{FormatTime, SystemTime};
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields};
use tracing_subscriber::registry::LookupSpan;

/// Limit of bytes of a message.
const MAX_MESSAGE: usize = 8 << 10;

/// What is logged: events of this level and of the more important ones.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum LogLevel {
    Error,
    Warn,
    Info,
    Debug,
}

impl From<LogLevel> for Level {
    fn from(level: LogLevel) -> Self {
        match level {
            LogLevel::Error => Self::ERROR,
            LogLevel::Warn => Self::WARN,
            LogLevel::Info => Self::INFO,
            LogLevel::Debug => Self::DEBUG,
        }
    }
}

/// Starts the log of the daemon of `node`.
pub fn start(level: LogLevel, node: String) {
    let colours = std::io::stderr().is_terminal();
    tracing_subscriber::fmt()
        .with_max_level(Level::from(level))
        .with_writer(std::io::stderr)
        .with_ansi(colours)
        .event_format(Lines { node })
        .init();
}

/// The format of a line.
struct Lines {
    node: String,
}

impl<S, N> FormatEvent<S, N> for Lines
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(&self, _: &FmtContext<'_, S, N>, mut writer: Writer<'_>, event: &Event<'_>) -> fmt::Result {
        let mut message = Message::default();
        event.record(&mut message);
        let level = event.metadata().level();
        SystemTime.format_time(&mut writer)?;
        match writer.has_ansi_escapes() {
            true => write!(writer, " \x1b[{}m{level:>5}\x1b[0m ", colour(level))?,
            false => write!(writer, " {level:>5} ")?,
        }
        write_line(&mut writer, &self.node, &message.0)
    }
}

/// The message of an event; other fields are not used.
#[derive(Default)]
struct Message(String);

impl Visit for Message {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        if field.name() == "message" {
            // A String takes everything.
            let _ = write!(self.0, "{value:?}");
        }
    }
}

fn colour(level: &Level) -> u8 {
    match *level {
        Level::ERROR => 31,
        Level::WARN => 33,
        Level::INFO => 32,
        _ => 34,
    }
}

/// Writes `message` after the name of this node, which errors of this node have already.
fn write_line(to: &mut impl Write, node: &str, message: &str) -> fmt::Result {
    let message = message.strip_prefix(node).and_then(|rest| rest.strip_prefix(": ")).unwrap_or(message);
    let shown = s4::bounds::beginning(message, MAX_MESSAGE);
    write!(to, "{node}: ")?;
    for c in shown.chars() {
        match c.is_control() {
            true => write!(to, "{}", c.escape_default())?,
            false => to.write_char(c)?,
        }
    }
    to.write_str(if shown.len() < message.len() { " …\n" } else { "\n" })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(message: &str) -> String {
        let mut line = String::new();
        write_line(&mut line, "node 1 (a:1)", message).unwrap();
        line
    }

    #[test]
    fn a_line_names_the_node_once() {
        assert_eq!(line("going down"), "node 1 (a:1): going down\n");
        assert_eq!(line("node 1 (a:1): no space"), "node 1 (a:1): no space\n");
        assert_eq!(line("node 2 (b:1): down"), "node 1 (a:1): node 2 (b:1): down\n");
    }

    #[test]
    fn a_message_is_one_line_of_bounded_length_without_control_characters() {
        assert_eq!(line("a\nb\x1b[31m\r\u{9b}é"), "node 1 (a:1): a\\nb\\u{1b}[31m\\r\\u{9b}é\n");
        let long = line(&"é".repeat(MAX_MESSAGE));
        assert!(long.len() < MAX_MESSAGE + 100 && long.ends_with("é …\n"), "{}", long.len());
    }
}
