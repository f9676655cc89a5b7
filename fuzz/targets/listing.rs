//! Lines of a listing.

#![no_main]

use libfuzzer_sys::fuzz_target;
use s4::protocol::Listed;

fuzz_target!(|line: &[u8]| {
    if let Ok(Listed::Entry(entry)) = Listed::parse(line) {
        let mut written = Vec::new();
        entry.line().write(&mut written);
        assert_eq!(Listed::parse(written.trim_ascii_end()), Ok(Listed::Entry(entry)));
    }
});
