//! The answer to a request that makes a file. The kernel may believe for a while what the file looks like, but not that its name
//! means it: once it is published, that means a key. The library gives both the same time, so the message is made here; without
//! it, each caller that looks at what it has opened, as most do, would ask once more.

use super::passthrough::Passthrough;
use super::replies::{FRESH, open_flags, to_fuse};
use crate::fs::OpenedFile;
use fuser::{FileAttr, FileHandle, FopenFlags, Generation, ReplyCreate, RequestId};
use nix::errno::Errno;
use nix::libc::S_IFREG;
use std::os::fd::BorrowedFd;
use std::time::{Duration, UNIX_EPOCH};

/// Answers `request`, by the connection `device` where it is known: a file was made, and opened with these flags of open(2).
pub fn answer(
    reply: ReplyCreate,
    device: Option<BorrowedFd>,
    request: RequestId,
    passthrough: &Passthrough,
    flags_given: i32,
    attr: &FileAttr,
    opened: &OpenedFile,
) {
    let backing = passthrough.register(attr.ino.0, opened.backing.as_ref(), flags_given, &reply);
    let (handle, never) = (FileHandle(opened.handle), Duration::ZERO);
    match (device, backing) {
        (Some(device), Some((_, number))) => {
            let flags = FopenFlags::FOPEN_PASSTHROUGH;
            Created { request, attr, handle, flags, backing: number }.send(device, reply);
        }
        (Some(device), None) if !opened.direct => {
            Created { request, attr, handle, flags: open_flags(opened), backing: 0 }.send(device, reply);
        }
        (None, Some((backing, _))) => {
            reply.created_passthrough(&never, attr, Generation(0), handle, FopenFlags::empty(), &backing);
        }
        (_, None) => reply.created(&never, attr, Generation(0), handle, open_flags(opened)),
    }
}

struct Created<'a> {
    request: RequestId,
    attr: &'a FileAttr,
    handle: FileHandle,
    flags: FopenFlags,
    /// The number of a file that the kernel reads and writes itself; 0 for none.
    backing: u32,
}

impl Created<'_> {
    fn send(&self, device: BorrowedFd, reply: ReplyCreate) {
        match nix::unistd::write(device, &self.message()) {
            // Also of a request that nobody waits for any more. The library need not know, and would answer with an error.
            Ok(_) | Err(Errno::ENOENT) => std::mem::forget(reply),
            Err(errno) => {
                tracing::warn!("a file was made, but the kernel cannot be told: {errno}");
                reply.error(to_fuse(errno));
            }
        }
    }

    /// A `fuse_out_header`, a `fuse_entry_out` and a `fuse_open_out`, as in the kernel's `linux/fuse.h`.
    fn message(&self) -> Vec<u8> {
        let attr = self.attr;
        // A new file's time is now.
        let since = attr.mtime.duration_since(UNIX_EPOCH).unwrap_or_default();
        let (seconds, nanoseconds) = (since.as_secs(), since.subsec_nanos());
        let long = |values: &[u64]| values.iter().flat_map(|value| value.to_ne_bytes()).collect::<Vec<u8>>();
        let short = |values: &[u32]| values.iter().flat_map(|value| value.to_ne_bytes()).collect::<Vec<u8>>();
        let body = [
            // The inode, its generation, and for how long the name and the attributes hold.
            long(&[attr.ino.0, 0, 0, FRESH.as_secs()]),
            short(&[0, FRESH.subsec_nanos()]),
            long(&[attr.ino.0, attr.size, attr.blocks, seconds, seconds, seconds]),
            short(&[nanoseconds, nanoseconds, nanoseconds, S_IFREG | u32::from(attr.perm), attr.nlink]),
            short(&[attr.uid, attr.gid, attr.rdev, attr.blksize, 0]),
            long(&[self.handle.0]),
            short(&[self.flags.bits(), self.backing]),
        ]
        .concat();
        // Its length with this header, no error, and whose answer it is.
        let header = [short(&[16 + body.len() as u32, 0]), long(&[self.request.0])].concat();
        [header, body].concat()
    }
}
