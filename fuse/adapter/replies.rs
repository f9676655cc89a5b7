//! Replies: errors, attributes and values, as the FUSE library wants them.

use crate::fs::{Attributes, OpenedFile};
use crate::specials::Kind;
use fuser::{
    Errno, FileAttr, FileType, FopenFlags, INodeNo, ReplyAttr, ReplyCreate, ReplyData, ReplyEmpty, ReplyEntry,
    ReplyOpen, ReplyStatfs, ReplyXattr,
};
use std::time::Duration;

/// How long the kernel may cache a name that exists, and its attributes. An absent name is never cached.
pub const FRESH: Duration = Duration::from_secs(1);
/// Bytes that tools read and write at a time: what one request of the kernel carries.
const BLOCK_SIZE: u32 = 1024 * 1024;

/// A reply that can be an error.
pub trait Refuse: Send + 'static {
    fn refuse(self, errno: Errno);
}

/// The library has the same method for all types, and no trait.
macro_rules! refuse {
    ($($reply:ty),*) => {$(
        impl Refuse for $reply {
            fn refuse(self, errno: Errno) {
                self.error(errno);
            }
        }
    )*};
}

refuse!(ReplyEntry, ReplyAttr, ReplyEmpty, ReplyOpen, ReplyCreate, ReplyData, ReplyStatfs, ReplyXattr);

pub fn to_fuse(errno: nix::errno::Errno) -> Errno {
    Errno::from_i32(errno as i32)
}

/// The owner of all files, and whether the kernel checks mode bits (`allow_other`).
#[derive(Clone, Copy)]
pub struct Ownership {
    pub uid: u32,
    pub gid: u32,
    pub kernel_checks_modes: bool,
}

impl Ownership {
    /// An empty key may be written once. If the kernel checks mode bits, they must permit it. Root needs no permission.
    fn mode(self, a: &Attributes) -> u32 {
        let may_be_written =
            self.kernel_checks_modes && self.uid != 0 && !a.is_dir && a.special.is_none() && a.size == 0;
        if may_be_written { a.mode | 0o200 } else { a.mode }
    }

    pub fn attr(self, a: &Attributes) -> FileAttr {
        FileAttr {
            ino: INodeNo(a.ino),
            size: a.size,
            blocks: a.blocks,
            atime: a.mtime,
            mtime: a.mtime,
            ctime: a.mtime,
            crtime: a.mtime,
            kind: file_type(a),
            perm: self.mode(a) as u16,
            nlink: if a.is_dir { 2 } else { u32::from(!a.unlinked) },
            uid: self.uid,
            gid: self.gid,
            rdev: 0,
            blksize: BLOCK_SIZE,
            flags: 0,
        }
    }
}

pub fn file_type(a: &Attributes) -> FileType {
    match a.special {
        Some(Kind::Fifo) => FileType::NamedPipe,
        Some(Kind::Socket) => FileType::Socket,
        None if a.is_dir => FileType::Directory,
        None => FileType::RegularFile,
    }
}

pub fn open_flags(opened: &OpenedFile) -> FopenFlags {
    match opened.direct {
        true => FopenFlags::FOPEN_DIRECT_IO,
        // The bytes of a key never change, so that cached pages stay right.
        false => FopenFlags::FOPEN_KEEP_CACHE,
    }
}

pub fn freshness(attributes: &Attributes) -> Duration {
    if attributes.stable { FRESH } else { Duration::ZERO }
}

/// A size of 0 asks for the length of the value.
pub fn answer_xattr(value: &[u8], size: u32, reply: ReplyXattr) {
    match size {
        0 => reply.size(value.len() as u32),
        size if (size as usize) < value.len() => reply.error(Errno::ERANGE),
        _ => reply.data(value),
    }
}
