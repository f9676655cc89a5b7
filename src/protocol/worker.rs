//! What a daemon and the worker of a copy say to each other. A daemon knows of a copy no more than this: a worker does it, which
//! counts objects and bytes.

use super::copy::{CopySpec, Credentials};
use super::job_report::Progress;
use crate::bounds;
use crate::key::Key;
use crate::placement::NodeId;
use serde::{Deserialize, Serialize};

/// Limit of bytes of a worker's task, so that a pipe has room for it.
pub const MAX_WORKER_TASK: usize = 32 << 10;

/// What a worker gets on its stdin, as one line. What follows is silence: its end tells the worker to end too.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WorkerTask {
    pub copy: CopySpec,
    pub node: NodeId,
    /// Objects at a time.
    pub jobs: Option<u16>,
    /// The lines of the cluster file.
    pub cluster: Vec<String>,
    /// The cluster's secret, if it has one.
    pub secret: Option<String>,
    pub credentials: Option<Credentials>,
}

/// A line that a worker writes.
#[derive(Debug, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum WorkerEvent {
    /// Its counts so far. A task is an object.
    Progress(Progress),
    /// An object that was not copied.
    Failure {
        /// Its key; `None` if it can have none, and then the reason names it.
        key: Option<Key>,
        #[serde(deserialize_with = "bounds::line")]
        reason: String,
    },
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_line_of_a_worker_is_an_event_within_bounds_or_an_error(
            tasks: u64, done: u64, key in "[a-z]{1,3}/\\PC{0,6}", reason in "\\PC{0,9}[\n\u{1b}]?", cut: u8,
        ) {
            let counts = format!(
                r#"{{"event":"progress","tasks":{tasks},"done":{done},"failed":0,"running":0,"outputs":0,"bytes":0,"bytes_done":0}}"#
            );
            let (named, said) = (serde_json::to_string(&key).unwrap(), serde_json::to_string(&reason).unwrap());
            let failure = format!(r#"{{"event":"failure","key":{named},"reason":{said}}}"#);
            match serde_json::from_str(&counts).unwrap() {
                WorkerEvent::Progress(progress) => {
                    let mut sum = Progress::default();
                    (0..1000).for_each(|_| sum += progress);
                    prop_assert!((0.0..=1.0).contains(&sum.share()));
                }
                other => prop_assert!(false, "{other:?}"),
            }
            let parsed = serde_json::from_str(&failure);
            prop_assert_eq!(parsed.is_ok(), Key::parse(&key).is_ok());
            if let Ok(WorkerEvent::Failure { reason, .. }) = parsed {
                prop_assert!(!reason.contains(char::is_control));
            }
            for line in [counts, failure] {
                let cut = (0..=usize::from(cut) % line.len()).rev().find(|&at| line.is_char_boundary(at)).unwrap_or(0);
                prop_assert!(serde_json::from_str::<WorkerEvent>(&line[..cut]).is_err());
            }
        }
    }

    #[test]
    fn a_task_is_read_as_it_was_written() {
        let json = r#"{"copy":{"from":"s3://b/","to":"s4://d/"},"node":0,"jobs":null,"cluster":["h:1"],"secret":null,"credentials":{"access_key_id":"a","secret_access_key":"b"}}"#;
        let task: WorkerTask = serde_json::from_str(json).unwrap();
        let again: WorkerTask = serde_json::from_str(&serde_json::to_string(&task).unwrap()).unwrap();
        assert_eq!((again.copy, again.credentials), (task.copy, task.credentials));
        assert!(serde_json::from_str::<WorkerTask>(&json.replace("jobs", "job")).is_err(), "an unknown field");
    }
}
