//! Lists the mounts of this machine and unmounts clusters. Never accesses a mounted file system: its server may be dead
//! or hang.

use crate::error::{Error, ErrorKind, Result, reason};
use nix::errno::Errno;
use nix::mount::{MntFlags, umount2};
use nix::sys::socket::{
    AddressFamily, SockFlag, SockType, UnixAddr, connect, getsockopt, socket, sockopt::PeerCredentials,
};
use nix::unistd::geteuid;
use std::ffi::OsString;
use std::io::{Read, Write};
use std::os::fd::AsRawFd;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStringExt;
use std::os::unix::net::{SocketAddr, UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// The file system type of a mounted cluster.
pub const TYPE: &str = "fuse.s4";
/// The extended attribute of a mount's root that contains the digest of the cluster's node list.
pub const CLUSTER_ATTRIBUTE: &str = "user.s4.cluster";

/// How long publishing may take after an unmount. A little longer than `s4-mount` itself waits for it.
pub const PUBLISH_TIMEOUT: Duration = Duration::from_secs(65);

/// Numbers to try for the name of a mount's socket. A mount that is ending may still use a name when the next mount
/// already has the same device number.
const NAMES: u32 = 8;

/// A line of `/proc/self/mountinfo`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mounted {
    pub dir: PathBuf,
    /// `MAJOR:MINOR` of the file system.
    pub device: String,
    pub is_cluster: bool,
    /// The user who mounted it, if the file system reports that.
    pub owner: Option<u32>,
}

impl Mounted {
    fn parse(line: &[u8]) -> Option<Self> {
        let fields: Vec<&[u8]> = line.split(|&byte| byte == b' ').collect();
        // A variable number of optional fields precedes the separator.
        let end = fields.iter().position(|field| *field == b"-")?;
        let options = String::from_utf8_lossy(fields.get(end + 3).copied().unwrap_or_default());
        let owner = options.split(',').find_map(|option| option.strip_prefix("user_id=")?.parse().ok());
        Some(Self {
            dir: unescaped(fields.get(4)?),
            device: String::from_utf8_lossy(fields.get(2)?).into_owned(),
            is_cluster: *fields.get(end + 1)? == TYPE.as_bytes(),
            owner,
        })
    }
}

/// All mounts. If a directory has several, the last one is visible.
pub fn list() -> Vec<Mounted> {
    let text = std::fs::read("/proc/self/mountinfo").unwrap_or_default();
    text.split(|&byte| byte == b'\n').filter_map(Mounted::parse).collect()
}

/// Listens for unmounts of the mount on `device`. A program that unmounts connects, unmounts, and sends a byte. The
/// mount's process answers with a byte once all closed files are published. If the connection ends without that byte,
/// the process gave up or was killed.
pub fn listen(device: &str) -> Option<UnixListener> {
    (0..NAMES)
        .find_map(|number| UnixListener::bind_addr(&SocketAddr::from_abstract_name(name(device, number)).ok()?).ok())
}

/// An unmounted file system, and connections to the processes that serve it (or to another process that used its device
/// number just before). The mount itself is never accessed: its server may be dead or hang.
pub struct Unmounted {
    dir: PathBuf,
    servers: Vec<UnixStream>,
    /// A server exists that accepts no more connections.
    is_unresponsive: bool,
}

impl Unmounted {
    /// Finds the servers in this network namespace that run as this user, root, or the user who mounted it.
    fn find(mounted: &Mounted) -> Self {
        let is_trusted = |stream: &UnixStream| {
            getsockopt(stream, PeerCredentials).is_ok_and(|peer| {
                peer.uid() == 0 || peer.uid() == geteuid().as_raw() || Some(peer.uid()) == mounted.owner
            })
        };
        let (mut servers, mut is_unresponsive) = (Vec::new(), false);
        for number in 0..NAMES {
            match connected(&name(&mounted.device, number)) {
                Ok(stream) if is_trusted(&stream) => servers.push(stream),
                Err(Errno::EAGAIN) => is_unresponsive = true,
                Ok(_) | Err(_) => {}
            }
        }
        Self { dir: mounted.dir.clone(), servers, is_unresponsive }
    }

    /// Waits until all closed files are published, or until `until`. If the server was dead before, there is nothing to
    /// publish.
    pub fn await_published(mut self, until: Instant) -> Result<()> {
        let has_published = |stream: &mut UnixStream| {
            let left = until.saturating_duration_since(Instant::now()).max(Duration::from_millis(1));
            stream.set_read_timeout(Some(left)).and_then(|()| stream.read_exact(&mut [0])).is_ok()
        };
        if self.servers.iter_mut().all(has_published) && !self.is_unresponsive {
            return Ok(());
        }
        let why = "files that were closed are not published, or not yet: only the log of s4-mount will tell";
        Err(Error::new(ErrorKind::Deadline, format!("{}: unmounted, but {why}", self.dir.display())))
    }
}

/// Unmounts as [`unmount`] does. Closed files may not be published yet.
pub fn begin_unmount(mounted: &Mounted, lazily: bool) -> Result<Unmounted> {
    // Connect before the unmount, or a server could end unnoticed in between.
    let mut unmounted = Unmounted::find(mounted);
    unmount(&mounted.dir, lazily)?;
    for stream in &mut unmounted.servers {
        // If the server has ended, waiting for its answer fails too.
        let _ = stream.write_all(&[1]);
    }
    Ok(unmounted)
}

fn name(device: &str, number: u32) -> String {
    format!("s4-mount {device} {number}")
}

/// Connects to a server. EAGAIN if the connection would have to wait.
fn connected(name: &str) -> nix::Result<UnixStream> {
    let flags = SockFlag::SOCK_NONBLOCK | SockFlag::SOCK_CLOEXEC;
    let made = socket(AddressFamily::Unix, SockType::Stream, flags, None)?;
    connect(made.as_raw_fd(), &UnixAddr::new_abstract(name.as_bytes())?)?;
    let stream = UnixStream::from(made);
    stream.set_nonblocking(false).map(|()| stream).map_err(|_| Errno::EIO)
}

/// The visible mount on `dir`, an absolute path; `None` if nothing is mounted there.
pub fn at(dir: &Path) -> Option<Mounted> {
    list().into_iter().rfind(|mounted| mounted.dir == dir)
}

/// The absolute path of a mount point.
pub fn resolve(dir: &Path) -> std::io::Result<PathBuf> {
    let dir = std::path::absolute(dir)?;
    match (dir.parent(), dir.file_name()) {
        (Some(parent), Some(name)) if dir.read_link().is_err() => Ok(parent.canonicalize()?.join(name)),
        _ => dir.canonicalize(),
    }
}

/// Unmounts `dir`. With `lazily`, processes that use it continue until they close their files.
pub fn unmount(dir: &Path, lazily: bool) -> Result<()> {
    let failed = |why: &str| Error::new(ErrorKind::Config, format!("{}: cannot be unmounted: {why}", dir.display()));
    let busy = "it is in use; end what uses it, or unmount it lazily";
    if geteuid().is_root() {
        let flags = if lazily { MntFlags::MNT_DETACH } else { MntFlags::empty() };
        return umount2(dir, flags).map_err(|errno| failed(if errno == Errno::EBUSY { busy } else { errno.desc() }));
    }
    let flags: &[&str] = if lazily { &["-u", "-z"] } else { &["-u"] };
    let output = Command::new("fusermount3").args(flags).arg("--").arg(dir).stdin(Stdio::null()).output();
    let output = output.map_err(|e| failed(&format!("fusermount3: {}", reason(&e))))?;
    match output.status.success() {
        true => Ok(()),
        false if String::from_utf8_lossy(&output.stderr).contains("busy") => Err(failed(busy)),
        false => Err(failed(String::from_utf8_lossy(&output.stderr).trim())),
    }
}

/// Unescapes a path of the mount table, where `\040` is a space.
fn unescaped(text: &[u8]) -> PathBuf {
    let (mut bytes, mut rest) = (Vec::with_capacity(text.len()), text);
    while let Some((&byte, after)) = rest.split_first() {
        let octal = after.get(..3).filter(|_| byte == b'\\').and_then(|digits| std::str::from_utf8(digits).ok());
        match octal.and_then(|digits| u8::from_str_radix(digits, 8).ok()) {
            Some(escaped) => {
                bytes.push(escaped);
                rest = &after[3..];
            }
            None => {
                bytes.push(byte);
                rest = after;
            }
        }
    }
    OsString::from_vec(bytes).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_of_the_kernels_list_is_parsed() {
        let line = b"62 29 0:55 / /mnt/a\\040b\\134c rw,nosuid shared:7 master:1 - fuse.s4 s4 rw,user_id=0";
        let found = Mounted::parse(line).expect("a mount");
        assert_eq!(found.dir, Path::new("/mnt/a b\\c"));
        assert_eq!((found.device.as_str(), found.is_cluster, found.owner), ("0:55", true, Some(0)));
        assert!(!Mounted::parse(b"62 29 0:55 / /mnt rw - tmpfs s4 rw").expect("a mount").is_cluster);
        for cut in [&b""[..], b"62 29", b"62 29 0:55 / /mnt rw -"] {
            assert_eq!(Mounted::parse(cut), None);
        }
    }

    #[test]
    fn a_mount_point_is_resolved_without_access_to_it() {
        let dir = tempfile::tempdir().unwrap();
        let top = dir.path().canonicalize().unwrap();
        std::os::unix::fs::symlink(&top, top.join("link")).unwrap();
        assert_eq!(resolve(&top.join("link/none/")).unwrap(), top.join("none"));
        assert_eq!(resolve(&top.join("link")).unwrap(), top);
    }
}
