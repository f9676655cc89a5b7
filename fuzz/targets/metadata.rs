//! The metadata of a key: JSON from a peer or a disk, and headers.

#![no_main]

use libfuzzer_sys::fuzz_target;
use s4::protocol::Metadata;

fuzz_target!(|bytes: &[u8]| {
    if let Ok(metadata) = Metadata::decode(bytes) {
        assert_eq!(Metadata::decode(metadata.encode().as_bytes()).as_ref(), Ok(&metadata));
        let mut headers = hyper::HeaderMap::new();
        metadata.add_to(&mut headers);
        assert_eq!(Metadata::from_headers(&headers), Ok(metadata));
    }
});
