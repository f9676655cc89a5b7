//! The inputs of all nodes, for a map with `--to-name`, whose outputs may be on another node than their inputs. Each
//! node examines the outputs that it will store. So two inputs of one output are found before anything runs, on
//! whatever nodes they are.

use super::shared::Shared;
use super::tasks::{damaged, output_of, still_wanted};
use crate::store::Sorter;
use s4::client::Client;
use s4::error::{Error, ErrorKind, Result};
use s4::key::{Key, Prefix};
use s4::protocol::{Entry, HEARTBEAT, JobSpec};
use tokio::runtime::Handle;
use tokio::sync::mpsc;

/// Limit of received inputs that wait to be processed.
const QUEUE: usize = 1024;

/// Visits the outputs of all nodes' tasks that belong on this node, in order. Blocks. Errors: two inputs have the same
/// output.
pub fn each_output_here(
    shared: &Shared,
    spec: &JobSpec,
    alive: &mut dyn FnMut() -> bool,
    visit: &mut dyn FnMut(&Key) -> Result<()>,
) -> Result<()> {
    let mut outputs = Sorter::new(shared.store.root());
    each_input_anywhere(shared, spec, alive, &mut |input| {
        let output = output_of(spec, &input)?;
        match shared.client.cluster().node_of(&output) == shared.node {
            true => outputs.push(format!("{} {}", output.as_str(), input.as_str()).into_bytes()),
            false => Ok(()),
        }
    })?;
    let mut last: Option<(String, String)> = None;
    for record in outputs.finish()? {
        let record = String::from_utf8(record?).map_err(|_| damaged())?;
        let (output, input) = record.split_once(' ').ok_or_else(damaged)?;
        if let Some((_, other)) = last.take_if(|(last, _)| last == output) {
            let message =
                format!("s4://{other} and s4://{input} would both become s4://{output}; choose another --to-name");
            return Err(Error::new(ErrorKind::AlreadyExists, message));
        }
        visit(&Key::parse(output)?)?;
        last = Some((output.to_owned(), input.to_owned()));
    }
    Ok(())
}

fn each_input_anywhere(
    shared: &Shared,
    spec: &JobSpec,
    alive: &mut dyn FnMut() -> bool,
    take: &mut dyn FnMut(Key) -> Result<()>,
) -> Result<()> {
    let handle = Handle::current();
    let (sender, mut inputs) = mpsc::channel(QUEUE);
    let (client, prefix) = (shared.client.clone(), base(spec)?);
    handle.spawn(async move {
        if let Err(error) = list(&client, &prefix, &sender).await {
            // This fails if the planning has ended.
            let _ = sender.send(Err(error)).await;
        }
    });
    loop {
        match handle.block_on(async { tokio::time::timeout(HEARTBEAT, inputs.recv()).await }) {
            Ok(Some(input)) => {
                let input = input?;
                if spec.indir.matches(&input) {
                    take(input)?;
                }
            }
            Ok(None) => return Ok(()),
            Err(_) => {}
        }
        still_wanted(spec, alive)?;
    }
}

/// The prefix of all keys of INDIR.
fn base(spec: &JobSpec) -> Result<Prefix> {
    match spec.indir.base() {
        "" => Prefix::parse(""),
        base => Prefix::parse(&format!("{base}/")),
    }
}

async fn list(client: &Client, prefix: &Prefix, inputs: &mpsc::Sender<Result<Key>>) -> Result<()> {
    let mut listing = client.list(prefix, true).await?;
    while let Some(entry) = listing.next().await? {
        if let Entry::Key { path, .. } = entry
            && inputs.send(Ok(Key::parse(&path)?)).await.is_err()
        {
            return Ok(());
        }
    }
    Ok(())
}
