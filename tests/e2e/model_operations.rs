//! The operations of the model test. Each is done in the mount and in the model, and the results are compared.

use crate::model_files::{join, names_at, parent, read_at, slice, write};
use crate::mount_model::{Key, SHARED, Worker, shared_content};
use nix::libc;
use nix::sys::stat::{Mode, UtimensatFlags, utimensat};
use nix::sys::time::TimeSpec;
use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, FileTypeExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::time::Duration;

/// Names on all three nodes. Each is used for a file or for a directory, never for both.
const FILES: [&str; 8] = ["0_k", "1_k", "2_k", "3_f", "name", "x.y", "17_z", ".hidden.file"];
/// Names of FIFOs and of files that are renamed to them. Files with other names are opened, which would block for ever
/// on a FIFO.
const FIFOS: [&str; 3] = ["0_fifo", "1_fifo", "pipe"];
const DIRS: [&str; 5] = ["", "d0", "1_d", "d0/e", "d0/2_e"];
/// The result of an operation: a value or an errno.
type Outcome<T> = Result<T, i32>;

fn outcome<T>(result: io::Result<T>) -> Outcome<T> {
    result.map_err(|e| e.raw_os_error().unwrap_or(-1))
}

fn nix_outcome<T>(result: nix::Result<T>) -> Outcome<T> {
    result.map_err(|errno| errno as i32)
}

impl Worker {
    fn agree<T: PartialEq>(&self, expected: &T, found: &T, show: impl Fn(&T) -> String) {
        if expected != found {
            let trail: Vec<&str> = self.trail.iter().map(String::as_str).collect();
            let (expected, found) = (show(expected), show(found));
            panic!("{}: expected {expected}, found {found}, after\n{}", self.who, trail.join("\n"));
        }
    }

    fn agree_on<T: PartialEq>(&self, expected: &Outcome<T>, found: &Outcome<T>, show: impl Fn(&T) -> String) {
        self.agree(expected, found, |outcome| match outcome {
            Ok(value) => show(value),
            Err(number) => io::Error::from_raw_os_error(*number).to_string(),
        });
    }

    fn agree_on_unit(&self, expected: Outcome<()>, found: Outcome<()>) {
        self.agree_on(&expected, &found, |()| "success".to_owned());
    }

    fn file_name(&mut self) -> String {
        let (dir, name) = (self.random.pick(&DIRS), self.random.pick(&FILES));
        join(dir, name)
    }

    /// Usually a name that exists.
    fn present(&mut self) -> String {
        let count = self.files.len() as u64;
        match count == 0 || self.random.below(8) == 0 {
            true => self.file_name(),
            false => {
                let at = self.random.below(count) as usize;
                self.files.keys().nth(at).expect("there are so many").clone()
            }
        }
    }

    /// A FIFO that exists, if there is one.
    fn fifo(&mut self) -> Option<String> {
        let count = self.fifos.len() as u64;
        let at = (count > 0).then(|| self.random.below(count) as usize)?;
        self.fifos.keys().nth(at).cloned()
    }

    /// Usually a file that exists, sometimes a FIFO.
    fn present_of_any_kind(&mut self) -> String {
        let fifo = if self.random.below(5) == 0 { self.fifo() } else { None };
        fifo.unwrap_or_else(|| self.present())
    }

    fn is_taken(&self, path: &str) -> bool {
        self.files.contains_key(path) || self.fifos.contains_key(path)
    }

    fn dir_name(&mut self) -> String {
        self.random.pick(&DIRS[1..]).to_owned()
    }

    fn parent_is_there(&self, path: &str) -> Outcome<()> {
        match self.dirs.contains(parent(path)) {
            true => Ok(()),
            false => Err(libc::ENOENT),
        }
    }

    fn present_file(&self, path: &str) -> Outcome<&Key> {
        self.files.get(path).ok_or(libc::ENOENT)
    }

    fn content(&mut self) -> Vec<u8> {
        let len = match self.random.below(20) {
            0..2 => 0,
            2..12 => self.random.below(200),
            12..18 => self.random.below(100_000),
            _ => 200_000 + self.random.below(1_500_000),
        };
        let first = self.random.next();
        (0..len).map(|at| (first.wrapping_add(at * at / 3) >> (at % 8)) as u8).collect()
    }

    pub fn make(&mut self) {
        let (path, content) = (self.file_name(), self.content());
        let mode = self.random.pick(&[0o644, 0o600, 0o755]);
        let exclusive = self.random.below(2) == 0;
        let pattern = self.random.below(4);
        self.begin(format!("make {path}, {} bytes, {mode:o}, exclusive {exclusive}, pattern {pattern}", content.len()));
        let expected = self.parent_is_there(&path).and_then(|()| match (self.files.contains_key(&path), exclusive) {
            (true, true) => Err(libc::EEXIST),
            (true, false) if !self.files[&path].content.is_empty() => Err(libc::EPERM),
            // An empty key may be written once.
            (true, false) | (false, _) => Ok(()),
        });
        let found = outcome(write(&self.own.join(&path), &content, mode, exclusive, pattern));
        self.agree_on_unit(expected, found);
        if expected.is_ok() {
            // An empty key that is written keeps its mode.
            let mode = self.files.get(&path).map_or(mode & 0o555, |key| key.mode);
            self.files.insert(path, Key { content, mode, mtime: None });
        }
    }

    pub fn make_in_other(&mut self) {
        self.made += 1;
        let (dir, node) = (self.random.pick(&DIRS), self.random.below(3));
        let path = join(dir, &format!("{}_other", self.made * 3 + node));
        let content = self.content();
        self.begin(format!("make {path} in the other mount, {} bytes", content.len()));
        if !self.dirs.contains(dir) {
            // The other mount may still have the directory in its cache.
            return;
        }
        let found = outcome(write(&self.other.join(&path), &content, 0o644, true, 0));
        self.agree_on_unit(Ok(()), found);
        self.files.insert(path, Key { content, mode: 0o444, mtime: None });
    }

    pub fn read(&mut self) {
        let path = self.present();
        let in_other = self.random.below(2) == 0;
        let (from, size) = (self.random.below(300_000), self.random.below(300_000));
        let (part, keep) = (self.random.below(3) == 0, self.random.below(6) == 0);
        self.begin(format!("read {path}, in other {in_other}, part {part} from {from} size {size}, keep {keep}"));
        let full = if in_other { self.other.join(&path) } else { self.own.join(&path) };
        let expected = self.present_file(&path).map(|key| match part {
            true => slice(&key.content, from, size).to_vec(),
            false => key.content.clone(),
        });
        let found = outcome(File::open(full).and_then(|file| match part {
            true => read_at(&file, from, size).map(|bytes| (file, bytes)),
            false => read_at(&file, 0, u64::MAX).map(|bytes| (file, bytes)),
        }));
        let (file, found) = match found {
            Ok((file, bytes)) => (Some(file), Ok(bytes)),
            Err(number) => (None, Err(number)),
        };
        self.agree_on(&expected, &found, |bytes| format!("{} bytes {:?}…", bytes.len(), slice(bytes, 0, 8)));
        if let (Some(file), true) = (file, keep) {
            self.held.push_back((file, self.files[&path].content.clone()));
            if self.held.len() > 8 {
                self.held.pop_front();
            }
        }
    }

    pub fn append(&mut self) {
        let path = self.present();
        let content = self.content();
        self.begin(format!("append {} bytes to {path}", content.len()));
        let expected = self.present_file(&path).and_then(|key| match key.content.is_empty() {
            true => Ok(()),
            false => Err(libc::EPERM),
        });
        let found = outcome(OpenOptions::new().append(true).open(self.own.join(&path)).and_then(|mut file| {
            file.write_all(&content)?;
            Ok(nix::unistd::close(file)?)
        }));
        self.agree_on_unit(expected, found);
        if let (Ok(()), Some(key)) = (expected, self.files.get_mut(&path)) {
            key.mtime = key.mtime.filter(|_| content.is_empty());
            key.content = content;
        }
    }

    pub fn truncate(&mut self) {
        let (path, len) = (self.present(), self.random.below(1000));
        self.begin(format!("truncate {path} to {len}"));
        let expected = self.present_file(&path).and_then(|key| match key.content.is_empty() && len == 0 {
            true => Ok(()),
            false => Err(libc::EPERM),
        });
        let found = nix_outcome(nix::unistd::truncate(&self.own.join(&path), len as i64));
        self.agree_on_unit(expected, found);
    }

    pub fn unlink(&mut self) {
        let path = match self.random.below(10) {
            0 => self.dir_name(),
            _ => self.present_of_any_kind(),
        };
        self.begin(format!("unlink {path}"));
        let was_there = self.files.remove(&path).is_some() || self.fifos.remove(&path).is_some();
        let expected = match (self.dirs.contains(&path), was_there) {
            (true, _) => Err(libc::EISDIR),
            (false, true) => Ok(()),
            (false, false) => Err(libc::ENOENT),
        };
        let found = outcome(std::fs::remove_file(self.own.join(&path)));
        self.agree_on_unit(expected, found);
    }

    pub fn rename(&mut self) {
        let (from, to) = match self.random.below(10) {
            0 => (self.dir_name(), "never".to_owned()),
            _ => {
                let from = self.present_of_any_kind();
                let to = match self.random.below(4) {
                    0 => self.fifo_name(),
                    _ => self.file_name(),
                };
                // A FIFO is only renamed to a name for FIFOs.
                let stays = self.fifos.contains_key(&from) && !self.is_taken(&to);
                let to = if stays { self.fifo_name() } else { to };
                (from, to)
            }
        };
        self.begin(format!("rename {from} to {to}"));
        let expected = self.expected_of_rename(&from, &to);
        let found = outcome(std::fs::rename(self.own.join(&from), self.own.join(&to)));
        self.agree_on_unit(expected, found);
        if expected.is_err() {
            return;
        }
        if let Some(key) = self.files.remove(&from) {
            self.files.insert(to, key);
        } else if let Some(mode) = self.fifos.remove(&from) {
            self.fifos.insert(to, mode);
        }
    }

    fn expected_of_rename(&self, from: &str, to: &str) -> Outcome<()> {
        self.parent_is_there(to)?;
        if self.dirs.contains(from) {
            return Err(libc::EXDEV);
        }
        if !self.is_taken(from) {
            return Err(libc::ENOENT);
        }
        match from != to && self.is_taken(to) {
            true => Err(libc::EEXIST),
            false => Ok(()),
        }
    }

    pub fn mkdir(&mut self) {
        let path = self.dir_name();
        self.begin(format!("mkdir {path}"));
        let expected = self.parent_is_there(&path).and_then(|()| match self.dirs.contains(&path) {
            true => Err(libc::EEXIST),
            false => Ok(()),
        });
        let found = outcome(std::fs::DirBuilder::new().mode(0o755).create(self.own.join(&path)));
        self.agree_on_unit(expected, found);
        if expected.is_ok() {
            self.dirs.insert(path);
        }
    }

    pub fn rmdir(&mut self) {
        let path = match self.random.below(8) {
            0 => self.present_of_any_kind(),
            _ => self.dir_name(),
        };
        self.begin(format!("rmdir {path}"));
        let expected = match (self.dirs.contains(&path), self.is_taken(&path)) {
            (_, true) => Err(libc::ENOTDIR),
            (false, false) => Err(libc::ENOENT),
            (true, false) if !self.names_in(&path, false).is_empty() => Err(libc::ENOTEMPTY),
            (true, false) => Ok(()),
        };
        let found = outcome(std::fs::remove_dir(self.own.join(&path)));
        self.agree_on_unit(expected, found);
        if expected.is_ok() {
            self.dirs.remove(&path);
        }
    }

    pub fn stat(&mut self) {
        let path = match self.random.below(6) {
            0 => self.dir_name(),
            _ => self.present_of_any_kind(),
        };
        self.begin(format!("stat {path}"));
        let found = outcome(std::fs::symlink_metadata(self.own.join(&path)));
        let expected = match (self.dirs.contains(&path), self.fifos.get(&path)) {
            (true, _) => Ok(("directory", 0, 0o755, None)),
            (false, Some(mode)) => Ok(("FIFO", 0, *mode, None)),
            (false, None) => {
                self.present_file(&path).map(|key| ("file", key.content.len() as u64, key.mode, key.mtime))
            }
        };
        let has_mtime = matches!(expected, Ok((.., Some(_))));
        let found = found.map(|found| {
            let size = if found.is_dir() { 0 } else { found.len() };
            let mtime = found.mtime() * 1_000_000_000 + found.mtime_nsec();
            let kind = match found.file_type() {
                kind if kind.is_dir() => "directory",
                kind if kind.is_fifo() => "FIFO",
                _ => "file",
            };
            (kind, size, found.mode() & 0o7777, has_mtime.then_some(mtime))
        });
        self.agree_on(&expected, &found, |stat| format!("{stat:?}"));
    }

    pub fn list(&mut self) {
        let path = self.random.pick(&DIRS).to_owned();
        let in_other = self.random.below(2) == 0;
        self.begin(format!("list {path}, in other {in_other}"));
        self.compare_listing(&path, in_other);
    }

    fn compare_listing(&self, path: &str, in_other: bool) {
        let full = if in_other { self.other.join(path) } else { self.own.join(path) };
        let expected = match self.dirs.contains(path) {
            true => Ok(self.names_in(path, in_other)),
            false => Err(libc::ENOENT),
        };
        let found = outcome(names_at(&full));
        // For a second, the other mount may show a removed directory as an empty one.
        let late = in_other && expected.is_err() && found == Ok(Vec::new());
        if !late {
            self.agree_on(&expected, &found, |names| format!("{names:?}"));
        }
    }

    /// The other mount does not show the FIFOs of this one.
    fn names_in(&self, dir: &str, in_other: bool) -> Vec<String> {
        let fifos = self.fifos.keys().filter(|_| !in_other);
        let all = self.files.keys().chain(self.dirs.iter().filter(|dir| !dir.is_empty())).chain(fifos);
        let mut names: Vec<String> =
            all.filter(|path| parent(path) == dir).map(|path| path.rsplit('/').next().unwrap().to_owned()).collect();
        names.sort();
        names
    }

    pub fn change(&mut self) {
        let (path, mode) = (self.present_of_any_kind(), self.random.pick(&[0o400, 0o644, 0o777, 0o111]));
        let mtime = (self.random.below(2_000_000_000) * 1_000_000_000 + self.random.below(1_000_000_000)) as i64;
        let times = self.random.below(2) == 0;
        self.begin(format!("change {path}: mode {mode:o} or, {times}, time {mtime}"));
        let full = self.own.join(&path);
        let expected = if self.is_taken(&path) { Ok(()) } else { Err(libc::ENOENT) };
        let time = TimeSpec::from_duration(Duration::from_nanos(mtime as u64));
        let found = match times {
            true => nix_outcome(utimensat(nix::fcntl::AT_FDCWD, &full, &time, &time, UtimensatFlags::FollowSymlink)),
            false => outcome(std::fs::set_permissions(full, std::fs::Permissions::from_mode(mode))),
        };
        self.agree_on_unit(expected, found);
        match (self.files.get_mut(&path), self.fifos.get_mut(&path)) {
            (Some(key), _) if times => key.mtime = Some(mtime),
            (Some(key), _) => key.mode = mode & 0o555,
            (None, Some(known)) if !times => *known = mode,
            (None, _) => {}
        }
    }

    fn fifo_name(&mut self) -> String {
        let (dir, name) = (self.random.pick(&DIRS), self.random.pick(&FIFOS));
        join(dir, name)
    }

    /// Creates a FIFO at a name for FIFOs, or at the name of an existing file.
    pub fn make_a_fifo(&mut self) {
        let mode = self.random.pick(&[0o644, 0o600, 0o666]);
        let path = match self.random.below(4) {
            0 => Some(self.present()).filter(|path| self.files.contains_key(path)),
            _ => None,
        };
        let path = path.unwrap_or_else(|| self.fifo_name());
        self.begin(format!("make FIFO {path}, {mode:o}"));
        let expected = self.parent_is_there(&path).and_then(|()| match self.is_taken(&path) {
            true => Err(libc::EEXIST),
            false => Ok(()),
        });
        let found = nix_outcome(nix::unistd::mkfifo(&self.own.join(&path), Mode::from_bits_truncate(mode)));
        self.agree_on_unit(expected, found);
        if expected.is_ok() {
            self.fifos.insert(path, mode & !0o022);
        }
    }

    /// Checks a FIFO: it passes bytes, no new file can take its name, and the other mount does not show it.
    pub fn use_a_fifo(&mut self) {
        let Some(path) = self.fifo() else { return self.make_a_fifo() };
        self.begin(format!("use FIFO {path}"));
        let full = self.own.join(&path);
        let found = OpenOptions::new().read(true).write(true).custom_flags(libc::O_NONBLOCK).open(&full);
        let found = outcome(found.and_then(|mut fifo| {
            fifo.write_all(path.as_bytes())?;
            let mut came = vec![0; path.len()];
            fifo.read_exact(&mut came).map(|()| came)
        }));
        // The mode may refuse other users, but never root.
        if nix::unistd::geteuid().is_root() {
            self.agree_on(&Ok(path.clone().into_bytes()), &found, |bytes| String::from_utf8_lossy(bytes).into_owned());
        }
        let made = outcome(OpenOptions::new().write(true).create_new(true).open(full).map(drop));
        self.agree_on_unit(Err(libc::EEXIST), made);
        let in_other = outcome(File::open(self.other.join(&path)).map(drop));
        self.agree_on_unit(Err(libc::ENOENT), in_other);
    }

    /// A file that was open before its name was deleted, renamed or created again can still be read.
    pub fn read_held(&mut self) {
        self.begin("read on in an open file".to_owned());
        if let Some((file, content)) = self.held.pop_front() {
            let (from, size) = (self.random.below(1_000_000), self.random.below(1_000_000));
            let found = outcome(read_at(&file, from, size));
            self.agree_on(&Ok(slice(&content, from, size).to_vec()), &found, |bytes| format!("{} bytes", bytes.len()));
        }
    }

    pub fn read_shared(&mut self) {
        let (at, name) = (self.random.below(2) as usize, self.random.pick(&SHARED));
        self.begin(format!("read shared {name}"));
        let found = outcome(std::fs::read(self.shared[at].join(name)));
        self.agree_on(&Ok(shared_content(name)), &found, |bytes| format!("{} bytes", bytes.len()));
    }

    /// At the end, both mounts must show exactly the model.
    pub fn compare_all(&mut self) {
        self.begin("compare all".to_owned());
        for in_other in [false, true] {
            DIRS.iter().for_each(|dir| self.compare_listing(dir, in_other));
            let base = if in_other { &self.other } else { &self.own };
            for (path, key) in &self.files {
                let found = outcome(std::fs::read(base.join(path)));
                self.agree_on(&Ok(key.content.clone()), &found, |bytes| format!("{} bytes of {path}", bytes.len()));
            }
        }
    }
}
