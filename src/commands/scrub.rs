//! `s4 scrub`: every node compares its files with their checksums. Findings go to stdout as they come, progress and
//! the summary to stderr.

use super::console::print_message;
use super::display::{Display, is_terminal};
use super::format::{counted, cut, seconds_text, size_text};
use crate::cli::ScrubArgs;
use s4::client::Client;
use s4::error::{Error, ExitStatus, Result};
use s4::placement::NodeId;
use s4::protocol::{Fault, Finding, ScrubLine, Scrubbed};
use std::collections::BTreeMap;
use std::io::Write;
use std::time::Instant;
use tokio::sync::mpsc;

/// Lines of nodes that wait for the output.
const WAITING: usize = 64;

pub async fn run(client: &Client, args: ScrubArgs) -> Result<ExitStatus> {
    let nodes = chosen(client, args.nodes)?;
    let (sender, mut lines) = mpsc::channel(WAITING);
    for &node in &nodes {
        let (client, sender) = (client.clone(), sender.clone());
        tokio::spawn(async move {
            if let Err(error) = scrub_node(&client, node, (args.rate, args.resume, args.remove_strays), &sender).await {
                // This fails only if the output has failed.
                let _ = sender.send((node, Err(error))).await;
            }
        });
    }
    drop(sender);
    let mut view = View::new(nodes.len());
    while let Some((node, line)) = lines.recv().await {
        match line {
            Ok(line) => view.take(client, node, line)?,
            Err(error) => view.failed(&error),
        }
    }
    view.wipe();
    print_message(view.summary());
    Ok(view.status())
}

/// The nodes to scrub, in order and once each.
fn chosen(client: &Client, mut nodes: Vec<NodeId>) -> Result<Vec<NodeId>> {
    let all = client.cluster().ids();
    if let Some(node) = nodes.iter().find(|node| !all.contains(node)) {
        return Err(Error::usage(format!("--node {node}: the nodes are 0 to {}", all.end - 1)));
    }
    nodes.sort_unstable();
    nodes.dedup();
    Ok(if nodes.is_empty() { all.collect() } else { nodes })
}

/// Passes on what a node reports, until its end.
async fn scrub_node(
    client: &Client,
    node: NodeId,
    (rate, resume, remove_strays): (u64, bool, bool),
    sender: &mpsc::Sender<(NodeId, Result<ScrubLine>)>,
) -> Result<()> {
    let mut stream = client.scrub(node, rate, resume, remove_strays).await?;
    loop {
        let line = stream.next().await?;
        let is_end = matches!(line, ScrubLine::End(_));
        if sender.send((node, Ok(line))).await.is_err() || is_end {
            return Ok(());
        }
    }
}

/// What the nodes have reported so far.
struct View {
    nodes: usize,
    scrubbed: BTreeMap<NodeId, Scrubbed>,
    /// Findings of this run, by fault.
    faults: BTreeMap<&'static str, u64>,
    ended: usize,
    failed: usize,
    began: Instant,
    display: Option<Display>,
}

impl View {
    fn new(nodes: usize) -> Self {
        let display = is_terminal().then(Display::default);
        let (scrubbed, faults) = (BTreeMap::new(), BTreeMap::new());
        Self { nodes, scrubbed, faults, ended: 0, failed: 0, began: Instant::now(), display }
    }

    /// Errors: stdout is closed.
    fn take(&mut self, client: &Client, node: NodeId, line: ScrubLine) -> Result<()> {
        match line {
            ScrubLine::Finding(finding) => return self.found(client, node, &finding),
            ScrubLine::Progress(scrubbed) => _ = self.scrubbed.insert(node, scrubbed),
            ScrubLine::End(scrubbed) => {
                self.scrubbed.insert(node, scrubbed);
                self.ended += 1;
            }
            // The stream returns it as an error.
            ScrubLine::Error(_) => {}
        }
        let line = self.progress();
        if let Some(display) = &mut self.display {
            display.draw(|width, _| vec![cut(&line, width)]);
        }
        Ok(())
    }

    fn found(&mut self, client: &Client, node: NodeId, finding: &Finding) -> Result<()> {
        self.wipe();
        *self.faults.entry(finding.fault.name()).or_default() += 1;
        let name = client.cluster().name(node);
        let line = format!("{name}: s4://{}: {}\n", finding.path, finding.message);
        let mut out = std::io::stdout();
        out.write_all(line.as_bytes()).and_then(|()| out.flush()).map_err(|e| Error::io("stdout", &e))
    }

    fn failed(&mut self, error: &Error) {
        self.wipe();
        self.failed += 1;
        print_message(error);
    }

    fn wipe(&mut self) {
        self.display.iter_mut().for_each(Display::wipe);
    }

    fn total(&self) -> Scrubbed {
        self.scrubbed.values().fold(Scrubbed::default(), |sum, node| Scrubbed {
            keys: sum.keys + node.keys,
            bytes: sum.bytes + node.bytes,
            findings: sum.findings + node.findings,
        })
    }

    fn progress(&self) -> String {
        let Scrubbed { keys, bytes, findings } = self.total();
        let (ended, nodes) = (self.ended, counted(self.nodes as u64, "node"));
        format!("scrub: {}, {}, {findings} found; {ended} of {nodes} done", counted(keys, "key"), size_text(bytes))
    }

    fn summary(&self) -> String {
        let Scrubbed { keys, bytes, findings } = self.total();
        let seconds = seconds_text(self.began.elapsed().as_secs_f64());
        let mut text = format!("{} checked, {} in {seconds}", counted(keys, "key"), size_text(bytes));
        let faults = Fault::ALL.into_iter().filter_map(|fault| self.faults.get_key_value(fault.name()));
        let faults: Vec<String> = faults.map(|(name, count)| format!("{count} {name}")).collect();
        let now: u64 = self.faults.values().sum();
        match (faults.is_empty(), findings.saturating_sub(now)) {
            (true, 0) => text += ": no damage found",
            (true, before) => text += &format!(": none found, {before} before the interruption"),
            (false, 0) => text += &format!(": {}", faults.join(", ")),
            (false, before) => text += &format!(": {}, {before} more before the interruption", faults.join(", ")),
        }
        if self.failed > 0 {
            let (failed, nodes) = (self.failed, counted(self.nodes as u64, "node"));
            text += &format!("; {failed} of {nodes} not checked to the end, 's4 scrub --resume' goes on there");
        }
        text
    }

    fn status(&self) -> ExitStatus {
        match self.failed == 0 && self.faults.is_empty() && self.total().findings == 0 {
            true => ExitStatus::Done,
            false => ExitStatus::Failed,
        }
    }
}
