//! The task of a copy's worker, and the lines that it writes.

#![no_main]

use libfuzzer_sys::fuzz_target;
use s4::protocol::{Progress, WorkerEvent, WorkerTask};

fuzz_target!(|bytes: &[u8]| {
    match serde_json::from_slice::<WorkerEvent>(bytes) {
        Ok(WorkerEvent::Progress(progress)) => {
            let mut sum = Progress::default();
            (0..1000).for_each(|_| sum += progress);
            assert!((0.0..=1.0).contains(&sum.share()));
        }
        Ok(WorkerEvent::Failure { reason, .. }) => assert!(!reason.contains(char::is_control)),
        Err(_) => {}
    }
    if let Ok(task) = serde_json::from_slice::<WorkerTask>(bytes) {
        let again = serde_json::from_slice::<WorkerTask>(&serde_json::to_vec(&task).expect("a task is JSON"));
        assert_eq!(again.expect("as it was written").copy, task.copy);
        let _ = task.copy.check();
    }
});
