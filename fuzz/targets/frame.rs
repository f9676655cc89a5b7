//! Frames of a connection, and the messages in them.

#![no_main]

use libfuzzer_sys::fuzz_target;
use s4::error::Error;
use s4::wire::frame::{self, Kind};
use s4::wire::{Request, Response};

fuzz_target!(|bytes: &[u8]| {
    let mut rest = bytes;
    while let Ok(Some((header, payload))) = frame::parse(rest) {
        rest = &rest[frame::HEADER + payload.len()..];
        let mut again = Vec::new();
        if header.kind != Kind::Data {
            frame::encode(header.kind, payload, &mut again);
            assert_eq!(frame::parse(&again), Ok(Some((header, payload))));
        }
        said(payload);
    }
    // What is in a frame, without a sum to guess.
    said(bytes);
});

fn said(payload: &[u8]) {
    if let Ok(request) = serde_json::from_slice::<Request>(payload) {
        let json = serde_json::to_vec(&request).expect("a request is JSON");
        assert_eq!(serde_json::from_slice::<Request>(&json).expect("as it was written"), request);
    }
    if let Ok(response) = serde_json::from_slice::<Response>(payload) {
        let json = serde_json::to_vec(&response).expect("a response is JSON");
        assert_eq!(serde_json::from_slice::<Response>(&json).expect("as it was written"), response);
    }
    if let Ok(error) = serde_json::from_slice::<Error>(payload) {
        assert!(!error.to_string().contains(char::is_control));
    }
}
