//! Files that other processes may have made or may have open: open them without blocking, read at a position, replace a
//! small file atomically, lock, and find out whether somebody can still write to them.

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, fcntl};
use std::borrow::Borrow;
use std::ffi::OsString;
use std::fs::{File, OpenOptions};
use std::io::{Read, Write};
use std::os::fd::AsRawFd;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;
use std::time::{Duration, Instant};

/// Bytes read from a file at a time.
pub const BLOCK: usize = 256 * 1024;

/// Opens a regular file with `options`. Never follows a link in the last part of the path, and never waits for the
/// other end of a pipe. Errors: anything that is no regular file.
pub fn open_regular(path: &Path, options: &mut OpenOptions) -> std::io::Result<File> {
    let file = match options.custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK | libc::O_NOCTTY).open(path) {
        // A link, or a pipe or socket that was to be opened for writing.
        Err(e) if matches!(e.raw_os_error(), Some(libc::ELOOP | libc::ENXIO)) => return Err(not_regular()),
        opened => opened?,
    };
    match file.metadata()?.is_file() {
        true => Ok(file),
        false => Err(not_regular()),
    }
}

/// Like [`open_regular`], for reading only.
pub fn open_to_read(path: &Path) -> std::io::Result<File> {
    open_regular(path, OpenOptions::new().read(true))
}

/// All bytes of a small regular file. Errors: more than `most` bytes; those of [`open_regular`].
pub fn read_small(path: &Path, most: usize) -> std::io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    open_to_read(path)?.take(most as u64 + 1).read_to_end(&mut bytes)?;
    match bytes.len() <= most {
        true => Ok(bytes),
        false => Err(std::io::Error::other(format!("is longer than {most} bytes"))),
    }
}

/// Creates or replaces a small file atomically: after a crash the name has the old content or the new one. With `sync`,
/// that also holds after a power cut, and the content is on the disk when this returns. Blocks.
pub fn replace(path: &Path, content: &[u8], sync: bool) -> std::io::Result<()> {
    let mut draft = OsString::from(path);
    draft.push(".new");
    let draft = Path::new(&draft);
    // A killed process may have left anything under this name.
    match std::fs::remove_file(draft) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => return Err(e),
        _ => {}
    }
    let mut file = open_regular(draft, OpenOptions::new().write(true).create_new(true))?;
    file.write_all(content)?;
    if sync {
        file.sync_all()?;
    }
    std::fs::rename(draft, path)?;
    match path.parent() {
        Some(dir) if sync => File::open(dir)?.sync_all(),
        _ => Ok(()),
    }
}

/// Creates or replaces a small file atomically, and returns when it is on the disk: a power cut leaves the old content
/// or the new one. Blocks.
pub fn write_durably(path: &Path, content: &[u8]) -> std::io::Result<()> {
    replace(path, content, true)
}

/// Makes a directory, if it is not there. Its parent must exist: nothing is made in place of a disk that was taken away.
pub fn make_dir(dir: &Path) -> std::io::Result<()> {
    match std::fs::create_dir(dir) {
        Err(e) if e.kind() == std::io::ErrorKind::AlreadyExists && dir.is_dir() => Ok(()),
        made => made,
    }
}

fn not_regular() -> std::io::Error {
    std::io::Error::other("is not a regular file")
}

/// Reads into `block` from offset `at` until it is full or the file ends; returns the number of bytes. Blocks.
pub fn read_full(file: &File, block: &mut [u8], at: u64) -> std::io::Result<usize> {
    let mut filled = 0;
    while filled < block.len() {
        match file.read_at(&mut block[filled..], at + filled as u64) {
            Ok(0) => break,
            Ok(n) => filled += n,
            Err(e) if e.kind() == std::io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
    Ok(filled)
}

/// Reads a file from a separate position, without moving the position of the descriptor.
pub struct AtPosition<F> {
    file: F,
    position: u64,
}

impl<F: Borrow<File>> AtPosition<F> {
    pub fn new(file: F, position: u64) -> Self {
        Self { file, position }
    }
}

impl<F: Borrow<File>> std::io::Read for AtPosition<F> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let n = self.file.borrow().read_at(buffer, self.position)?;
        self.position += n as u64;
        Ok(n)
    }
}

/// Opens the same file again, for reading only.
pub fn reopen_to_read(file: &File) -> std::io::Result<File> {
    File::open(format!("/proc/self/fd/{}", file.as_raw_fd()))
}

/// True if another process still has `file` open for writing after `wait`. `file` must be open for reading only. False
/// if the file system has no leases. Blocks.
pub fn is_written(file: &File, wait: Duration) -> bool {
    let (began, mut pause) = (Instant::now(), Duration::from_micros(50));
    while has_writer(file) {
        if began.elapsed() >= wait {
            return true;
        }
        // A child that is just being started has copies of all descriptors until its execve.
        std::thread::sleep(pause);
        pause = (pause * 2).min(Duration::from_millis(20));
    }
    false
}

/// The value on Linux; the library does not have it.
const F_SETSIG: libc::c_int = 10;

/// True if a process has the file open for writing: then the kernel refuses a read lease.
fn has_writer(file: &File) -> bool {
    is_leased(file, libc::F_RDLCK) == Ok(false)
}

/// True if nobody else has `file` open or mapped. `file` must be open for writing. A mapping matters where the kernel
/// writes the file itself: it outlives the close. Errors: the file system has no leases.
pub fn is_alone(file: &File) -> Result<bool, Errno> {
    is_leased(file, libc::F_WRLCK)
}

/// True if the kernel grants a lease of this kind. The lease is released at once. See fcntl(2), `F_SETLEASE`.
fn is_leased(file: &File, kind: libc::c_int) -> Result<bool, Errno> {
    let set = |command: libc::c_int, value: libc::c_int| {
        // SAFETY: the descriptor is open, and the calls take three integers.
        Errno::result(unsafe { libc::fcntl(file.as_raw_fd(), command, value) })
    };
    // If another process opens the file meanwhile, the kernel sends a signal to this process: SIGURG, which is ignored,
    // instead of SIGIO, which kills.
    match set(F_SETSIG, libc::SIGURG).and_then(|_| set(libc::F_SETLEASE, kind)) {
        Ok(_) => set(libc::F_SETLEASE, libc::F_UNLCK).map(|_| true),
        Err(Errno::EAGAIN | Errno::EBUSY) => Ok(false),
        Err(errno) => Err(errno),
    }
}

/// Locks `file` until it and all its duplicates are closed; false if it is locked already. The lock belongs to the open
/// file description, not to the process: opening and closing the file elsewhere in the process does not release it. A
/// child holds it too until its execve.
pub fn lock(file: &File) -> std::io::Result<bool> {
    match fcntl(file, FcntlArg::F_OFD_SETLK(&whole_file())) {
        Ok(_) => Ok(true),
        Err(Errno::EAGAIN | Errno::EACCES) => Ok(false),
        Err(errno) => Err(errno.into()),
    }
}

/// The process that has locked `file`. It has written its id into the file.
pub fn lock_holder(file: &File) -> std::io::Result<Option<i32>> {
    let mut asked = whole_file();
    fcntl(file, FcntlArg::F_OFD_GETLK(&mut asked))?;
    if i32::from(asked.l_type) == libc::F_UNLCK {
        return Ok(None);
    }
    let mut number = [0; 32];
    let len = read_full(file, &mut number, 0)?;
    Ok(std::str::from_utf8(&number[..len]).ok().and_then(|text| text.trim().parse().ok()))
}

fn whole_file() -> libc::flock {
    let (l_type, l_whence) = (libc::F_WRLCK as libc::c_short, libc::SEEK_SET as libc::c_short);
    libc::flock { l_type, l_whence, l_start: 0, l_len: 0, l_pid: 0 }
}

#[cfg(test)]
mod tests {
    use super::*;
    use nix::sys::stat::Mode;
    use nix::unistd::mkfifo;

    #[test]
    fn only_regular_files_are_opened_and_opening_never_blocks() {
        let dir = tempfile::tempdir().unwrap();
        let (plain, fifo, link) = (dir.path().join("plain"), dir.path().join("fifo"), dir.path().join("link"));
        std::fs::write(&plain, "12345").unwrap();
        mkfifo(&fifo, Mode::S_IRWXU).unwrap();
        std::os::unix::fs::symlink(&plain, &link).unwrap();
        for path in [fifo.as_path(), &link, dir.path()] {
            let read = open_to_read(path).unwrap_err().to_string();
            assert_eq!(read, "is not a regular file", "{}", path.display());
            assert!(open_regular(path, OpenOptions::new().append(true).create(true)).is_err(), "{}", path.display());
        }
        assert_eq!(read_small(&plain, 5).unwrap(), b"12345");
        assert!(read_small(&plain, 4).is_err());
    }

    #[test]
    fn an_open_writer_is_detected() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        let writer = File::create(&path).unwrap();
        let (reader, again) = (File::open(&path).unwrap(), reopen_to_read(&writer).unwrap());
        let is_written = || [is_written(&reader, Duration::ZERO), is_written(&again, Duration::ZERO)];
        assert_eq!(is_written(), [true, true]);
        drop(writer);
        assert_eq!(is_written(), [false, false]);
        let writer = OpenOptions::new().append(true).open(&path).unwrap();
        assert_eq!(is_written(), [true, true]);
        drop(writer);
        assert_eq!(is_written(), [false, false]);
        drop((reader, again));
        let writer = OpenOptions::new().append(true).open(&path).unwrap();
        assert_eq!(is_alone(&writer), Ok(true));
        let reader = File::open(&path).unwrap();
        assert_eq!(is_alone(&writer), Ok(false));
        drop(reader);
        assert_eq!(is_alone(&writer), Ok(true));
    }

    #[test]
    fn a_file_is_replaced_whatever_was_there() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("state");
        for content in ["first", "second"] {
            write_durably(&path, content.as_bytes()).unwrap();
            assert_eq!(std::fs::read_to_string(&path).unwrap(), content);
        }
        mkfifo(&dir.path().join("state.new"), Mode::S_IRWXU).unwrap();
        std::fs::remove_file(&path).unwrap();
        mkfifo(&path, Mode::S_IRWXU).unwrap();
        write_durably(&path, b"third").unwrap();
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "third");
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1, "no draft is left");
    }
}
