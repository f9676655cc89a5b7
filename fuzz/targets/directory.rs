//! The record in a directory's extended attribute.

#![no_main]

use libfuzzer_sys::fuzz_target;
use s4::directory::DirRecord;

fuzz_target!(|bytes: &[u8]| {
    if let Some(record) = DirRecord::decode(bytes) {
        assert_eq!(DirRecord::decode(&record.encode()), Some(record));
    }
});
