//! What a node reports of a job, and the records of jobs.

#![no_main]

use libfuzzer_sys::fuzz_target;
use s4::protocol::{Event, JobRecord, Progress};

fuzz_target!(|bytes: &[u8]| {
    if let Ok(event) = serde_json::from_slice::<Event>(bytes) {
        if let Event::Progress(progress) = event {
            let mut sum = Progress::default();
            (0..1000).for_each(|_| sum += progress);
            assert!((0.0..=1.0).contains(&sum.share()));
        }
    }
    let _ = serde_json::from_slice::<JobRecord>(bytes);
});
