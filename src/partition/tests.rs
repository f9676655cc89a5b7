//! Compares a partition with a simple implementation that has every record in memory.

use super::*;
use crate::checksum;
use proptest::prelude::*;
use std::collections::BTreeMap;

/// Input in pieces of a few bytes, as from a pipe.
struct Pieces<'a> {
    rest: &'a [u8],
    most: usize,
}

impl Read for Pieces<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let length = self.rest.len().min(self.most).min(buffer.len());
        let (now, rest) = self.rest.split_at(length);
        buffer[..length].copy_from_slice(now);
        self.rest = rest;
        Ok(length)
    }
}

fn options(dir: &std::path::Path, format: Format, key: &str, buckets: u64) -> Options {
    let key = if key.is_empty() { KeyFields::all() } else { KeyFields::parse(key).expect("a list") };
    let names = Names::parse("{}").expect("a template");
    Options { format, key, buckets: Buckets::Hash(buckets), names, dir: dir.to_owned() }
}

/// The files by name, as in the listing.
fn split(format: Format, key: &str, buckets: u64, input: &[u8], piece: usize) -> Result<BTreeMap<String, Vec<u8>>> {
    let dir = tempfile::tempdir().expect("a directory");
    let mut listing = Vec::new();
    partition(options(dir.path(), format, key, buckets), Pieces { rest: input, most: piece }, &mut listing)?;
    let listing = String::from_utf8(listing).expect("names");
    assert_eq!(std::fs::read_dir(dir.path()).expect("a directory").count(), listing.lines().count());
    let read = |name: &str| std::fs::read(dir.path().join(name)).expect("the file is there");
    Ok(listing.lines().map(|name| (name.to_owned(), read(name))).collect())
}

const TABS: Format = Format { delimiter: b'\t', csv: false, header: false };
const CSV: Format = Format { delimiter: b',', csv: true, header: false };

proptest! {
    #[test]
    fn each_line_is_in_the_file_of_its_fields_hash(
        input in proptest::collection::vec(prop::sample::select(&b"ab\t\n\0\xff"[..]), 0..200), buckets in 1_u64..9, piece in 1_usize..50
    ) {
        let files = split(TABS, "2", buckets, &input, piece).expect("it succeeds");
        let mut wanted = BTreeMap::<String, Vec<u8>>::new();
        let text = input.strip_suffix(b"\n").unwrap_or(&input);
        for line in text.split(|&byte| byte == b'\n').filter(|_| !input.is_empty()) {
            let field = line.split(|&byte| byte == b'\t').nth(1).unwrap_or_default();
            let file = wanted.entry((checksum::hash(field) % buckets).to_string()).or_default();
            file.extend_from_slice(line);
            file.push(b'\n');
        }
        prop_assert_eq!(files, wanted);
    }

    #[test]
    fn rows_of_csv_stay_whole_and_go_by_their_value(
        rows in proptest::collection::vec(("[a-c\",\n]{0,5}", "[a-c\",\n]{0,5}"), 0..20), buckets in 1_u64..5, piece in 1_usize..50
    ) {
        let quoted = |text: &str| format!("\"{}\"", text.replace('"', "\"\""));
        let row = |(first, second): &(String, String)| format!("{},{}\n", quoted(first), quoted(second));
        let input: String = rows.iter().map(row).collect();
        let files = split(CSV, "2", buckets, input.as_bytes(), piece).expect("it succeeds");
        let mut wanted = BTreeMap::<String, Vec<u8>>::new();
        for pair in &rows {
            let file = wanted.entry((checksum::hash(pair.1.as_bytes()) % buckets).to_string()).or_default();
            file.extend_from_slice(row(pair).as_bytes());
        }
        prop_assert_eq!(files, wanted);
    }
}

#[test]
fn a_long_line_is_passed_on_in_pieces_once_its_key_is_known() {
    let long = vec![b'x'; window::LONGEST + 12_345];
    let input = [b"k\t", &*long, b"\nk\ty"].concat();
    let files = split(TABS, "1", 7, &input, usize::MAX).expect("it succeeds");
    assert_eq!(files.len(), 1);
    assert!(files.values().next().is_some_and(|file| file[..file.len() - 1] == input), "the lines are what they were");
    let input = [b"\"k,\n\"\"\",\"", &*long, b"\n,\"\nk,y\n"].concat();
    let files = split(CSV, "1", 100, &input, usize::MAX).expect("it succeeds");
    assert_eq!(files.len(), 2);
    assert_eq!(files.values().map(Vec::len).max(), Some(input.len() - 4));
}

#[test]
fn a_key_that_does_not_end_is_refused_with_its_line() {
    let input = [b"a\tb\n", &*vec![b'x'; window::LONGEST + 1]].concat();
    let error = split(TABS, "2", 3, &input, usize::MAX).expect_err("the key is too long").to_string();
    assert_eq!(error, "stdin: line 2: its key does not end within 64 MiB");
    for open in ["a,\"b\n", "a,\"b"] {
        let input = format!("a,b\n{open}");
        let error = split(CSV, "1", 3, input.as_bytes(), usize::MAX).expect_err("the quote is open").to_string();
        assert_eq!(error, "stdin: row 2: a quote is not closed");
    }
}

#[test]
fn a_header_is_in_each_file_and_alone_in_none() {
    let headed = Format { header: true, ..CSV };
    assert!(split(headed, "1", 3, b"\"a\n\",b\n", 1).expect("it succeeds").is_empty());
    let files = split(headed, "1", 50, b"\"a\n\",b\n1,x\n2,x\n1,y", 3).expect("it succeeds");
    assert_eq!(files.len(), 2);
    assert!(files.values().any(|file| file == b"\"a\n\",b\n1,x\n1,y\n"), "{files:?}");
    assert!(files.values().any(|file| file == b"\"a\n\",b\n2,x\n"), "{files:?}");
}

#[test]
fn several_fields_meet_whatever_is_between_them() {
    let by = |format, key, line: &[u8]| split(format, key, 50_000, line, 9).expect("it succeeds").into_keys().next();
    assert_eq!(by(TABS, "1,2", b"a\tb\n"), by(CSV, "2,1", b"\"b\",a,c\r\n"));
    assert_ne!(by(TABS, "1,2", b"a\tb\n"), by(TABS, "2,1", b"a\tb\n"));
}
