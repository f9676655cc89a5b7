//! `s4 top`: a live view of the cluster in a terminal, or one snapshot as plain text.

mod choice;
mod details;
mod draw;
mod plain;
mod requests;
mod rows;

use crate::cli::TopArgs;
use crate::commands::console::stdout_width;
use choice::{Ask, Choice, Reaction};
use ratatui::DefaultTerminal;
use ratatui::crossterm::event::{self, Event, KeyEventKind};
use requests::Answer;
use s4::client::Client;
use s4::client::cluster_view::ClusterView;
use s4::error::{Error, ExitStatus, Result};
use std::io::{IsTerminal, Write};
use std::sync::mpsc;
use std::time::Duration;

/// The interval between two requests to the cluster.
const EVERY: Duration = Duration::from_secs(1);
/// Only the last sample is shown.
const SAMPLES: usize = 1;

pub async fn run(client: &Client, args: &TopArgs) -> Result<ExitStatus> {
    let client = client.for_watching();
    if args.once || !std::io::stdout().is_terminal() || !std::io::stdin().is_terminal() {
        let text = plain::text(&client.cluster_view(SAMPLES).await, stdout_width());
        std::io::stdout().write_all(text.as_bytes()).map_err(|e| Error::io("stdout", &e))?;
        return Ok(ExitStatus::Done);
    }
    let (news, received) = mpsc::channel();
    let (asks, mut asked) = tokio::sync::mpsc::channel(1);
    let keys = news.clone();
    std::thread::spawn(move || read_keys(&keys));
    // The screen's thread ends when the user quits; then both channels are closed.
    let screen = std::thread::spawn(move || show(&received, &asks));
    let mut turns = tokio::time::interval(EVERY);
    loop {
        let next = tokio::select! {
            ask = asked.recv() => match ask {
                Some(ask) => News::Answer(requests::answer(&client, ask).await),
                None => break,
            },
            _ = turns.tick() => News::View(Box::new(client.cluster_view(SAMPLES).await)),
        };
        if news.send(next).is_err() {
            break;
        }
    }
    match screen.join() {
        Ok(shown) => shown.map(|()| ExitStatus::Done).map_err(|e| Error::io("the terminal", &e)),
        Err(panic) => std::panic::resume_unwind(panic),
    }
}

/// The events to which the screen reacts.
enum News {
    View(Box<ClusterView>),
    Input(Event),
    Answer(Answer),
}

/// Forwards the terminal's events until the channel is closed.
fn read_keys(news: &mpsc::Sender<News>) {
    while let Ok(event) = event::read() {
        if news.send(News::Input(event)).is_err() {
            break;
        }
    }
}

/// Draws until the user quits. Then restores the terminal, also after a panic.
fn show(news: &mpsc::Receiver<News>, asks: &tokio::sync::mpsc::Sender<Ask>) -> std::io::Result<()> {
    let mut terminal = ratatui::try_init()?;
    let shown = show_on(&mut terminal, news, asks);
    ratatui::try_restore()?;
    shown
}

fn show_on(
    terminal: &mut DefaultTerminal,
    news: &mpsc::Receiver<News>,
    asks: &tokio::sync::mpsc::Sender<Ask>,
) -> std::io::Result<()> {
    let mut choice = Choice::default();
    let mut latest: Option<Box<ClusterView>> = None;
    loop {
        terminal.draw(|frame| draw::screen(frame, latest.as_deref(), &mut choice))?;
        match news.recv() {
            Ok(News::View(view)) => latest = Some(view),
            Ok(News::Answer(Answer::Logs(lines))) => choice.logs = lines,
            Ok(News::Answer(Answer::Message(message))) => choice.message = message,
            Ok(News::Input(Event::Key(key))) if key.kind != KeyEventKind::Release => {
                match choice.take(key, latest.as_deref()) {
                    Reaction::Stay => {}
                    Reaction::Quit => return Ok(()),
                    Reaction::Ask(ask) => {
                        if asks.try_send(ask).is_err() {
                            choice.message = "the last request is not answered yet".to_owned();
                        }
                    }
                }
            }
            // The terminal was resized: draw again.
            Ok(News::Input(_)) => {}
            Err(_) => return Ok(()),
        }
    }
}
