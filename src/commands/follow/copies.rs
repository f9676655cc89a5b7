//! The end of a copy, in words.

use super::parts::{Part, total};
use crate::commands::format::{counted, seconds_text, size_text};
use s4::protocol::{CopySpec, Progress};
use std::time::Duration;

/// What is left of a copy that has not finished.
pub fn left(copy: &CopySpec) -> String {
    match copy.dry_run {
        true => "nothing is copied".to_owned(),
        false => "what was copied is kept; run the same command with --resume to go on".to_owned(),
    }
}

/// What each node would copy.
fn nodes(parts: &[Part]) -> String {
    let node = |(node, part): (usize, &Part)| {
        let Progress { done, bytes_done, .. } = part.progress;
        format!("\n    node {node}: {}, {}", counted(done, "object"), size_text(bytes_done))
    };
    parts.iter().enumerate().map(node).collect()
}

/// The summary of a copy that succeeded; of a dry run, what each node would copy.
pub fn success(copy: &CopySpec, parts: &[Part], elapsed: Duration) -> String {
    let CopySpec { from, to, .. } = copy;
    let sum = total(parts);
    let Progress { done, bytes_done, skipped, unverified, .. } = sum;
    let (objects, time) = (counted(done, "object"), seconds_text(elapsed.as_secs_f64()));
    if copy.dry_run {
        let bytes = size_text(bytes_done);
        return format!("copy: would copy {objects}, {bytes}, from {from} to {to}{}", nodes(parts));
    }
    let before = if skipped > 0 { format!(", {skipped} of them were there before") } else { String::new() };
    let unchecked = match unverified {
        0 => String::new(),
        some => format!(", {some} not verified by the source, which has no checksum of them"),
    };
    format!("copy: {objects} done, {}{before}{unchecked}, in {to}, {time}", size_text(bytes_done))
}
