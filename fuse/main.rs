//! The program `s4-mount`: a cluster as a directory.
//!
//! Modules use only those below them:
//!
//! ```text
//! main         the command line; the life of the mount
//! requesters   processes that wait for the mount's end    mountpoint   the directory that is mounted on
//! adapter      requests of the kernel, by the FUSE library
//! fs           what each operation means
//! inodes       numbers of files                          size_watcher   starts the upload of large files
//! spool        a file that is being written              specials       FIFOs and sockets
//! control      files below .s4/                          eager_upload   sends a file before its close
//! remote_file  reads a remote key                        local          data directories of this machine
//! proc, errno, options
//! ```

mod adapter;
mod control;
mod eager_upload;
mod errno;
mod fs;
mod inodes;
mod local;
mod mountpoint;
mod options;
mod proc;
mod remote_file;
mod requesters;
mod size_watcher;
mod specials;
mod spool;

use clap::Parser;
use fs::Fs;
use local::LocalNodes;
use options::MountOptions;
use requesters::{Requesters, SETTLE};
use s4::client::{Client, Proxy, Secret, Settings};
use s4::cluster::{self, Cluster};
use s4::error::{Error, ErrorKind, ExitStatus, Result};
use s4::stored;
use s4::time::parse_seconds;
use std::io::{IsTerminal, Read, Write};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use std::sync::Arc;
use std::time::Duration;
use tokio::signal::unix::{Signal, SignalKind, signal};

/// Mount an s4 cluster: its keys as files that any program reads and writes.
///
/// s4-mount shows the keys of an s4(1) cluster as files DIR/bucket/key. What is written there and closed is a key; a key can be
/// read by any program, and not changed. When close(2) returns 0, the key is published and every client sees it. When it returns
/// an error, nothing was published.
///
/// DIR is made if it does not exist. It must not be, hold, or be in the data directory of a node of the same cluster. s4-mount
/// stays until it gets SIGTERM or SIGINT, or until DIR is unmounted with 's4 umount', 'fusermount3 -u' or umount(8). A mount
/// that a killed predecessor left on DIR is replaced.
///
/// Root needs only /dev/fuse, an ordinary user fusermount3(1). The mount is for the user who mounted it. With '-o allow_other'
/// others use it as far as the mode bits allow; the control files stay the mounting user's.
///
/// A node that has another node list or another secret refuses everything: then the mount is refused, with that node's reason. A
/// node that does not answer is waited for at most 2 seconds, and used once it answers.
///
/// Linked as /sbin/mount.s4, s4-mount serves 'mount -t s4' and fstab(5), in the background, and systemd's automount
/// ('x-systemd.automount'). 's4 mount' runs s4-mount, and refuses a DIR that is not empty if
/// '-o nonempty' is not given.
#[derive(Parser)]
#[command(name = "s4-mount", version, max_term_width = 100, override_usage = USAGE, after_help = EXAMPLES, after_long_help = LONG)]
struct Args {
    /// Where to mount; with two arguments the first is the source, as mount(8) passes it
    #[arg(value_name = "DIR", num_args = 1..=2, required = true)]
    paths: Vec<PathBuf>,
    /// The cluster file [default: $S4_CONF_PATH, else ~/.s4.conf]
    #[arg(short, long, value_name = "FILE")]
    conf_path: Option<PathBuf>,
    /// Return once the mount is there, and serve it in the background
    ///
    /// Messages then go to stderr only if that is a file.
    #[arg(short, long)]
    background: bool,
    /// How long a node may be silent before an operation fails, in seconds
    ///
    /// The operation fails with EIO.
    #[arg(long, value_name = "SECONDS", env = "S4_DEADLINE", default_value = "10")]
    deadline: String,
    /// Where files are kept until they are closed [default: a data directory of this machine, else $TMPDIR or /var/tmp]
    #[arg(long, value_name = "DIR")]
    spool: Option<PathBuf>,
    /// The file of the shared secret, where the daemons require one
    ///
    /// Without this option and S4_SECRET_PATH, it is the cluster file's name with .secret appended, if there is such a file.
    #[arg(long, value_name = "FILE", env = "S4_SECRET_PATH", hide_env_values = true)]
    secret: Option<PathBuf>,
    /// Options as of mount(8): conf=FILE, spool=DIR, deadline=SECONDS, secret=FILE, allow_other, ro, noexec, remount …
    ///
    /// There are commas between them. An ordinary user may give 'allow_other' where /etc/fuse.conf says 'user_allow_other'.
    /// The options that mount(8) has for every file system are taken too. 'remount' changes the flags of a mount that is there,
    /// such as 'ro' and 'noexec'; all else stays as it was.
    #[arg(short, value_name = "OPTIONS", value_delimiter = ',')]
    options: Vec<String>,
    /// Options that mount(8) passes and that need no action: sloppy, no mtab, verbose.
    #[arg(short = 's', hide = true)]
    sloppy: bool,
    #[arg(short = 'n', hide = true)]
    no_mtab: bool,
    #[arg(short = 'v', hide = true)]
    verbose: bool,
    #[arg(short = 't', hide = true)]
    kind: Option<String>,
    /// Do everything except the mount itself.
    #[arg(short = 'f', hide = true)]
    fake: bool,
}

const USAGE: &str = "\
s4-mount [OPTIONS] <DIR>
       mount -t s4 s4 <DIR> [-o <OPTIONS>]";

const LONG: &str = "\
Example: mount, map, unmount
  s4-mount /s4 --background
  echo 's4://in/ s4://out/ sort' > /s4/.s4/map/step1
  cat /s4/.s4/map/step1
  s4 umount /s4

Example: in fstab
  s4  /s4  s4  conf=/etc/s4.conf,_netdev,x-systemd.automount  0  0

Control files:
  DIR/.s4             No listing shows it. These are below it.
  nodes               The state of each node.
  map/NAME, map-to-n/NAME, map-from-n/NAME
                      Writing 'INDIR OUTDIR CMD' starts a job; reading follows it, and fails with EIO
                      if the job fails.
  jobs/ID/status, failed, stderr, cancel
                      A job that was started here.

Environment:
  S4_CONF_PATH        The cluster file.
  S4_DEADLINE         The value of --deadline.
  S4_SECRET_PATH      The value of --secret.
  ALL_PROXY, NO_PROXY
                      A SOCKS5 proxy for the nodes, and hosts that need none, as for s4(1).

Exit status:
  0   after an unmount
  1   the mount failed
  2   wrong usage";

const EXAMPLES: &str = "\
Examples:
  s4-mount /s4
  mount -t s4 s4 /s4 -o conf=/etc/s4.conf      # with s4-mount linked as /sbin/mount.s4
  s4 umount /s4                                # or end s4-mount with SIGTERM";

/// How long closed files may still take to be published when the mount ends.
const FINISH: Duration = Duration::from_secs(60);
/// How often the state of the mount is checked.
const POLL: Duration = Duration::from_millis(100);

/// The environment variable that tells the background process on which directory to mount. The process must not access
/// the directory before: at an automount, systemd blocks all processes except those in the process group of mount(8).
const PREPARED: &str = "S4_MOUNT_PREPARED";

fn main() -> ExitCode {
    let mut args = Args::parse();
    let colours = std::io::stderr().is_terminal();
    tracing_subscriber::fmt().with_writer(std::io::stderr).with_ansi(colours).with_target(false).init();
    let called_by_mount = std::env::args_os().next().is_some_and(|name| Path::new(&name).ends_with("mount.s4"));
    args.background |= called_by_mount;
    let status = match run(args) {
        Ok(()) => ExitStatus::Done,
        Err(error) => {
            eprintln!("s4-mount: {error}");
            error.kind().exit_status()
        }
    };
    ExitCode::from(status.code())
}

fn run(mut args: Args) -> Result<()> {
    let options = take_options(&mut args)?;
    let given = args.paths.last().cloned().unwrap_or_default();
    if options.remount {
        return mountpoint::remount(&given, &options);
    }
    let conf = cluster::conf_path(args.conf_path.as_deref())?;
    let cluster = Cluster::load(Some(&conf))?;
    let deadline = parse_seconds(&args.deadline).map_err(|why| Error::usage(format!("--deadline: {why}")))?;
    let secret = Secret::find(args.secret.as_deref(), Some(&conf))?;
    let dir = match std::env::var_os(PREPARED) {
        Some(dir) => {
            args.background = true;
            dir.into()
        }
        None if args.fake => return Ok(()),
        None => {
            let dir = mountpoint::prepare(&given)?;
            if args.background {
                return run_in_background(&dir);
            }
            dir
        }
    };
    s4::limits::tune_malloc();
    s4::limits::raise_descriptors();
    let runtime = s4::runtime::build()?;
    let proxy = Proxy::from_environment()?;
    let settings = Settings { deadline, secret, proxy, ..Settings::default() };
    let served = runtime.block_on(serve(Client::new(cluster, settings), &dir, &args, &options));
    runtime.shutdown_background();
    served
}

async fn serve(client: Client, dir: &Path, args: &Args, options: &MountOptions) -> Result<()> {
    let local = LocalNodes::find(&client.with_deadline(client.deadline().min(Duration::from_secs(2)))).await?;
    if let Some(data) = local.dirs().find(|data| data.starts_with(dir) || dir.starts_with(data)) {
        let why = "a daemon would ask the mount for its own files";
        let message = format!("{}: cannot be mounted over the data directory {}: {why}", dir.display(), data.display());
        return Err(Error::new(ErrorKind::Config, message));
    }
    let spool_dir = spool_dir(args.spool.as_deref(), &local)?;
    let mut signals = Signals::new()?;
    let fs = Arc::new(Fs::new(client, local, spool_dir, dir.to_owned()));
    let mounted = adapter::mount(fs.clone(), tokio::runtime::Handle::current(), dir, options)
        .map_err(|e| mountpoint::explain(dir, &e))?;
    let device = mountpoint::device(dir);
    let mut requesters = Requesters::for_device(device.as_deref());
    device.as_deref().inspect(|device| mountpoint::read_ahead(device));
    report_ready(dir, args.background);
    let ended = match serve_until_end(&mounted, &fs, &mut signals, &mut requesters).await {
        true => {
            requesters.stop_accepting();
            finish_ended(mounted, &fs, dir).await
        }
        false => {
            // The mount may be gone, and another one may be in its place.
            if mounted.is_connected() && mountpoint::device(dir) == device {
                s4::mounts::unmount(dir, true)?;
            }
            finish_signalled(mounted, &fs, &mut signals, &mut requesters).await
        }
    };
    if ended.is_ok() && !fs.publisher.has_lost() {
        requesters.end();
    }
    ended
}

/// The signals by which the mount ends.
struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    fn new() -> Result<Self> {
        let failed = |e: std::io::Error| Error::io("cannot wait for signals", &e);
        let terminate = signal(SignalKind::terminate()).map_err(failed)?;
        Ok(Self { terminate, interrupt: signal(SignalKind::interrupt()).map_err(failed)? })
    }

    async fn next(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}

/// Serves until the mount has ended, which returns true, or until a signal comes.
async fn serve_until_end(
    mounted: &adapter::Mounted,
    fs: &Fs,
    signals: &mut Signals,
    requesters: &mut Requesters,
) -> bool {
    let mut poll = tokio::time::interval(POLL);
    loop {
        tokio::select! {
            () = signals.next() => return false,
            () = requesters.accept() => {}
            _ = poll.tick() => {
                if mounted.has_ended() {
                    return true;
                }
                // Once the mount is gone, the kernel may not yet have sent the release of every closed file. The
                // requesters are answered when this process ends.
                if !mounted.is_connected() {
                    requesters.stop_accepting();
                } else if !fs.publisher.is_publishing() {
                    requesters.answer(!fs.publisher.has_lost());
                }
            }
        }
    }
}

/// Ends the mount after a signal, once it is unmounted.
async fn finish_signalled(
    mounted: adapter::Mounted,
    fs: &Arc<Fs>,
    signals: &mut Signals,
    requesters: &mut Requesters,
) -> Result<()> {
    let mut poll = tokio::time::interval(POLL);
    while !mounted.has_ended() {
        tokio::select! {
            // A second signal does not wait for processes that still use the mount.
            () = signals.next() => break,
            _ = poll.tick() => {
                if !mounted.is_connected() {
                    requesters.stop_accepting();
                }
            }
        }
    }
    let is_over = mounted.has_ended() && mounted.join().is_ok();
    finish(fs, is_over).await
}

/// Finishes after an unmount, or after the connection to the kernel broke.
async fn finish_ended(mounted: adapter::Mounted, fs: &Arc<Fs>, dir: &Path) -> Result<()> {
    let (ended, was_dead) = (mounted.join(), mountpoint::unmount_dead(dir));
    finish(fs, ended.is_ok() && matches!(was_dead, Ok(false))).await?;
    let was_dead = was_dead?;
    let broken = |why: &str| Error::new(ErrorKind::Io, format!("{}: the mount was broken off{why}", dir.display()));
    match ended {
        Err(e) => Err(broken(&format!(": {}", s4::error::reason(&e)))),
        Ok(()) if was_dead => Err(broken("")),
        Ok(()) => Ok(()),
    }
}

/// Waits until all closed files are published. If the mount `is_over`, the kernel sends no more releases, so all open
/// files are released here.
async fn finish(fs: &Arc<Fs>, is_over: bool) -> Result<()> {
    let published = async {
        if is_over {
            fs.files.release_all().await;
        }
        // The last releases may not have begun to publish yet.
        tokio::time::sleep(SETTLE).await;
        fs.publisher.all_published().await;
    };
    match tokio::time::timeout(FINISH, published).await {
        Ok(()) => Ok(()),
        Err(_) => Err(Error::new(ErrorKind::Deadline, "files that were closed could not be published in time")),
    }
}

/// Parses the options of mount(8). Some of them are also arguments.
fn take_options(args: &mut Args) -> Result<MountOptions> {
    let mut options = MountOptions::default();
    for option in std::mem::take(&mut args.options) {
        match option.split_once('=') {
            Some(("conf", path)) => args.conf_path = Some(path.into()),
            Some(("spool", path)) => args.spool = Some(path.into()),
            Some(("secret", path)) => args.secret = Some(path.into()),
            Some(("deadline", seconds)) => {
                seconds.clone_into(&mut args.deadline);
            }
            _ if options.take(&option) => {}
            _ => return Err(Error::usage(format!("-o {option}: unknown option"))),
        }
    }
    Ok(options)
}

fn spool_dir(given: Option<&Path>, local: &LocalNodes) -> Result<PathBuf> {
    let fallback = || {
        let temporary = std::env::var_os("TMPDIR").filter(|dir| !dir.is_empty());
        temporary.map_or_else(|| "/var/tmp".into(), PathBuf::from)
    };
    let dir = match (given, local.dirs().next()) {
        (Some(dir), _) => dir.to_owned(),
        (None, Some(dir)) if stored::unnamed_file(dir).is_ok() => dir.to_owned(),
        (None, _) => fallback(),
    };
    match stored::unnamed_file(&dir) {
        Ok(_) => Ok(dir),
        Err(e) => {
            let reason = s4::error::reason(&e);
            let message = format!(
                "{}: cannot hold files until they are closed: {reason}; choose another with --spool",
                dir.display()
            );
            Err(Error::new(ErrorKind::Config, message))
        }
    }
}

/// Starts this program again without a terminal, and returns once it has mounted.
fn run_in_background(dir: &Path) -> Result<()> {
    let failed = |e: std::io::Error| Error::io("cannot go to the background", &e);
    let program = std::env::current_exe().map_err(failed)?;
    let mut child = Command::new(program)
        .args(std::env::args_os().skip(1))
        .env(PREPARED, dir)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .map_err(failed)?;
    let mut ready = [0; 1];
    let was_ready = child.stdout.take().map(|mut stdout| stdout.read(&mut ready));
    match was_ready {
        Some(Ok(1)) => Ok(()),
        // The child has printed the reason.
        _ => {
            let status = child.wait().map_err(failed)?;
            Err(Error::new(ErrorKind::Io, format!("the mount did not come up: {status}")))
        }
    }
}

fn report_ready(dir: &Path, in_background: bool) {
    let mut stdout = std::io::stdout();
    if in_background {
        // Signals of the caller's terminal must not end the mount. setsid(2) succeeds because this process leads no
        // process group.
        let _ = nix::unistd::setsid();
    }
    // The reader may be gone.
    let _ = match in_background {
        true => stdout.write_all(b"\n"),
        false => writeln!(stdout, "s4-mount: mounted on {}", dir.display()),
    };
    let _ = stdout.flush();
    if in_background {
        leave_terminal();
    }
}

/// Closes the caller's stderr, unless it is a log file: a caller that reads stderr to its end would wait for the end of
/// the mount.
fn leave_terminal() {
    let stderr = std::io::stderr();
    let copy = stderr.as_fd().try_clone_to_owned().map(std::fs::File::from);
    let is_log = copy.and_then(|file| file.metadata()).is_ok_and(|found| found.is_file());
    if is_log {
        return;
    }
    if let Ok(null) = std::fs::OpenOptions::new().write(true).open("/dev/null") {
        // Where that fails, the mount still works.
        let _ = nix::unistd::dup2_stderr(&null);
        let _ = nix::unistd::dup2_stdout(&null);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_well_formed() {
        Args::command().debug_assert();
    }

    #[test]
    fn man_pages_are_as_defined() {
        let mut command = Args::command();
        command.build();
        let see_also = ["s4(1)", "s4-server(8)", "mount(8)", "fusermount3(1)"];
        let page = s4_manual::Page { section: 8, see_also: &see_also, ..s4_manual::Page::default() };
        s4_manual::check("s4-mount.8", &s4_manual::render(&command, &page));
    }
}
