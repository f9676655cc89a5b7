//! The requests of the kernel. Each is passed on to the operation of `fs` that implements it.

use super::dispatch::{Dispatcher, unless_killed};
use super::passthrough::Passthrough;
use super::replies::{Ownership, answer_xattr, file_type, freshness, open_flags, to_fuse};
use crate::control::path::CONTROL;
use crate::fs::{DirEntry, Fs, NewAttributes, WHY_ATTRIBUTE};
use crate::inodes::ROOT;
use crate::proc::Caller;
use bytes::Bytes;
use fuser::{
    BsdFileFlags, Errno, FileHandle, Filesystem, FopenFlags, Generation, INodeNo, InitFlags, KernelConfig, LockOwner,
    OpenFlags, RenameFlags, ReplyAttr, ReplyCreate, ReplyData, ReplyDirectory, ReplyDirectoryPlus, ReplyEmpty,
    ReplyEntry, ReplyOpen, ReplyStatfs, ReplyWrite, ReplyXattr, Request, TimeOrNow, WriteFlags,
};
use std::ffi::OsStr;
use std::os::fd::OwnedFd;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, SystemTime};
use tokio::runtime::Handle;

const MAX_WRITE: u32 = 1 << 20;
const MAX_READAHEAD: u32 = 1 << 20;
const MAX_BACKGROUND: u16 = 256;

/// A mounted file system.
pub struct Adapter {
    fs: Arc<Fs>,
    dispatcher: Dispatcher,
    passthrough: Passthrough,
    ownership: Ownership,
}

impl Adapter {
    /// `requests` is the connection to the kernel, once it is known.
    pub fn new(fs: Arc<Fs>, runtime: Handle, requests: Arc<OnceLock<OwnedFd>>, ownership: Ownership) -> Self {
        let passthrough = Passthrough::new(fs.passthrough.clone());
        Self { dispatcher: Dispatcher::new(fs.clone(), runtime, requests), fs, passthrough, ownership }
    }

    /// True for control files, unless the caller is the mounting user or root: `allow_other` does not open them.
    fn is_closed_to(&self, request: &Request, ino: INodeNo, child: Option<&OsStr>) -> bool {
        let is_own = !self.ownership.kernel_checks_modes || request.uid() == self.ownership.uid || request.uid() == 0;
        !is_own && ((ino.0 == ROOT && child.is_some_and(|name| name == CONTROL)) || self.fs.namespace.is_control(ino.0))
    }
}

impl Filesystem for Adapter {
    fn init(&mut self, _: &Request, config: &mut KernelConfig) -> std::io::Result<()> {
        let wanted = [
            InitFlags::FUSE_ATOMIC_O_TRUNC,
            // Always, not only when the kernel expects that attributes are used: `find` uses the entries only after it
            // has read the whole directory, and then each lookup would be a request to the cluster.
            InitFlags::FUSE_DO_READDIRPLUS,
            InitFlags::FUSE_PARALLEL_DIROPS,
            InitFlags::FUSE_HANDLE_KILLPRIV_V2,
            InitFlags::FUSE_ASYNC_READ,
            InitFlags::FUSE_BIG_WRITES,
            InitFlags::FUSE_MAX_PAGES,
            // Reading from the connection fails with ECONNABORTED if it was aborted, and with ENODEV after an unmount.
            InitFlags::FUSE_ABORT_ERROR,
        ];
        for capability in wanted {
            // Each only saves work: a kernel without it works too.
            let _ = config.add_capabilities(capability);
        }
        let deep =
            config.add_capabilities(InitFlags::FUSE_PASSTHROUGH).is_ok() && config.set_max_stack_depth(1).is_ok();
        self.passthrough.allow(deep);
        // The kernel returns the nearest value that it accepts.
        if let Err(nearest) = config.set_max_write(MAX_WRITE) {
            let _ = config.set_max_write(nearest);
        }
        if let Err(nearest) = config.set_max_readahead(MAX_READAHEAD) {
            let _ = config.set_max_readahead(nearest);
        }
        if let Err(nearest) = config.set_max_background(MAX_BACKGROUND) {
            let _ = config.set_max_background(nearest);
        }
        Ok(())
    }

    fn lookup(&self, request: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        if self.is_closed_to(request, parent, Some(name)) {
            return reply.error(Errno::EACCES);
        }
        let (name, ownership) = (name.to_owned(), self.ownership);
        self.dispatcher.answer(
            Some(request),
            reply,
            |fs| async move { fs.names.lookup(parent.0, &name).await },
            move |reply, found| reply.entry(&freshness(&found), &ownership.attr(&found), Generation(0)),
        );
    }

    fn forget(&self, _: &Request, ino: INodeNo, lookups: u64) {
        self.fs.namespace.inodes.forget(ino.0, lookups);
    }

    fn getattr(&self, request: &Request, ino: INodeNo, _: Option<FileHandle>, reply: ReplyAttr) {
        let ownership = self.ownership;
        self.dispatcher.answer(
            Some(request),
            reply,
            |fs| async move { fs.names.getattr(ino.0).await },
            move |reply, found| reply.attr(&freshness(&found), &ownership.attr(&found)),
        );
    }

    fn setattr(
        &self,
        request: &Request,
        ino: INodeNo,
        mode: Option<u32>,
        _: Option<u32>,
        _: Option<u32>,
        size: Option<u64>,
        _: Option<TimeOrNow>,
        mtime: Option<TimeOrNow>,
        _: Option<SystemTime>,
        _: Option<FileHandle>,
        _: Option<SystemTime>,
        _: Option<SystemTime>,
        _: Option<SystemTime>,
        _: Option<BsdFileFlags>,
        reply: ReplyAttr,
    ) {
        let mtime = mtime.map(|mtime| match mtime {
            TimeOrNow::SpecificTime(time) => time,
            TimeOrNow::Now => SystemTime::now(),
        });
        let ownership = self.ownership;
        self.dispatcher.answer(
            Some(request),
            reply,
            |fs| async move { fs.names.setattr(ino.0, NewAttributes { size, mode, mtime }).await },
            move |reply, found| reply.attr(&freshness(&found), &ownership.attr(&found)),
        );
    }

    fn mknod(&self, request: &Request, parent: INodeNo, name: &OsStr, mode: u32, _: u32, _: u32, reply: ReplyEntry) {
        let (name, ownership) = (name.to_owned(), self.ownership);
        self.dispatcher.answer(
            Some(request),
            reply,
            |fs| async move { fs.names.mknod(parent.0, &name, mode).await },
            move |reply, made| reply.entry(&freshness(&made), &ownership.attr(&made), Generation(0)),
        );
    }

    fn mkdir(&self, request: &Request, parent: INodeNo, name: &OsStr, mode: u32, umask: u32, reply: ReplyEntry) {
        let (name, ownership) = (name.to_owned(), self.ownership);
        self.dispatcher.answer(
            Some(request),
            reply,
            |fs| async move { fs.names.mkdir(parent.0, &name, mode & !umask).await },
            move |reply, made| reply.entry(&freshness(&made), &ownership.attr(&made), Generation(0)),
        );
    }

    fn unlink(&self, request: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        let name = name.to_owned();
        self.dispatcher.answer(
            Some(request),
            reply,
            |fs| async move { fs.names.unlink(parent.0, &name).await },
            |reply, ()| reply.ok(),
        );
    }

    fn rmdir(&self, request: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        let name = name.to_owned();
        self.dispatcher.answer(
            Some(request),
            reply,
            |fs| async move { fs.names.rmdir(parent.0, &name).await },
            |reply, ()| reply.ok(),
        );
    }

    fn rename(
        &self,
        request: &Request,
        parent: INodeNo,
        name: &OsStr,
        newparent: INodeNo,
        newname: &OsStr,
        flags: RenameFlags,
        reply: ReplyEmpty,
    ) {
        if flags.intersects(RenameFlags::RENAME_EXCHANGE | RenameFlags::RENAME_WHITEOUT) {
            return reply.error(Errno::EINVAL);
        }
        let (name, newname) = (name.to_owned(), newname.to_owned());
        self.dispatcher.answer(
            Some(request),
            reply,
            |fs| async move { fs.names.rename(parent.0, &name, newparent.0, &newname).await },
            |reply, ()| reply.ok(),
        );
    }

    fn open(&self, request: &Request, ino: INodeNo, given: OpenFlags, reply: ReplyOpen) {
        if self.is_closed_to(request, ino, None) {
            return reply.error(Errno::EACCES);
        }
        let (caller, passthrough) = (Caller { thread: request.pid() }, self.passthrough.clone());
        self.dispatcher.answer(
            Some(request),
            reply,
            |fs| async move { fs.files.open(ino.0, given.0, caller).await },
            move |reply, opened| {
                let handle = FileHandle(opened.handle);
                match passthrough.register(ino.0, opened.backing.as_ref(), given.0, &reply) {
                    Some(backing) => reply.opened_passthrough(handle, FopenFlags::empty(), &backing),
                    None => reply.opened(handle, open_flags(&opened)),
                }
            },
        );
    }

    fn create(
        &self,
        request: &Request,
        parent: INodeNo,
        name: &OsStr,
        mode: u32,
        umask: u32,
        flags_given: i32,
        reply: ReplyCreate,
    ) {
        if self.is_closed_to(request, parent, Some(name)) {
            return reply.error(Errno::EACCES);
        }
        let (name, ownership, caller) = (name.to_owned(), self.ownership, Caller { thread: request.pid() });
        let passthrough = self.passthrough.clone();
        self.dispatcher.answer(
            Some(request),
            reply,
            |fs| async move { fs.files.create(parent.0, &name, mode & !umask & 0o7777, flags_given, caller).await },
            move |reply, (created, opened)| {
                let (attr, handle) = (ownership.attr(&created), FileHandle(opened.handle));
                // Nothing is cached: the size changes, and a publish that fails takes the name away.
                let (never, generation) = (Duration::ZERO, Generation(0));
                match passthrough.register(created.ino, opened.backing.as_ref(), flags_given, &reply) {
                    Some(backing) => {
                        reply.created_passthrough(&never, &attr, generation, handle, FopenFlags::empty(), &backing);
                    }
                    None => reply.created(&never, &attr, generation, handle, open_flags(&opened)),
                }
            },
        );
    }

    fn read(
        &self,
        request: &Request,
        _: INodeNo,
        handle: FileHandle,
        offset: u64,
        size: u32,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyData,
    ) {
        let read = |fs: Arc<Fs>| async move { fs.files.read(handle.0, offset, size).await };
        let done = |reply: ReplyData, bytes: Bytes| reply.data(&bytes);
        match self.fs.files.may_wait_for_a_disk(handle.0) {
            true => self.dispatcher.answer_apart(Some(request), reply, read, done),
            false => self.dispatcher.answer(Some(request), reply, read, done),
        }
    }

    fn write(
        &self,
        _: &Request,
        _: INodeNo,
        handle: FileHandle,
        offset: u64,
        data: &[u8],
        _: WriteFlags,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyWrite,
    ) {
        match self.fs.files.write(handle.0, offset, data) {
            Ok(()) => reply.written(data.len() as u32),
            Err(errno) => reply.error(to_fuse(errno)),
        }
    }

    fn flush(&self, request: &Request, ino: INodeNo, handle: FileHandle, _: LockOwner, reply: ReplyEmpty) {
        let caller = Caller { thread: request.pid() };
        self.dispatcher.answer(
            None,
            reply,
            |fs| async move { fs.files.flush(ino.0, handle.0, caller).await },
            |reply, ()| reply.ok(),
        );
    }

    fn release(
        &self,
        _: &Request,
        ino: INodeNo,
        handle: FileHandle,
        _: OpenFlags,
        _: Option<LockOwner>,
        _: bool,
        reply: ReplyEmpty,
    ) {
        // Before the reply: after it, the kernel may open the inode with another file.
        self.passthrough.release(ino.0);
        self.dispatcher.answer(
            None,
            reply,
            |fs| async move {
                fs.files.release(ino.0, handle.0).await;
                Ok(())
            },
            |reply, ()| reply.ok(),
        );
    }

    fn fsync(&self, request: &Request, _: INodeNo, handle: FileHandle, _: bool, reply: ReplyEmpty) {
        self.dispatcher.answer_apart(
            Some(request),
            reply,
            |fs| async move { fs.files.fsync(handle.0).await },
            |reply, ()| reply.ok(),
        );
    }

    fn opendir(&self, request: &Request, ino: INodeNo, _: OpenFlags, reply: ReplyOpen) {
        if self.is_closed_to(request, ino, None) {
            return reply.error(Errno::EACCES);
        }
        self.dispatcher.answer(
            Some(request),
            reply,
            |fs| async move { fs.dirs.opendir(ino.0).await },
            |reply, handle| reply.opened(FileHandle(handle), FopenFlags::empty()),
        );
    }

    fn readdir(&self, request: &Request, ino: INodeNo, handle: FileHandle, offset: u64, mut reply: ReplyDirectory) {
        let (fs, caller) = (self.fs.clone(), Caller { thread: request.pid() });
        self.dispatcher.spawn(async move {
            let mut take = |entry: DirEntry| {
                !reply.add(INodeNo(entry.attributes.ino), entry.next, file_type(&entry.attributes), &entry.name)
            };
            match unless_killed(Some(caller), fs.dirs.readdir(ino.0, handle.0, offset, &mut take)).await {
                Ok(()) => reply.ok(),
                Err(errno) => reply.error(to_fuse(errno)),
            }
        });
    }

    fn readdirplus(
        &self,
        request: &Request,
        ino: INodeNo,
        handle: FileHandle,
        offset: u64,
        mut reply: ReplyDirectoryPlus,
    ) {
        let (fs, ownership, caller) = (self.fs.clone(), self.ownership, Caller { thread: request.pid() });
        self.dispatcher.spawn(async move {
            let mut entered = Vec::new();
            let mut take = |mut entry: DirEntry| {
                let dots = entry.name == "." || entry.name == "..";
                if !dots {
                    entry.attributes.ino = fs.namespace.inodes.enter(entry.node);
                }
                let (ino, fresh, attr) =
                    (entry.attributes.ino, freshness(&entry.attributes), ownership.attr(&entry.attributes));
                let full = reply.add(INodeNo(ino), entry.next, &entry.name, &fresh, &attr, Generation(0));
                match (dots, full) {
                    (true, _) => {}
                    // The kernel does not receive an entry that did not fit.
                    (false, true) => fs.namespace.inodes.forget(ino, 1),
                    (false, false) => entered.push(ino),
                }
                !full
            };
            match unless_killed(Some(caller), fs.dirs.readdir(ino.0, handle.0, offset, &mut take)).await {
                Ok(()) => reply.ok(),
                Err(errno) => {
                    // The kernel receives none of the entries.
                    entered.into_iter().for_each(|ino| fs.namespace.inodes.forget(ino, 1));
                    reply.error(to_fuse(errno));
                }
            }
        });
    }

    fn fallocate(
        &self,
        _: &Request,
        _: INodeNo,
        handle: FileHandle,
        offset: u64,
        length: u64,
        mode: i32,
        reply: ReplyEmpty,
    ) {
        match self.fs.files.allocate(handle.0, offset, length, mode) {
            Ok(()) => reply.ok(),
            Err(errno) => reply.error(to_fuse(errno)),
        }
    }

    fn releasedir(&self, _: &Request, _: INodeNo, handle: FileHandle, _: OpenFlags, reply: ReplyEmpty) {
        self.fs.dirs.releasedir(handle.0);
        reply.ok();
    }

    fn fsyncdir(&self, _: &Request, _: INodeNo, _: FileHandle, _: bool, reply: ReplyEmpty) {
        reply.ok();
    }

    fn statfs(&self, request: &Request, _: INodeNo, reply: ReplyStatfs) {
        self.dispatcher.answer(
            Some(request),
            reply,
            |fs| async move { fs.space.get().await },
            |reply, space| {
                let (total, free) = (space.total / 4096, space.free / 4096);
                reply.statfs(total, free, free, 0, 0, 4096, 255, 4096);
            },
        );
    }

    fn setxattr(&self, _: &Request, _: INodeNo, _: &OsStr, _: &[u8], _: i32, _: u32, reply: ReplyEmpty) {
        reply.error(Errno::ENOTSUP);
    }

    fn removexattr(&self, _: &Request, _: INodeNo, _: &OsStr, reply: ReplyEmpty) {
        reply.error(Errno::ENOTSUP);
    }

    fn getxattr(&self, request: &Request, ino: INodeNo, name: &OsStr, size: u32, reply: ReplyXattr) {
        if name == WHY_ATTRIBUTE {
            return self.dispatcher.answer(
                Some(request),
                reply,
                |fs| async move { fs.names.why(ino.0).await },
                move |reply, value| answer_xattr(&value, size, reply),
            );
        }
        match self.fs.namespace.xattr(ino.0, name) {
            Ok(Some(value)) => answer_xattr(&value, size, reply),
            Ok(None) => reply.error(Errno::NO_XATTR),
            Err(errno) => reply.error(to_fuse(errno)),
        }
    }

    /// The attributes of s4 are not listed: `rsync -X` and `cp -a` would copy them, and setting them fails.
    fn listxattr(&self, _: &Request, _: INodeNo, size: u32, reply: ReplyXattr) {
        answer_xattr(b"", size, reply);
    }

    fn access(&self, request: &Request, ino: INodeNo, mask: fuser::AccessFlags, reply: ReplyEmpty) {
        let ownership = self.ownership;
        self.dispatcher.answer(
            Some(request),
            reply,
            |fs| async move {
                let found = fs.names.getattr(ino.0).await?;
                let executes = mask.contains(fuser::AccessFlags::X_OK) && !found.is_dir;
                match executes && ownership.attr(&found).perm & 0o111 == 0 {
                    true => Err(nix::errno::Errno::EACCES),
                    false => Ok(()),
                }
            },
            |reply, ()| reply.ok(),
        );
    }
}
