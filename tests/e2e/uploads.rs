//! Uploads in parts: keys are made of the parts that were put, whole or not at all, whatever fails in between.

use crate::harness::{Cluster, eventually};
use crate::library::Library;
use crate::mounts::Mounted;
use s4::checksum::Checksum;
use s4::error::{ErrorKind, Result};
use s4::key::{Key, Prefix};
use s4::protocol::{Change, CompletedPart, Metadata, PartNumber, UploadId, UploadPart};
use std::collections::BTreeMap;
use std::io::{Cursor, Read};
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::Command;

const MIB: usize = 1 << 20;

fn key(path: &str) -> Key {
    Key::parse(path).unwrap()
}

/// An upload of a key, with what its test has put.
struct Uploading<'l> {
    library: &'l Library,
    key: Key,
    id: UploadId,
}

impl<'l> Uploading<'l> {
    fn begin(library: &'l Library, path: &str) -> Self {
        let (key, metadata) = (key(path), metadata());
        let id = library.wait(library.client.create_upload(&key, &metadata)).expect("an upload");
        Self { library, key, id }
    }

    fn part(&self, number: u32) -> UploadPart {
        UploadPart { upload: self.id.clone(), number: PartNumber::try_from(number).unwrap() }
    }

    fn put(&self, number: u32, bytes: impl Into<Vec<u8>>) -> CompletedPart {
        let checksum = self.try_put(number, Cursor::new(bytes.into())).expect("a part");
        CompletedPart { number: PartNumber::try_from(number).unwrap(), xxh3: checksum.xxh3 }
    }

    fn try_put(&self, number: u32, bytes: impl Read + Send + 'static) -> Result<Checksum> {
        self.library.wait(self.library.client.put_part(&self.key, self.part(number), bytes, "the test"))
    }

    fn complete(&self, parts: &[CompletedPart]) -> Result<Checksum> {
        self.library.wait(self.library.client.complete_upload(&self.key, &self.id, parts, Change::default()))
    }

    fn abort(&self) -> Result<()> {
        self.library.wait(self.library.client.abort_upload(&self.key, &self.id))
    }

    /// Numbers and lengths of its parts.
    fn parts(&self) -> Result<Vec<(u32, u64)>> {
        let (mut parts, mut after) = (Vec::new(), 0);
        loop {
            let page = self.library.wait(self.library.client.list_parts(&self.key, &self.id, after))?;
            parts.extend(page.parts.iter().map(|part| (part.number.get(), part.checksum.len)));
            match parts.last() {
                Some(&(last, _)) if page.more => after = last,
                _ => return Ok(parts),
            }
        }
    }

    fn is_refused(&self, parts: &[CompletedPart], kind: ErrorKind, why: &str) {
        let error = self.complete(parts).expect_err(why);
        assert_eq!(error.kind(), kind, "{why}: {error}");
        let message = error.to_string();
        assert!(message.contains(self.key.as_str()) && message.contains(why), "{why}: {message}");
    }
}

fn metadata() -> Metadata {
    Metadata::new(Some("text/csv".into()), BTreeMap::from([("a".to_owned(), "b".to_owned())]), None).unwrap()
}

/// What the nodes keep of uploads.
fn kept(cluster: &Cluster) -> Vec<PathBuf> {
    let below = |node| walkdir::WalkDir::new(cluster.data(node).join(".s4/uploads")).min_depth(1);
    (0..cluster.len()).flat_map(below).flatten().map(|entry| entry.into_path()).collect()
}

fn uploads(library: &Library, prefix: &str) -> Vec<(String, UploadId)> {
    let mut found = Vec::new();
    let mut after: Option<(String, String)> = None;
    loop {
        let after_page = after.as_ref().map(|(key, id)| (key.as_str(), id.as_str()));
        let page = library.wait(library.client.list_uploads(&Prefix::parse(prefix).unwrap(), after_page)).unwrap();
        found.extend(page.uploads.into_iter().map(|upload| (upload.key.as_str().to_owned(), upload.id)));
        match found.last() {
            Some((key, id)) if page.more => after = Some((key.clone(), id.as_str().to_owned())),
            _ => return found,
        }
    }
}

#[test]
fn parts_of_any_order_and_length_become_one_key_with_its_metadata() {
    let cluster = Cluster::start(3);
    let library = Library::of(&cluster);
    let upload = Uploading::begin(&library, "b/new/1_k");
    let large: Vec<u8> = (0..3 * MIB + 5).map(|at| (at >> 7) as u8).collect();
    let third = upload.put(7, &b"the end"[..]);
    upload.put(2, &b"is replaced"[..]);
    let first = upload.put(1, large.clone());
    let not_used = upload.put(9999, &b"not used"[..]);
    let second = upload.put(2, Vec::new());
    assert_eq!(upload.parts().unwrap(), [(1, large.len() as u64), (2, 0), (7, 7), (9999, 8)]);
    assert_eq!(cluster.run(&["ls"]).status.code(), Some(1), "nothing is visible");
    let list = [first, second, third];
    let checksum = upload.complete(&list).unwrap();
    let whole = [&large[..], b"the end"].concat();
    assert_eq!(checksum, Checksum::of(&whole));
    assert!(cluster.get("s4://b/new/1_k") == whole);
    let head = library.wait(library.client.head(&upload.key)).unwrap().expect("the key");
    assert_eq!((head.stat.checksum, head.stat.mode, head.metadata), (checksum, 0o444, metadata()));
    let end = library.wait(library.client.get_range(&upload.key, checksum, large.len() as u64, 100)).unwrap();
    assert_eq!(end, b"the end"[..], "it has sums of its parts as any key");
    assert_eq!(kept(&cluster), Vec::<PathBuf>::new());
    // The answer may have been lost.
    assert_eq!(upload.complete(&list), Ok(checksum));
    upload.is_refused(&[first, second, third, not_used], ErrorKind::NotFound, "no upload");
    assert_eq!(upload.parts().unwrap_err().kind(), ErrorKind::NotFound);
    assert_eq!(upload.abort().unwrap_err().kind(), ErrorKind::NotFound);
    assert_eq!(upload.try_put(3, &b"late"[..]).unwrap_err().kind(), ErrorKind::NotFound);
    assert_eq!(upload.try_put(3, std::io::repeat(1).take(2 << 20)).unwrap_err().kind(), ErrorKind::NotFound);
    cluster.ok(&["rm", "s4://b/new/1_k"]);
    upload.is_refused(&list, ErrorKind::NotFound, "no upload");
}

#[test]
fn a_list_that_is_not_of_the_uploads_parts_is_refused_and_the_upload_stays() {
    let cluster = Cluster::start(2);
    let library = Library::of(&cluster);
    let upload = Uploading::begin(&library, "b/1_k");
    let (one, two) = (upload.put(1, &b"one"[..]), upload.put(2, &b"two"[..]));
    let other = CompletedPart { xxh3: two.xxh3 ^ 1, ..two };
    let missing = CompletedPart { number: PartNumber::try_from(3).unwrap(), xxh3: 0 };
    upload.is_refused(&[one, other], ErrorKind::BadRequest, "part 2 is another one");
    upload.is_refused(&[one, missing], ErrorKind::BadRequest, "it has no part 3");
    for list in [&[][..], &[two, one], &[one, one]] {
        upload.is_refused(list, ErrorKind::BadRequest, "in the order of their numbers");
    }
    for (path, id) in [("b/1_other", upload.id.clone()), ("b/1_k", UploadId::random())] {
        Uploading { library: &library, key: key(path), id }.is_refused(&[one], ErrorKind::NotFound, "no upload");
    }
    // A disk that changes bytes.
    let file = cluster.data(1).join(format!(".s4/uploads/{}/parts/2", upload.id));
    std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o600)).unwrap();
    std::fs::write(&file, "twu").unwrap();
    upload.is_refused(&[one, two], ErrorKind::Checksum, "part 2 of upload");
    assert_eq!(cluster.run(&["ls"]).status.code(), Some(1), "no key was made");
    upload.put(2, &b"two"[..]);
    upload.complete(&[one, two]).unwrap();
    assert_eq!(cluster.get("s4://b/1_k"), b"onetwo");
}

#[test]
fn an_upload_that_is_aborted_leaves_nothing() {
    let cluster = Cluster::start(2);
    let library = Library::of(&cluster);
    let (upload, other) = (Uploading::begin(&library, "b/1_k"), Uploading::begin(&library, "b/1_k"));
    upload.put(1, vec![7; 2 * MIB]);
    other.put(1, &b"other"[..]);
    upload.abort().unwrap();
    assert_eq!(uploads(&library, ""), [("b/1_k".to_owned(), other.id.clone())]);
    assert_eq!(other.parts().unwrap(), [(1, 5)]);
    other.abort().unwrap();
    assert_eq!(kept(&cluster), Vec::<PathBuf>::new());
}

#[test]
fn a_key_that_was_put_meanwhile_stays_unless_its_bytes_are_the_same() {
    let cluster = Cluster::start(2);
    let library = Library::of(&cluster);
    let upload = Uploading::begin(&library, "b/1_k");
    let list = [upload.put(1, &b"one"[..]), upload.put(2, &b"two"[..])];
    for taken in ["onetwo!", "onetwO", ""] {
        cluster.put("s4://b/1_k", taken.as_bytes());
        upload.is_refused(&list, ErrorKind::AlreadyExists, "key already exists");
        assert_eq!(cluster.get("s4://b/1_k"), taken.as_bytes());
        cluster.ok(&["rm", "s4://b/1_k"]);
    }
    cluster.put("s4://b/1_k/1_below", b"x");
    upload.is_refused(&list, ErrorKind::AlreadyExists, "directory");
    cluster.ok(&["rm", "-r", "s4://b/"]);
    cluster.put("s4://b/1_k", b"onetwo");
    assert_eq!(upload.complete(&list), Ok(Checksum::of(b"onetwo")));
    assert_eq!(kept(&cluster), Vec::<PathBuf>::new());
}

#[test]
fn completions_at_once_all_succeed_and_make_one_key() {
    let cluster = Cluster::start(1);
    let library = Library::of(&cluster);
    let upload = Uploading::begin(&library, "b/0_k");
    let list: Vec<_> = (1..=8).map(|number| upload.put(number, vec![number as u8; 4 * MIB])).collect();
    let results = library.wait(async {
        let mut asked = tokio::task::JoinSet::new();
        for _ in 0..6 {
            let (client, key, id, list) = (library.client.clone(), upload.key.clone(), upload.id.clone(), list.clone());
            asked.spawn(async move { client.complete_upload(&key, &id, &list, Change::default()).await });
        }
        asked.join_all().await
    });
    let whole: Vec<u8> = (1..=8).flat_map(|number| vec![number; 4 * MIB]).collect();
    assert_eq!(results, vec![Ok(Checksum::of(&whole)); 6]);
    assert!(cluster.get("s4://b/0_k") == whole);
    assert_eq!(kept(&cluster), Vec::<PathBuf>::new());
}

#[test]
fn a_killed_daemon_leaves_uploads_as_they_were() {
    let mut cluster = Cluster::start(1);
    let library = Library::of(&cluster);
    let upload = Uploading::begin(&library, "b/0_k");
    let mut list = vec![upload.put(1, vec![1; 24 * MIB])];
    cluster.kill_node(0);
    cluster.start_node(0);
    assert_eq!(upload.parts().unwrap(), [(1, 24 * MIB as u64)]);
    list.extend((2..=5).map(|number| upload.put(number, vec![number as u8; 24 * MIB])));
    let whole = Checksum::of(&(1..=5).flat_map(|number| vec![number; 24 * MIB]).collect::<Vec<u8>>());
    // While the parts are being joined.
    let completing = std::thread::scope(|scope| {
        let completing = scope.spawn(|| upload.complete(&list));
        eventually("the daemon reads a part", || {
            let open = std::fs::read_dir(format!("/proc/{}/fd", cluster.pid(0))).ok()?.flatten();
            let mut files = open.filter_map(|fd| std::fs::read_link(fd.path()).ok());
            files.any(|file| file.to_string_lossy().contains("/parts/")).then_some(())
        });
        cluster.kill_node(0);
        completing.join().unwrap()
    });
    cluster.start_node(0);
    // A machine that is fast may have had it all.
    if completing.is_err() {
        assert_eq!(upload.parts().unwrap().len(), 5);
        assert_eq!(cluster.run(&["ls"]).status.code(), Some(1), "the key is absent as a whole");
    }
    // After the key was made, and before the upload was removed.
    let (dir, saved) = (cluster.data(0).join(".s4/uploads").join(upload.id.as_str()), cluster.dir().join("saved"));
    let copy = |from: &PathBuf, to: &PathBuf| {
        assert!(Command::new("cp").arg("-a").args([from, to]).status().unwrap().success());
    };
    if completing.is_err() {
        copy(&dir, &saved);
    }
    assert_eq!(upload.complete(&list), Ok(whole));
    cluster.kill_node(0);
    // While an upload was being made or removed.
    std::fs::create_dir_all(dir.with_file_name("0".repeat(28)).join("parts")).unwrap();
    if completing.is_err() {
        copy(&saved, &dir);
    }
    cluster.start_node(0);
    assert_eq!(upload.complete(&list), Ok(whole));
    assert_eq!(kept(&cluster), Vec::<PathBuf>::new());
    assert_eq!(upload.complete(&list), Ok(whole), "the key itself says what it was joined from");
    assert_eq!(library.wait(library.client.head(&upload.key)).unwrap().unwrap().stat.checksum, whole);
}

#[test]
fn a_full_disk_refuses_a_part_or_the_key_and_keeps_what_was_there() {
    let Some(disk) = Mounted::ext4(96 << 20) else { return };
    let cluster = Cluster::on_disk(&disk, &["--reserve", "0"]);
    let library = Library::of(&cluster);
    let free = disk.free_bytes();
    let upload = Uploading::begin(&library, "b/1_k");
    let one = upload.put(1, vec![1; 25 * MIB]);
    let refused = upload.try_put(2, std::io::repeat(2).take(100 << 20)).unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::NoSpace, "{refused}");
    let two = upload.put(2, vec![2; 25 * MIB]);
    assert_eq!(upload.parts().unwrap(), [(1, 25 * MIB as u64), (2, 25 * MIB as u64)]);
    for _ in 0..2 {
        upload.is_refused(&[one, two], ErrorKind::NoSpace, "b/1_k");
        assert_eq!(library.wait(library.client.head(&upload.key)).unwrap(), None);
    }
    // One alone fits: the others are not needed any more.
    assert_eq!(upload.complete(&[two]), Ok(Checksum::of(&vec![2; 25 * MIB])));
    cluster.ok(&["rm", "s4://b/1_k"]);
    eventually("all space is free again", || (disk.free_bytes() + (1 << 20) > free).then_some(()));
}

#[test]
fn uploads_that_nobody_touched_for_a_week_are_removed() {
    let mut cluster = Cluster::start(1);
    let library = Library::of(&cluster);
    let [old, touched, new] = ["b/0_old", "b/0_touched", "b/0_new"].map(|path| Uploading::begin(&library, path));
    for upload in [&old, &touched, &new] {
        upload.put(1, &b"part"[..]);
    }
    for upload in [&old, &touched] {
        let dir = cluster.data(0).join(".s4/uploads").join(upload.id.as_str());
        let aged = Command::new("touch").args(["-d", "8 days ago"]).args([dir.join("parts"), dir]).status().unwrap();
        assert!(aged.success());
    }
    let second = touched.put(2, &b"more"[..]);
    cluster.stop_node(0);
    cluster.start_node(0);
    assert_eq!(old.parts().unwrap_err().kind(), ErrorKind::NotFound);
    assert_eq!(new.parts().unwrap(), [(1, 4)]);
    assert_eq!(touched.complete(&[second]), Ok(Checksum::of(b"more")));
    assert_eq!(uploads(&library, ""), [("b/0_new".to_owned(), new.id.clone())]);
    assert!(cluster.log_text(0).contains("not touched for a week"), "{}", cluster.log_text(0));
}

#[test]
fn a_key_of_ten_thousand_parts() {
    let cluster = Cluster::start(1);
    let library = Library::of(&cluster);
    let upload = Uploading::begin(&library, "b/0_k");
    let sums = library.wait(async {
        let (mut running, mut sums) = (tokio::task::JoinSet::new(), BTreeMap::new());
        for number in (1..=10_000).rev() {
            let (client, key, part) = (library.client.clone(), upload.key.clone(), upload.part(number));
            running.spawn(async move {
                let bytes = Cursor::new(format!("{number}\n").into_bytes());
                client.put_part(&key, part, bytes, "the test").await.map(|checksum| (number, checksum.xxh3))
            });
            if running.len() >= 32 {
                sums.extend([running.join_next().await.unwrap().unwrap().unwrap()]);
            }
        }
        sums.extend(running.join_all().await.into_iter().map(Result::unwrap));
        sums
    });
    assert_eq!(upload.parts().unwrap().len(), 10_000);
    let number = |number| PartNumber::try_from(number).unwrap();
    let list: Vec<_> = sums.into_iter().map(|(at, xxh3)| CompletedPart { number: number(at), xxh3 }).collect();
    let whole: String = (1..=10_000).map(|number| format!("{number}\n")).collect();
    assert_eq!(upload.complete(&list), Ok(Checksum::of(whole.as_bytes())));
    assert_eq!(cluster.get("s4://b/0_k"), whole.as_bytes());
    let query = format!("upload={}&part=10001", UploadId::random());
    let put = format!("PUT /v1/keys/b/0_k?{query} HTTP/1.1\r\nHost: 127.0.0.1\r\ns4-cluster: {}\r\n", cluster.digest());
    let refused = cluster.raw(0, format!("{put}Connection: close\r\nContent-Length: 1\r\n\r\nx").as_bytes());
    assert!(refused.starts_with("HTTP/1.1 400 ") && refused.contains("from 1 to 10000"), "{refused}");
}

#[test]
fn uploads_are_listed_over_all_nodes_in_order_and_are_bounded() {
    let cluster = Cluster::start(2);
    let library = Library::of(&cluster);
    let mut expected: Vec<(String, UploadId)> = (0..1300)
        .map(|number| {
            // Most are on node 1.
            let path = format!("b/{}_k{}", u32::from(number % 5 != 0), number % 450);
            let upload = Uploading::begin(&library, &path);
            (path, upload.id)
        })
        .collect();
    expected.sort();
    assert_eq!(uploads(&library, ""), expected);
    expected.retain(|(path, _)| path.starts_with("b/1_k44"));
    assert!(!expected.is_empty());
    assert_eq!(uploads(&library, "b/1_k44"), expected);
    assert_eq!(uploads(&library, "c"), []);
    // Uploads are no part of their bucket.
    assert_eq!(cluster.run(&["ls"]).status.code(), Some(1));
    for number in 0..10_000 {
        std::fs::create_dir_all(cluster.data(0).join(format!(".s4/uploads/{number:028x}"))).unwrap();
    }
    let refused = library.wait(library.client.create_upload(&key("b/0_k"), &Metadata::default())).unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Busy, "{refused}");
    Uploading::begin(&library, "b/1_k").abort().unwrap();
}
