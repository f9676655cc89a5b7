//! The chunks of an aws-chunked body. The door is a program and no library: its parser is included as a file.

#![no_main]

use bytes::Bytes;
use frames::Frames;
use libfuzzer_sys::fuzz_target;
use std::collections::VecDeque;

#[allow(dead_code)]
#[path = "../../s3/serve/frames.rs"]
mod frames;

/// What comes out if the body comes in pieces of `n` bytes: `None` if it is refused.
fn seen(is_signed: bool, body: &[u8], n: usize) -> Option<(Vec<u8>, bool)> {
    let (mut frames, mut out) = (Frames::new(is_signed), VecDeque::new());
    for piece in body.chunks(n) {
        frames.push(Bytes::copy_from_slice(piece), &mut out).ok()?;
    }
    Some((out.into_iter().flatten().collect(), frames.is_complete()))
}

fuzz_target!(|input: (bool, u8, &[u8])| {
    let (is_signed, n, body) = input;
    let whole = seen(is_signed, body, body.len().max(1));
    let pieces = seen(is_signed, body, usize::from(n).max(1));
    assert_eq!(whole.is_some(), pieces.is_some());
    let Some(((whole, is_complete), (pieces, _))) = whole.zip(pieces) else { return };
    if is_signed {
        assert!(whole == body && pieces == body);
        return;
    }
    // What comes out is well-formed, and comes out of itself with no other data.
    let again = seen(false, &pieces, pieces.len().max(1)).expect("it is well-formed");
    assert_eq!((again.0.len() <= pieces.len(), again.1), (true, is_complete));
});
