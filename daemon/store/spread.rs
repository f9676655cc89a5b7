//! Files far from each other on ext4.
//!
//! Before ext4 hands out an inode it looks at each one of the block group that was freed in the last minute
//! (`recently_deleted` in its source). Where outputs of maps are made and deleted by the thousand, all in one group, that
//! becomes most of the time of making a file. Directories in groups of their own share it out.

use nix::libc::c_long;
use std::fs::File;
use std::os::fd::AsRawFd;
use std::path::Path;

nix::ioctl_read!(get_flags, b'f', 1, c_long);
nix::ioctl_write_ptr!(set_flags, b'f', 2, c_long);
/// As `chattr +T` sets it: the directories in this one are unrelated.
const TOPDIR: c_long = 0x20000;

/// Has ext4 put each directory that is made in `dir` into another block group. Other file systems need no such thing.
pub fn spread(dir: &Path) {
    let Ok(dir) = File::open(dir) else {
        return;
    };
    let mut flags = 0;
    // SAFETY: the descriptor is open, and the kernel reads and writes one integer.
    unsafe {
        if get_flags(dir.as_raw_fd(), &mut flags).is_ok() {
            let _ = set_flags(dir.as_raw_fd(), &(flags | TOPDIR));
        }
    }
}
