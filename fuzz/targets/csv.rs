//! Rows of CSV, as `s4 partition` reads them.

#![no_main]

use libfuzzer_sys::fuzz_target;
use s4::partition::quotes::{Quotes, unquote};

fuzz_target!(|input: (u8, &[u8])| {
    let (length, bytes) = input;
    let mut whole = Quotes::new(b',');
    let end = whole.scan(bytes, |_| {});
    assert!(end.is_none_or(|end| bytes[end - 1] == b'\n'));
    // In pieces, a row ends where it does as a whole.
    let length = usize::from(length).max(1);
    let mut pieces = Quotes::new(b',');
    let mut ends = bytes.chunks(length).enumerate();
    let found = ends.find_map(|(piece, bytes)| Some(pieces.scan(bytes, |_| {})? + piece * length));
    assert_eq!(found, end);
    assert_eq!(pieces.is_open(), whole.is_open());
    // What is quoted is one field, and comes back.
    let text = String::from_utf8_lossy(bytes);
    let row = format!("\"{}\"\n", text.replace('"', "\"\""));
    assert_eq!(Quotes::new(b',').scan(row.as_bytes(), |at| assert_eq!(at, row.len() - 1)), Some(row.len()));
    let mut value = Vec::new();
    unquote(row[..row.len() - 1].as_bytes(), &mut value);
    assert_eq!(value, text.as_bytes());
});
