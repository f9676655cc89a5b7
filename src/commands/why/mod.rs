//! `s4 why`: prints what made a key; with `-r`, back to the keys that no map made.

mod json;
mod since;
mod text;

use crate::cli::WhyArgs;
use crate::commands::console::print_message;
use s4::client::Client;
use s4::error::{Error, ErrorKind, ExitStatus, Result};
use s4::key::Key;
use s4::protocol::Input;
use since::Since;
use std::collections::HashSet;
use std::io::{BufWriter, Write};
use tokio::task::JoinSet;

/// Inputs of a key that are shown without `--all`.
const SHOWN: usize = 20;
/// Limit of simultaneous requests.
const AT_ONCE: usize = 16;

pub async fn run(client: &Client, args: &WhyArgs) -> Result<ExitStatus> {
    let key = Key::parse_url(&args.key)?;
    let walk = Walk { client, most: if args.all { usize::MAX } else { SHOWN }, json: args.json };
    match (args.recursive, args.json) {
        (true, _) => walk.tree(key).await,
        (false, _) => walk.one(&key).await,
    }
}

struct Walk<'a> {
    client: &'a Client,
    most: usize,
    json: bool,
}

impl Walk<'_> {
    /// Prints one key, with its inputs and their current state.
    async fn one(&self, key: &Key) -> Result<ExitStatus> {
        let found = self.client.provenance(key, self.most).await?;
        let since = self.since(found.task.as_ref().map_or(&[], |task| &task.inputs)).await?;
        let node = self.client.cluster().node_of(key);
        self.print(&match self.json {
            true => json::line(key, node, &found, &since),
            false => text::whole(key, &self.client.cluster().name(node).to_string(), &found, &since),
        })?;
        Ok(status(since.iter()))
    }

    /// The current state of each of `inputs`, in their order.
    async fn since(&self, inputs: &[Input]) -> Result<Vec<Since>> {
        let (mut asked, mut answers) = (JoinSet::new(), Vec::new());
        let mut left = inputs.iter().enumerate();
        loop {
            if asked.len() < AT_ONCE
                && let Some((at, input)) = left.next()
            {
                let (client, key, read) = (self.client.clone(), input.key.clone(), input.checksum);
                asked.spawn(async move { (at, Since::of(read, &client.provenance(&key, 0).await)) });
            } else if let Some(answer) = asked.join_next().await {
                answers.push(answer.map_err(|e| Error::new(ErrorKind::Io, e.to_string()))?);
            } else {
                break;
            }
        }
        answers.sort_unstable_by_key(|(at, _)| *at);
        Ok(answers.into_iter().map(|(_, since)| since).collect())
    }

    /// Prints the tree of keys from which it was made. Each key appears once, before its inputs. Changed inputs are not
    /// followed.
    async fn tree(&self, root: Key) -> Result<ExitStatus> {
        let mut seen = HashSet::new();
        let mut left = vec![(root, None, 0)];
        let mut unknown = false;
        while let Some((key, read, depth)) = left.pop() {
            // A key that has changed since one task read it, and not since another did, is told of twice.
            if !seen.insert((key.clone(), read)) {
                self.print_text(&text::seen(&key, depth))?;
                continue;
            }
            let found = self.client.provenance(&key, self.most).await;
            let since = read.map_or(Since::Same, |read| Since::of(read, &found));
            unknown |= matches!(since, Since::Unknown(_));
            let found = match found {
                Err(error) if depth == 0 => return Err(error),
                Ok(found) if since == Since::Same => found,
                _ => {
                    self.print_text(&text::lost(&key, depth, &since))?;
                    continue;
                }
            };
            if self.json {
                self.print(&json::line(&key, self.client.cluster().node_of(&key), &found, &[]))?;
            }
            self.print_text(&text::branch(&key, depth, &found))?;
            let inputs = found.task.map(|task| task.inputs).unwrap_or_default();
            left.extend(inputs.into_iter().rev().map(|input| (input.key, Some(input.checksum), depth + 1)));
        }
        if unknown {
            print_message("some nodes did not answer, so that the tree is not whole");
        }
        Ok(if unknown { ExitStatus::Failed } else { ExitStatus::Done })
    }

    fn print_text(&self, text: &str) -> Result<()> {
        if self.json { Ok(()) } else { self.print(text) }
    }

    fn print(&self, text: &str) -> Result<()> {
        let mut out = BufWriter::new(std::io::stdout().lock());
        let written = out.write_all(text.as_bytes()).and_then(|()| out.flush());
        written.map_err(|e| Error::io("stdout", &e))
    }
}

fn status<'s>(mut since: impl Iterator<Item = &'s Since>) -> ExitStatus {
    match since.any(|since| matches!(since, Since::Unknown(_))) {
        true => ExitStatus::Failed,
        false => ExitStatus::Done,
    }
}
