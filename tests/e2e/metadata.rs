//! Metadata of keys: what is kept with a key besides its bytes, over HTTP and in the library.

use crate::harness::{Cluster, text};
use crate::library::Library;
use crate::mounting::{Mount, no_mounts};
use crate::mounts::Mounted;
use s4::attribute::METADATA_ATTRIBUTE;
use s4::blocks::BLOCKS_ATTRIBUTE;
use s4::client::PutOptions;
use s4::error::ErrorKind;
use s4::key::Key;
use s4::protocol::{Change, MAX_METADATA, Metadata, SourceObject};
use std::collections::BTreeMap;
use std::io::Read;
use std::os::unix::fs::PermissionsExt;

fn key(path: &str) -> Key {
    Key::parse(path).unwrap()
}

fn metadata(content_type: Option<&str>, user: &[(&str, &str)]) -> Metadata {
    let user = user.iter().map(|(name, value)| (name.to_string(), value.to_string())).collect();
    let source = SourceObject { etag: "\"0123456789abcdef-1\"".into(), len: 77 };
    Metadata::new(content_type.map(str::to_owned), user, Some(source)).unwrap()
}

/// As much as there may be.
fn most() -> Metadata {
    let of = |len| {
        let user = BTreeMap::from([("a".to_owned(), "x".repeat(len))]);
        Metadata::new(None, user, None).unwrap()
    };
    of(MAX_METADATA - of(0).encode().len())
}

/// The head of a request to node 0.
fn request(cluster: &Cluster, line: &str, headers: &str) -> String {
    format!(
        "{line} HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\ns4-cluster: {}\r\n{headers}\r\n",
        cluster.digest()
    )
}

#[test]
fn headers_of_a_put_are_headers_of_the_key() {
    let cluster = Cluster::start(2);
    let ask = |line: &str, headers: &str| cluster.raw(0, request(&cluster, line, headers).as_bytes());
    let headers = "Content-Type: text/csv; charset=utf-8\r\nS4-Meta-Color: gr\u{fc}n\r\ns4-meta-list: a\r\ns4-meta-list: b\r\n\
                   s4-meta-empty:\r\ns4-source: \"ab c-2\" 123\r\nx-other: y\r\nContent-Length: 5\r\n";
    let put = cluster.raw(0, (request(&cluster, "PUT /v1/keys/b/0_k", headers) + "bytes").as_bytes());
    assert!(put.starts_with("HTTP/1.1 201 "), "{put}");
    for (line, body) in [("GET /v1/keys/b/0_k", "bytes"), ("HEAD /v1/keys/b/0_k", "")] {
        let answer = ask(line, "");
        let (head, rest) = answer.split_once("\r\n\r\n").unwrap();
        let shown: Vec<&str> = head.lines().filter(|line| !line.starts_with("date:")).collect();
        let mut expected = vec![
            "HTTP/1.1 200 OK",
            "content-length: 5",
            "content-type: text/csv; charset=utf-8",
            "s4-checksum: 76b0f10bd7f1b0cc 5",
            "s4-meta-color: gr\u{fc}n",
            "s4-meta-empty: ",
            "s4-meta-list: a, b",
            "s4-source: \"ab c-2\" 123",
            "connection: close",
        ];
        expected[3] = shown.iter().find(|line| line.starts_with("s4-checksum: ")).expect("a checksum");
        assert_eq!(shown, expected, "{line}");
        assert_eq!(rest, body, "{line}");
    }
    cluster.put("s4://b/0_plain", b"plain");
    let plain = ask("GET /v1/keys/b/0_plain", "");
    assert!(plain.contains("content-type: application/octet-stream\r\n") && !plain.contains("s4-meta"), "{plain}");
    assert!(ask("HEAD /v1/keys/b/0_none", "").starts_with("HTTP/1.1 404 "));
    assert!(ask("HEAD /v1/keys/b/1_other", "").starts_with("HTTP/1.1 421 "));
    assert!(ask("HEAD /v1/list", "").starts_with("HTTP/1.1 405 "));
}

#[test]
fn what_cannot_be_kept_is_refused_before_a_key_is_made() {
    let cluster = Cluster::start(1);
    let put = |headers: &str| {
        let head = request(&cluster, "PUT /v1/keys/b/0_k", &format!("{headers}\r\nContent-Length: 5\r\n"));
        cluster.raw(0, (head + "bytes").as_bytes())
    };
    let long = put(&format!("s4-meta-a: {}", "x".repeat(MAX_METADATA)));
    assert!(long.starts_with("HTTP/1.1 413 ") && long.contains("at most 2048 bytes"), "{long}");
    for headers in ["s4-meta-: x", "s4-source: ab", "s4-source: x 1x"] {
        let refused = put(headers);
        assert!(refused.starts_with("HTTP/1.1 400 ") && refused.contains("metadata: "), "{headers}: {refused}");
    }
    assert_eq!(cluster.run(&["ls"]).status.code(), Some(1), "no bucket was made");
}

#[test]
fn a_client_puts_metadata_with_keys_of_any_length_and_finds_it_again() {
    let cluster = Cluster::start(3);
    let library = Library::of(&cluster);
    let change = Change { mode: Some(0o440), mtime: Some(1_700_000_000_000_000_001), over_empty: false };
    for (number, len) in [0, 5, 65_536, 65_537, 3 << 20].into_iter().enumerate() {
        let name = key(&format!("b/{number}_k"));
        let meta = metadata(Some("image/png"), &[("number", &number.to_string()), ("\u{7e}tilde", "\u{1f980} crab")]);
        let options = PutOptions { change, metadata: meta.clone(), ..PutOptions::default() };
        let input = std::io::repeat(number as u8).take(len);
        let put = library.wait(library.client.put_with(&name, input, "the test", options)).unwrap();
        let head = library.wait(library.client.head(&name)).unwrap().expect("the key is there");
        assert_eq!((head.stat.checksum, head.stat.mtime, head.stat.mode), (put, change.mtime.unwrap(), 0o440));
        assert_eq!(head.metadata, meta, "of {len} bytes");
        // A copy keeps it, also on another node.
        for copy in [format!("copy/{number}_k"), format!("copy/{}_k", number + 1)] {
            cluster.ok(&["cp", &format!("s4://{name}", name = name.as_str()), &format!("s4://{copy}/{number}")]);
            let copied = library.wait(library.client.head(&key(&format!("{copy}/{number}")))).unwrap().unwrap();
            assert_eq!((copied.stat.checksum, copied.metadata), (put, meta.clone()), "{copy}");
        }
    }
    cluster.put("s4://b/0_plain", b"plain");
    let plain = library.wait(library.client.head(&key("b/0_plain"))).unwrap().unwrap();
    assert!(plain.metadata.is_empty());
    assert_eq!(library.wait(library.client.head(&key("b/0_none"))).unwrap(), None);
    // What a map makes is a new key.
    cluster.ok(&["map", "s4://b/", "s4://out/", "cat"]);
    assert!(library.wait(library.client.head(&key("out/1_k"))).unwrap().unwrap().metadata.is_empty());
    let file = cluster.data(0).join("b/0_plain");
    assert_eq!(xattr::get(&file, METADATA_ATTRIBUTE).unwrap(), None, "no attribute for what a key does not have");
    assert_eq!(xattr::get(&file, "user.s4.key").unwrap().unwrap().len(), 17);
}

#[test]
fn a_rename_in_a_mount_keeps_metadata_within_a_node_and_across_nodes() {
    if let Some(reason) = no_mounts() {
        eprintln!("skipped: {reason}");
        return;
    }
    let cluster = Cluster::start(2);
    let (library, mount) = (Library::of(&cluster), Mount::new(&cluster, "mount", &[]));
    let meta = metadata(Some("text/plain"), &[("a", "b")]);
    let options = PutOptions { metadata: meta.clone(), ..PutOptions::default() };
    library.wait(library.client.put_with(&key("b/0_k"), &b"bytes"[..], "the test", options)).unwrap();
    for (from, to) in [("b/0_k", "b/0_within"), ("b/0_within", "b/1_across")] {
        std::fs::rename(mount.path(from), mount.path(to)).unwrap();
        let head = library.wait(library.client.head(&key(to))).unwrap().expect("the key is there");
        assert_eq!(head.metadata, meta, "{to}");
    }
}

#[test]
fn the_most_metadata_leaves_room_for_the_checksums_of_a_large_keys_parts() {
    let Some(disk) = Mounted::ext4(640 << 20) else { return };
    let cluster = Cluster::on_disk(&disk, &["--reserve", "0"]);
    let library = Library::of(&cluster);
    let options = PutOptions { metadata: most(), ..PutOptions::default() };
    let (name, len) = (key("b/1_large"), 300 << 20);
    let input = std::io::repeat(7).take(len);
    let checksum = library.wait(library.client.put_with(&name, input, "the test", options.clone())).unwrap();
    let head = library.wait(library.client.head(&name)).unwrap().unwrap();
    assert_eq!((head.stat.checksum.len, head.metadata), (len, most()));
    let table = xattr::get(cluster.data(1).join("b/1_large"), BLOCKS_ATTRIBUTE).unwrap().expect("a table");
    assert_eq!(table[1], 1, "600 checksums of leaves have no room beside 2 KiB: 300 of two leaves do");
    for offset in [0, 100 << 20, len - 10] {
        let part = library.wait(library.client.get_range(&name, checksum, offset, 10)).unwrap();
        assert_eq!(part, [7; 10][..]);
    }
    // A damaged part is found by its own checksum.
    let file = cluster.data(1).join("b/1_large");
    std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o600)).unwrap();
    let file = std::fs::OpenOptions::new().write(true).open(file).unwrap();
    std::os::unix::fs::FileExt::write_all_at(&file, b"x", 200 << 20).unwrap();
    let damaged = library.wait(library.client.get_range(&name, checksum, 200 << 20, 10)).unwrap_err();
    assert_eq!(damaged.kind(), ErrorKind::Checksum, "{damaged}");
    assert!(library.wait(library.client.get_range(&name, checksum, 100 << 20, 10)).is_ok());
}

#[test]
fn a_file_system_without_room_for_metadata_refuses_the_key_and_says_so() {
    // With blocks of 1 KiB, attributes have one.
    let Some(disk) = Mounted::ext4(64 << 20) else { return };
    let cluster = Cluster::on_disk(&disk, &["--reserve", "0"]);
    let library = Library::of(&cluster);
    let options = PutOptions { metadata: most(), ..PutOptions::default() };
    for len in [5, 3 << 20] {
        let (name, input) = (key("b/1_k"), std::io::repeat(7).take(len));
        let refused = library.wait(library.client.put_with(&name, input, "the test", options.clone())).unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::TooLarge, "{refused}");
        let message = refused.to_string();
        assert!(message.contains("s4://b/1_k") && message.contains("no room for 2048 bytes of metadata"), "{message}");
    }
    assert_eq!(library.wait(library.client.head(&key("b/1_k"))).unwrap(), None);
    let small = PutOptions { metadata: metadata(Some("text/plain"), &[("a", "b")]), ..PutOptions::default() };
    library.wait(library.client.put_with(&key("b/1_k"), &b"bytes"[..], "the test", small.clone())).unwrap();
    assert_eq!(library.wait(library.client.head(&key("b/1_k"))).unwrap().unwrap().metadata, small.metadata);
}

#[test]
fn damaged_metadata_is_a_checksum_error_and_never_delivered() {
    let cluster = Cluster::start(1);
    let library = Library::of(&cluster);
    let file = cluster.data(0).join("b/0_k");
    let damage = |value: Option<&[u8]>| {
        std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o600)).unwrap();
        match value {
            Some(value) => xattr::set(&file, METADATA_ATTRIBUTE, value).unwrap(),
            None => xattr::remove(&file, METADATA_ATTRIBUTE).unwrap(),
        }
    };
    let options = PutOptions { metadata: metadata(None, &[("a", "b")]), ..PutOptions::default() };
    library.wait(library.client.put_with(&key("b/0_k"), &b"bytes"[..], "the test", options.clone())).unwrap();
    let stored = xattr::get(&file, METADATA_ATTRIBUTE).unwrap().unwrap();
    assert!(text(&stored).ends_with(&options.metadata.encode()), "JSON: {}", text(&stored));
    let other = text(&stored).replace("\"b\"", "\"c\"").into_bytes();
    for value in [Some(other.as_slice()), Some(b"".as_slice()), Some(b"{}".as_slice()), None] {
        damage(value);
        let head = library.wait(library.client.head(&key("b/0_k"))).unwrap_err();
        assert_eq!(head.kind(), ErrorKind::Checksum, "{head}");
        assert!(head.to_string().contains("metadata"), "{head}");
        let get = cluster.raw(0, request(&cluster, "GET /v1/keys/b/0_k", "").as_bytes());
        assert!(get.starts_with("HTTP/1.1 500 ") && get.contains("\"kind\":\"checksum\""), "{get}");
        let scrub = cluster.run(&["scrub"]);
        assert_eq!(scrub.status.code(), Some(1));
        assert!((text(&scrub.stdout) + &text(&scrub.stderr)).contains("its metadata"), "{scrub:?}");
        if value.is_some() {
            damage(Some(&stored));
            assert!(library.wait(library.client.head(&key("b/0_k"))).is_ok());
        }
    }
}
