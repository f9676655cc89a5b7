//! How HTTP/1.1 hands a connection over, by its `Upgrade`.

use hyper::header::{CONNECTION, HeaderMap, HeaderValue, UPGRADE};

/// As the `Upgrade` header has it.
const PROTOCOL: &str = "s4-frames";

/// The headers that ask for a connection of frames, and that grant one.
pub fn mark(headers: &mut HeaderMap) {
    headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
    headers.insert(UPGRADE, HeaderValue::from_static(PROTOCOL));
}

/// True if the sender asks for one.
pub fn is_wanted(headers: &HeaderMap) -> bool {
    headers.get(UPGRADE).is_some_and(|protocol| protocol.as_bytes().eq_ignore_ascii_case(PROTOCOL.as_bytes()))
}
