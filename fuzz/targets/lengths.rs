//! Sizes, times and checksums, as typed and as sent.

#![no_main]

use libfuzzer_sys::fuzz_target;
use s4::checksum::Checksum;
use s4::size::parse_size;
use s4::time::{LONGEST, parse_seconds};

fuzz_target!(|text: &str| {
    let _ = parse_size(text);
    if let Ok(time) = parse_seconds(text) {
        assert!(!time.is_zero() && time <= LONGEST);
    }
    if let Ok(checksum) = text.parse::<Checksum>() {
        assert_eq!(checksum.to_string().parse(), Ok(checksum));
    }
});
