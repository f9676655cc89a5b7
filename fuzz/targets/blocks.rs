//! The table of the sums of a key's parts.

#![no_main]

use libfuzzer_sys::fuzz_target;
use s4::blocks::Table;
use s4::checksum::Checksum;

fuzz_target!(|input: (u64, u64, &[u8])| {
    let (xxh3, len, bytes) = input;
    let checksum = Checksum { xxh3, len };
    if let Some(table) = Table::decode(bytes, checksum) {
        assert_eq!(Table::decode(&table.encode(checksum), checksum), Some(table));
    }
});
