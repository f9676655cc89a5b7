//! The job that a client submits.

#![no_main]

use libfuzzer_sys::fuzz_target;
use s4::protocol::JobSpec;

fuzz_target!(|bytes: &[u8]| {
    let Ok(spec) = serde_json::from_slice::<JobSpec>(bytes) else { return };
    let _ = spec.bytes();
    if spec.check().is_ok() {
        assert!(spec.files.iter().all(|file| !file.name.contains('/')));
        assert!(!spec.indir.overlaps(&spec.outdir));
        let again: JobSpec = serde_json::from_str(&serde_json::to_string(&spec).unwrap()).expect("it reads as written");
        assert_eq!(again.recipe(), spec.recipe());
    }
});
