//! Spreads directories over the block groups of ext4.
//!
//! Before ext4 allocates an inode, it skips those of the block group that were freed in the last minute
//! (`recently_deleted` in its source), one by one. Where maps create and delete thousands of files in one group, this
//! takes most of the time of creating a file. Directories in different groups divide that cost.

use nix::libc::c_long;
use std::fs::File;
use std::os::fd::AsRawFd;
use std::path::Path;

nix::ioctl_read!(get_flags, b'f', 1, c_long);
nix::ioctl_write_ptr!(set_flags, b'f', 2, c_long);
/// The flag of `chattr +T`: the directories in this one are unrelated.
const TOPDIR: c_long = 0x20000;

/// Makes ext4 place each new directory in `dir` into another block group. No effect on other file systems.
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
