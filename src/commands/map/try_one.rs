//! `--try`: runs the command on one key, and estimates the time of the whole map.

use crate::commands::console::{print_message, unbuffered};
use crate::commands::format::{counted, seconds_text, size_text};
use crate::commands::hints::{Tail, print_hint};
use s4::client::Client;
use s4::error::{Error, ErrorKind, ExitStatus, Result};
use s4::key::{Dir, Key, Prefix};
use s4::protocol::{Entry, JobSpec, MapKind, Plan, Runner, Stat};
use s4::wire::CommandEnd;
use std::time::Instant;

/// For smaller inputs, starting a command takes longer than reading its input.
const LARGE: u64 = 1 << 20;

pub async fn run(client: &Client, spec: &JobSpec, key: Option<&str>) -> Result<ExitStatus> {
    let key = match key {
        Some(url) => given(spec, url)?,
        None => first_key(client, spec).await?,
    };
    let name = client.cluster().name(client.cluster().node_of(&key)).to_string();
    let (stdout, stderr) = (unbuffered(std::io::stdout())?, Tail::of_stderr()?);
    let began = Instant::now();
    let end = client.try_job(spec, &key, stdout, stderr.clone()).await?;
    let seconds = began.elapsed().as_secs_f64();
    let (how, status) = match end {
        CommandEnd::Exit(code) => (format!("exit status {code}"), ExitStatus::Command(code as u8)),
        CommandEnd::Signal(signal) => (format!("signal {signal}"), ExitStatus::Command(128 | signal as u8)),
        CommandEnd::Error(error) => return Err(error.by(name)),
    };
    print_message(format_args!("{key} on {name}: {how}, {}", seconds_text(seconds)));
    if matches!(end, CommandEnd::Exit(code) if spec.ok_exit.contains(&code)) {
        // The command has run; a missing estimate is no error.
        print_message(
            estimate(client, spec, &key, seconds).await.unwrap_or_else(|error| format!("no estimate: {error}")),
        );
    } else {
        print_hint(status.code().into(), &stderr, &spec.cmd, &spec.files, Runner::Map);
    }
    Ok(status)
}

fn given(spec: &JobSpec, url: &str) -> Result<Key> {
    let key = Key::parse_url(url)?;
    match spec.indir.matches(&key) {
        true => Ok(key),
        false => Err(Error::usage(format!("--try {key}: it is not below {}", spec.indir))),
    }
}

async fn first_key(client: &Client, spec: &JobSpec) -> Result<Key> {
    let base = spec.indir.base();
    let slash = if base.is_empty() { "" } else { "/" };
    let mut listing = client.list(&Prefix::parse_url(&format!("s4://{base}{slash}"))?, true).await?;
    while let Some(entry) = listing.next().await? {
        if let Entry::Key { path, .. } = entry {
            let key = Key::parse(&path)?;
            if spec.indir.matches(&key) {
                return Ok(key);
            }
        }
    }
    Err(Error::new(ErrorKind::NotFound, format!("{}: no keys in it", spec.indir)))
}

async fn estimate(client: &Client, spec: &JobSpec, key: &Key, seconds: f64) -> Result<String> {
    let plans = client.plan_everywhere(spec).await?;
    let size = match client.look_up(&Dir::try_from(key.as_str().to_owned())?).await? {
        // A merge reads more than its first key.
        Stat::Key(found) if spec.kind != MapKind::MapFromN => Some(found.checksum.len),
        _ => None,
    };
    let limit = spec.jobs.map_or(u64::MAX, u64::from);
    let Plan { tasks, bytes, .. } = plans.iter().sum();
    let time = seconds_text(whole_time(&plans, limit, seconds, size));
    let at_once = plans.iter().map(|plan| slots(plan, limit)).max().unwrap_or(1);
    Ok(format!(
        "about {time} for all: {}, {} on {}, {at_once} at a time on each",
        counted(tasks, "task"),
        size_text(bytes),
        counted(plans.len() as u64, "node")
    ))
}

/// How many tasks of a job with this limit a node runs at a time.
fn slots(plan: &Plan, limit: u64) -> u64 {
    plan.slots.min(limit).max(1)
}

/// Seconds until the last node is done, if a task with an input of `size` bytes takes `seconds`, and each node runs at
/// most `limit` tasks at a time.
fn whole_time(plans: &[Plan], limit: u64, seconds: f64, size: Option<u64>) -> f64 {
    let node_time = |plan: &Plan| {
        let rounds = plan.tasks.div_ceil(slots(plan, limit)) as f64;
        match size {
            Some(size) if size >= LARGE && plan.tasks > 0 => {
                rounds * seconds * (plan.bytes as f64 / plan.tasks as f64 / size as f64)
            }
            _ => rounds * seconds,
        }
    };
    plans.iter().map(node_time).fold(0.0, f64::max)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_estimate_is_that_of_the_busiest_node() {
        let plan = |tasks, bytes| Plan { tasks, keys: tasks, bytes, slots: 4, ..Plan::default() };
        assert_eq!(whole_time(&[plan(1, 10), plan(9, 90)], u64::MAX, 2.0, Some(10)), 6.0);
        assert_eq!(whole_time(&[plan(1, 10), plan(9, 90)], 1, 2.0, Some(10)), 18.0);
        assert_eq!(whole_time(&[plan(8, 16 * LARGE)], u64::MAX, 2.0, Some(LARGE)), 8.0, "twice as large on average");
        assert_eq!(whole_time(&[plan(0, 0), plan(0, 0)], u64::MAX, 2.0, None), 0.0);
    }
}
