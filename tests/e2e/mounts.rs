//! Disks for tests: file systems that a test mounts, fills, freezes or damages, where the machine permits it.

use crate::harness::eventually;
use std::fs::File;
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

/// A mounted file system. A drop unmounts it. Declare it before the cluster that uses it, so that it is dropped later.
pub struct Mounted {
    dir: tempfile::TempDir,
}

impl Mounted {
    /// An ext4 of `size` bytes in a file. `None`, with the reason on stderr, if that is not permitted.
    pub fn ext4(size: u64) -> Option<Self> {
        let dir = Self::dir();
        let image = dir.path().join("image");
        std::fs::File::create(&image).unwrap().set_len(size).unwrap();
        run(Command::new("mkfs.ext4").args(["-q", "-F", "-m", "0", "-I", "256"]).arg(&image))?;
        Self::mount(dir, &["-o", "loop"], &image)
    }

    /// Like [`Mounted::ext4`], on a disk that can be made [full](Mounted::fill_disk).
    pub fn ext4_that_fills(size: u64) -> Option<Self> {
        let dir = Self::dir();
        let disk = dir.path().join("disk");
        std::fs::create_dir(&disk).unwrap();
        let room = format!("size={}", size + (1 << 20));
        run(Command::new("mount").args(["-t", "tmpfs", "-o", &room, "none"]).arg(&disk))?;
        let image = disk.join("image");
        run(Command::new("fallocate").args(["--length", &size.to_string()]).arg(&image))?;
        run(Command::new("mkfs.ext4").args(["-q", "-F", "-m", "0", "-I", "256", "-E", "nodiscard"]).arg(&image))?;
        // mkfs may have made holes, also in the journal. Allocate them again.
        run(Command::new("fallocate").args(["--length", &size.to_string()]).arg(&image))?;
        Self::mount(dir, &["-o", "loop"], &image)
    }

    /// From now on the disk refuses the bytes of new files, until [`Mounted::empty_disk`].
    pub fn fill_disk(&self) {
        self.sync();
        let image = self.dir.path().join("disk/image");
        let report = Command::new("dumpe2fs").arg(&image).output().unwrap();
        let report = String::from_utf8_lossy(&report.stdout).into_owned();
        let size = |name: &str| {
            report.lines().find_map(|line| line.strip_prefix(name)).unwrap().trim().parse::<u64>().unwrap()
        };
        let block = size("Block size:");
        // Free blocks of the file system lose their blocks of the disk.
        for range in
            report.lines().filter_map(|line| line.strip_prefix("  Free blocks: ")).flat_map(|list| list.split(", "))
        {
            let Some((first, last)) = range.split_once('-').or(Some((range, range)).filter(|_| !range.is_empty()))
            else {
                continue;
            };
            let (first, last): (u64, u64) = (first.parse().unwrap(), last.parse().unwrap());
            let range = [(first * block).to_string(), ((last - first + 1) * block).to_string()];
            let mut punch = Command::new("fallocate");
            run(punch.args(["--punch-hole", "--offset", &range[0], "--length", &range[1]]).arg(&image))
                .expect("punched");
        }
        let filler = File::create(self.dir.path().join("disk/filler")).unwrap();
        let full = std::io::copy(&mut std::io::repeat(7), &mut &filler).unwrap_err();
        assert_eq!(full.kind(), std::io::ErrorKind::StorageFull);
    }

    pub fn empty_disk(&self) {
        std::fs::remove_file(self.dir.path().join("disk/filler")).unwrap();
    }

    /// A file system without extended attributes.
    pub fn ramfs() -> Option<Self> {
        Self::mount(Self::dir(), &["-t", "ramfs"], Path::new("none"))
    }

    /// The control file system of the kernel for FUSE connections.
    pub fn fusectl() -> Option<Self> {
        Self::mount(Self::dir(), &["-t", "fusectl"], Path::new("none"))
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join("at").join(name)
    }

    fn dir() -> tempfile::TempDir {
        let dir = tempfile::Builder::new().prefix("s4-mount-").tempdir().unwrap();
        std::fs::create_dir(dir.path().join("at")).unwrap();
        dir
    }

    fn mount(dir: tempfile::TempDir, options: &[&str], what: &Path) -> Option<Self> {
        run(Command::new("mount").args(options).arg(what).arg(dir.path().join("at")))?;
        Some(Self { dir })
    }

    /// A directory in the file system.
    pub fn data(&self) -> PathBuf {
        self.dir.path().join("at/data")
    }

    /// Writes new names to the disk, as the kernel does every few seconds, but not the bytes of their files.
    pub fn commit_names(&self) {
        File::create(self.path("other")).and_then(|file| file.sync_all()).unwrap();
    }

    /// Writes everything to the disk.
    pub fn sync(&self) {
        self.try_sync().unwrap();
    }

    pub fn try_sync(&self) -> nix::Result<()> {
        nix::unistd::syncfs(File::open(self.path("")).unwrap())
    }

    /// Cuts the power of the disk: everything that is only in memory is lost, and nothing can be read or written.
    pub fn cut_power(&self) {
        nix::ioctl_read!(shut_down, b'X', 125, u32);
        /// Not even the last part of the journal is written.
        const NOLOGFLUSH: u32 = 2;
        let disk = File::open(self.path("")).unwrap();
        let mut flags = NOLOGFLUSH;
        // SAFETY: the descriptor is open, and the kernel reads one integer.
        unsafe { shut_down(disk.as_raw_fd(), &mut flags) }.expect("ext4 can be shut down");
    }

    /// Mounts the disk again, as after a boot. No process may have a file on it open.
    pub fn boot(&self) {
        let at = self.path("");
        eventually("the disk is unmounted", || run(Command::new("umount").arg(&at)));
        // A copy of the image is mounted: a namespace that another test has created meanwhile may keep the old mount
        // alive.
        let (old, image) = (self.dir.path().join("image"), self.dir.path().join("image.new"));
        run(Command::new("cp").arg("--sparse=always").args([&old, &image])).expect("copied");
        std::fs::rename(&image, &old).unwrap();
        run(Command::new("mount").args(["-o", "loop"]).arg(old).arg(at)).expect("mounted as before");
    }

    /// Blocks all writers until the returned guard is dropped.
    pub fn freeze(&self) -> Frozen {
        run(Command::new("fsfreeze").arg("--freeze").arg(self.path(""))).expect("ext4 can be frozen");
        Frozen(self.path(""))
    }

    pub fn make_read_only(&self) {
        run(Command::new("mount").args(["-o", "remount,errors=remount-ro"]).arg(self.path(""))).expect("remounted");
        let source = Command::new("findmnt").args(["-no", "SOURCE"]).arg(self.path("")).output().unwrap();
        let device = String::from_utf8(source.stdout).unwrap().trim().replace("/dev/", "");
        // The file system becomes read-only as after an error of the disk.
        std::fs::write(format!("/sys/fs/ext4/{device}/trigger_fs_error"), "1").unwrap();
    }

    /// Makes reads of `file` from byte `offset` on fail, and reads of everything behind that on the disk.
    pub fn lose_end_of(&self, file: &Path, offset: u64) {
        nix::ioctl_read_bad!(physical_block, 1, i32);
        let disk = nix::sys::statvfs::statvfs(&self.path("")).unwrap();
        let file = File::open(file).unwrap();
        nix::unistd::syncfs(&file).unwrap();
        let mut block = (offset / disk.block_size()) as i32;
        // SAFETY: the descriptor is open, and the kernel reads and writes one integer.
        unsafe { physical_block(file.as_raw_fd(), &mut block) }.expect("root may ask");
        let image = File::options().write(true).open(self.dir.path().join("image")).unwrap();
        image.set_len(block as u64 * disk.block_size()).unwrap();
        // Drops the page cache, from which the file could still be read.
        nix::fcntl::posix_fadvise(&file, 0, 0, nix::fcntl::PosixFadviseAdvice::POSIX_FADV_DONTNEED).unwrap();
    }

    pub fn free_bytes(&self) -> u64 {
        let stat = nix::sys::statvfs::statvfs(&self.dir.path().join("at")).unwrap();
        stat.blocks_available() as u64 * stat.fragment_size() as u64
    }
}

/// A guard that blocks the writers of a disk.
pub struct Frozen(PathBuf);

impl Drop for Frozen {
    fn drop(&mut self) {
        let _ = Command::new("fsfreeze").arg("--unfreeze").arg(&self.0).status();
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        // A lazy unmount succeeds even if a dying process still uses the disk.
        let _ = Command::new("umount").arg("-l").arg(self.dir.path().join("at")).status();
        let disk = self.dir.path().join("disk");
        if disk.exists() {
            let _ = Command::new("umount").arg("-l").arg(disk).status();
        }
    }
}

fn run(command: &mut Command) -> Option<()> {
    let reason = match command.output() {
        Ok(Output { status, .. }) if status.success() => return Some(()),
        Ok(output) => String::from_utf8_lossy(&output.stderr).trim().to_owned(),
        Err(error) => error.to_string(),
    };
    eprintln!("skipped: {}: {reason}", command.get_program().display());
    None
}
