//! Creates the mount. If it has the privilege, the program calls mount(2) itself. Then every user sees our file system
//! type, and the directory is not accessed: it may be an automount whose daemon waits for us, so that an access would
//! block.

use super::filesystem::Adapter;
use super::replies::Ownership;
use crate::fs::Fs;
use crate::options::MountOptions;
use fuser::{Config, MountOption, Session, SessionACL};
use nix::errno::Errno;
use nix::libc::S_IFDIR;
use nix::mount::{MntFlags, MsFlags, umount2};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::unistd::{getegid, geteuid};
use std::fs::File;
use std::io::Result;
use std::mem::ManuallyDrop;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::Path;
use std::sync::{Arc, OnceLock};
use tokio::runtime::Handle;

/// Threads that take requests from the kernel. One is faster: with two, each request wakes the thread that has slept
/// longer. One is enough for root, since no request waits on it. For other users the kernel cannot write files itself,
/// and these threads also write the bytes of files.
fn threads() -> usize {
    if geteuid().is_root() { 1 } else { 2 }
}

/// A mount that is served. The session is never dropped: the library would unmount whatever is mounted on the directory
/// by then.
pub struct Mounted {
    session: ManuallyDrop<fuser::BackgroundSession>,
    requests: OwnedFd,
}

impl Mounted {
    /// True once no more requests come, since the mount is gone.
    pub fn has_ended(&self) -> bool {
        self.session.guard.is_finished()
    }

    /// False once the kernel has closed the connection.
    pub fn is_connected(&self) -> bool {
        let mut asked = [PollFd::new(self.requests.as_fd(), PollFlags::empty())];
        !matches!(poll(&mut asked, PollTimeout::ZERO), Ok(1..))
    }

    /// Waits until no more requests come. Errors: the connection failed, and the mount may still be there.
    pub fn join(self) -> Result<()> {
        // SAFETY: `self` is neither used nor dropped after this, so that the handle has one owner.
        let guard = unsafe { std::ptr::read(&raw const self.session.guard) };
        guard.join().unwrap_or_else(|_| Err(std::io::Error::other("a thread has panicked")))
    }
}

/// Mounts `fs` at `mountpoint`.
pub fn mount(fs: Arc<Fs>, runtime: Handle, mountpoint: &Path, options: &MountOptions) -> Result<Mounted> {
    let requests = Arc::new(OnceLock::new());
    let (uid, gid) = (geteuid().as_raw(), getegid().as_raw());
    let adapter =
        Adapter::new(fs, runtime, requests.clone(), Ownership { uid, gid, kernel_checks_modes: options.allow_other });
    let session = open_session(adapter, mountpoint, options)?;
    // Nothing else sets it.
    let _ = requests.set(session.as_fd().try_clone_to_owned()?);
    let requests = session.as_fd().try_clone_to_owned()?;
    session.spawn().map(|session| Mounted { session: ManuallyDrop::new(session), requests })
}

fn open_session(adapter: Adapter, dir: &Path, options: &MountOptions) -> Result<Session<Adapter>> {
    let mut config = Config::default();
    config.n_threads = Some(threads());
    if geteuid().is_root() {
        match mount_as_root(dir, options) {
            Ok(device) => {
                // The kernel itself refuses other users, except processes to which a descriptor was passed.
                let served = Session::from_fd(adapter, device, SessionACL::All, config);
                return served.inspect_err(|_| {
                    let _ = umount2(dir, MntFlags::MNT_DETACH);
                });
            }
            // In a container, root may have to use the helper like any other user.
            Err(Errno::EPERM) => {}
            Err(errno) => return Err(errno.into()),
        }
    }
    config.acl = if options.allow_other { SessionACL::All } else { SessionACL::Owner };
    config.mount_options = helper_options(options);
    Session::new(adapter, dir, &config)
}

/// Mounts, and returns the connection to the kernel.
fn mount_as_root(dir: &Path, options: &MountOptions) -> nix::Result<OwnedFd> {
    let device = File::options().read(true).write(true).open("/dev/fuse").map_err(errno_of)?;
    let mut data = vec![
        format!("fd={}", device.as_raw_fd()),
        format!("rootmode={S_IFDIR:o}"),
        format!("user_id={}", geteuid()),
        format!("group_id={}", getegid()),
    ];
    if options.allow_other {
        data.extend(["default_permissions".to_owned(), "allow_other".to_owned()]);
    }
    data.extend_from_slice(&options.labels);
    nix::mount::mount(Some("s4"), dir, Some(s4::mounts::TYPE), options.flags, Some(data.join(",").as_str()))?;
    Ok(device.into())
}

fn errno_of(error: std::io::Error) -> Errno {
    error.raw_os_error().map_or(Errno::EIO, Errno::from_raw)
}

/// The options as `fusermount3` takes them.
fn helper_options(options: &MountOptions) -> Vec<MountOption> {
    let flags = [
        (MsFlags::MS_RDONLY, MountOption::RO),
        (MsFlags::MS_NOEXEC, MountOption::NoExec),
        (MsFlags::MS_SYNCHRONOUS, MountOption::Sync),
        (MsFlags::MS_DIRSYNC, MountOption::DirSync),
        (MsFlags::MS_NOATIME, MountOption::NoAtime),
    ];
    let mut taken = vec![MountOption::FSName("s4".to_owned()), MountOption::Subtype("s4".to_owned())];
    taken.extend(flags.into_iter().filter(|(flag, _)| options.flags.contains(*flag)).map(|(_, option)| option));
    // The helper refuses them for an ordinary user, and applies `nodev` and `nosuid` anyway.
    if !options.flags.contains(MsFlags::MS_NODEV) {
        taken.push(MountOption::Dev);
    }
    if !options.flags.contains(MsFlags::MS_NOSUID) {
        taken.push(MountOption::Suid);
    }
    if options.allow_other {
        taken.push(MountOption::DefaultPermissions);
    }
    taken
}

/// Changes the flags of the mount on `dir`.
pub fn remount(dir: &Path, options: &MountOptions) -> nix::Result<()> {
    nix::mount::mount(None::<&str>, dir, None::<&str>, options.flags | MsFlags::MS_REMOUNT, None::<&str>)
}
