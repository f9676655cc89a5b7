//! What stat(2) returns.

use crate::inodes::{Ino, Node};
use crate::specials::Kind;
use s4::time::from_nanoseconds;
use std::io::Result;
use std::time::SystemTime;

#[derive(Debug, Clone, Copy)]
pub struct Attributes {
    pub ino: Ino,
    pub is_dir: bool,
    /// Set if it is neither a directory nor a regular file.
    pub special: Option<Kind>,
    pub size: u64,
    /// In units of 512 bytes.
    pub blocks: u64,
    pub mtime: SystemTime,
    pub mode: u32,
    /// The file has no name any more: its link count is 0.
    pub unlinked: bool,
    /// False if the kernel must not cache them, since they change without its knowledge.
    pub stable: bool,
}

/// The attributes of `node`. The root has the time `mounted`. Errors: the file of a spool cannot be looked at.
pub fn attributes(node: &Node, ino: Ino, unlinked: bool, mounted: SystemTime) -> Result<Attributes> {
    let dir = Attributes {
        ino,
        is_dir: true,
        special: None,
        size: 4096,
        blocks: 8,
        mtime: mounted,
        mode: 0o755,
        unlinked: false,
        stable: true,
    };
    let file = Attributes { is_dir: false, size: 0, blocks: 0, unlinked, ..dir };
    Ok(match node {
        Node::Dir(path, _) if path.is_empty() => dir,
        Node::Dir(_, stat) => Attributes { mtime: from_nanoseconds(stat.mtime), mode: stat.mode, ..dir },
        Node::Key(_, stat) => Attributes {
            size: stat.checksum.len,
            blocks: stat.checksum.len.div_ceil(512),
            mtime: from_nanoseconds(stat.mtime),
            mode: stat.mode,
            ..file
        },
        Node::Spool(spool) => {
            let (size, blocks, mtime) = spool.attributes()?;
            Attributes { size, blocks, mtime, mode: spool.mode(), stable: false, ..file }
        }
        Node::Special(special) => {
            let (mode, mtime) = special.attributes();
            Attributes { special: Some(special.kind), mtime, mode, ..file }
        }
        Node::Control(path) if path.is_dir() => Attributes { mode: 0o700, ..dir },
        Node::Control(_) => {
            Attributes { mtime: SystemTime::now(), mode: 0o600, unlinked: false, stable: false, ..file }
        }
    })
}
