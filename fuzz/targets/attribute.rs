//! The record in a key's extended attribute.

#![no_main]

use libfuzzer_sys::fuzz_target;
use s4::attribute::KeyRecord;

fuzz_target!(|bytes: &[u8]| {
    if let Some(record) = KeyRecord::decode(bytes) {
        assert_eq!(record.encode(), bytes);
    }
});
