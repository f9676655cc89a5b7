//! `s4 local`: runs a cluster of daemons on the loopback address of this machine.

use super::console::print_message;
use super::local_door::{self, Door};
use super::mount;
use super::programs::program;
use crate::cli::LocalArgs;
use nix::fcntl::{Flock, FlockArg};
use nix::sys::signal::kill;
use nix::unistd::Pid;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use s4::client::{Client, Secret, Settings};
use s4::cluster::Cluster;
use s4::error::{Error, ErrorKind, ExitStatus, Result, reason};
use s4::file::lock_holder;
use s4::mounts;
use std::ffi::OsStr;
use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{Read, Write};
use std::net::TcpListener;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};
use tokio::signal::unix::{Signal, SignalKind, signal};

const NODES: u16 = 3;
/// The timeout for the start of the nodes.
const START_TIMEOUT: Duration = Duration::from_secs(20);
/// The timeout for the end of a node, after which it is killed: longer than the daemon's own grace period.
const STOP_TIMEOUT: Duration = Duration::from_secs(15);
/// The timeout for asking a mount for its cluster.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(2);
const PAUSE: Duration = Duration::from_millis(10);

pub async fn run(args: &LocalArgs, secret: Option<&Path>) -> Result<ExitStatus> {
    match args.stop {
        true => stop(&args.dir).await,
        false => start(args, secret).await,
    }
}

async fn start(args: &LocalArgs, secret: Option<&Path>) -> Result<ExitStatus> {
    let failed = |e: std::io::Error| Error::new(ErrorKind::Io, format!("{}: {}", args.dir.display(), reason(&e)));
    // An existing directory may be shared with others, so its mode is not changed.
    DirBuilder::new().recursive(true).mode(0o700).create(&args.dir).map_err(failed)?;
    let dir = args.dir.canonicalize().map_err(failed)?;
    let mut interrupts = Interrupts::new()?;
    let starting = lock_start(&dir)?;
    // Find the nodes by their directories, before the cluster file is rewritten.
    let mut nodes = (0..).map_while(|node| node_dir(&dir, node).exists().then_some(node));
    if let Some(node) = nodes.find(|&node| running_pid(&node_dir(&dir, node)).is_some()) {
        let message = format!("{}: node {node} runs already; 's4 local --stop --dir {0}' stops it", dir.display());
        return Err(Error::new(ErrorKind::AlreadyExists, message));
    }
    let secret = &keep_secret(&dir, secret)?;
    let mut running = LocalCluster { dir: dir.clone(), nodes: Vec::new(), door: None };
    tokio::select! {
        brought_up = running.bring_up(args, secret) => brought_up?,
        () = interrupts.next() => return Err(Error::new(ErrorKind::Cancelled, "interrupted before the nodes were up")),
    }
    let mut export = format!("export S4_CONF_PATH={}\n", conf_path(&dir).display());
    if let Some(door) = &running.door {
        export += &door.export(&conf_path(&dir));
    }
    std::io::stdout().write_all(export.as_bytes()).map_err(|e| Error::io("stdout", &e))?;
    print_message(format_args!("{} shows the nodes and jobs in a browser", page(&dir, secret)?));
    if args.detach {
        running.leave();
        return Ok(ExitStatus::Done);
    }
    drop(starting);
    print_message(format_args!("{} nodes run, Ctrl-C stops them", running.nodes.len()));
    interrupts.next().await;
    Ok(ExitStatus::Done)
}

/// Writes the file of the cluster's secret beside the cluster file, where all programs look for it. The secret is that
/// of the file `given`, else that of the last run, else a new one: other users of this machine must not use the
/// cluster.
fn keep_secret(dir: &Path, given: Option<&Path>) -> Result<PathBuf> {
    let path = Secret::beside(&conf_path(dir));
    let failed = |e: std::io::Error| Error::io(path.display(), &e);
    let text = match given {
        Some(given) => Secret::read(given)?.as_text().to_owned(),
        None if path.exists() => return Ok(path),
        None => random_text().map_err(failed)?,
    };
    let mut made = tempfile::NamedTempFile::new_in(dir).map_err(failed)?;
    writeln!(made, "{text}").map_err(failed)?;
    made.persist(&path).map_err(|e| failed(e.error))?;
    Ok(path)
}

/// 32 random hexadecimal digits.
pub fn random_text() -> std::io::Result<String> {
    let mut bytes = [0; 16];
    File::open("/dev/urandom")?.read_exact(&mut bytes)?;
    Ok(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}

/// The URL of the first node's page, with the secret.
fn page(dir: &Path, secret: &Path) -> Result<String> {
    let cluster = Cluster::load(Some(&conf_path(dir)))?;
    let secret = utf8_percent_encode(Secret::read(secret)?.as_text(), NON_ALPHANUMERIC).to_string();
    Ok(format!("http://{}/#{secret}", cluster.address(0)))
}

/// Locked while a cluster is started, so that two starts cannot interleave.
fn lock_start(dir: &Path) -> Result<Flock<File>> {
    let path = dir.join("start.lock");
    let file = OpenOptions::new().create(true).truncate(false).write(true).open(&path);
    let file = file.map_err(|e| Error::io(path.display(), &e))?;
    Flock::lock(file, FlockArg::LockExclusiveNonblock).map_err(|_| {
        Error::new(ErrorKind::AlreadyExists, format!("{}: another 's4 local' starts it now", dir.display()))
    })
}

/// Catches SIGTERM and Ctrl-C from the beginning.
struct Interrupts {
    terminate: Signal,
    interrupt: Signal,
}

impl Interrupts {
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

/// The daemons of a cluster, its mount and its door. Dropping it stops them.
struct LocalCluster {
    dir: PathBuf,
    nodes: Vec<Child>,
    door: Option<Door>,
}

impl LocalCluster {
    async fn bring_up(&mut self, args: &LocalArgs, secret: &Path) -> Result<()> {
        let cluster = layout(&self.dir, args.nodes)?;
        for node in cluster.ids() {
            self.nodes.push(spawn(args, &self.dir, &cluster, node, secret)?);
        }
        let settings = Settings { secret: Some(Secret::read(secret)?), ..Settings::default() };
        await_health(&Client::new(cluster, settings), &self.dir, &mut self.nodes).await?;
        if args.s3 {
            self.door = Some(Door::start(&self.dir, &conf_path(&self.dir), secret)?);
        }
        match &args.mount {
            Some(mountpoint) => start_mount(&self.dir, mountpoint, secret),
            None => Ok(()),
        }
    }

    /// Keeps everything running.
    fn leave(mut self) {
        self.nodes.clear();
        self.door = None;
    }
}

impl Drop for LocalCluster {
    fn drop(&mut self) {
        if self.nodes.is_empty() {
            return;
        }
        // The door and the mount need the nodes to finish what they do.
        if let Some(door) = &mut self.door {
            door.stop();
        }
        let cluster = Cluster::load(Some(&conf_path(&self.dir)));
        cluster.and_then(|cluster| stop_mounts(&self.dir, &cluster)).unwrap_or_else(print_message);
        for child in &self.nodes {
            // This fails if the process has ended already.
            let _ = kill(Pid::from_raw(child.id() as i32), nix::sys::signal::Signal::SIGTERM);
        }
        for child in &mut self.nodes {
            let _ = child.wait();
        }
    }
}

/// Reads or writes the cluster file, and creates the nodes' directories when it writes the first one. Ports that other
/// programs now use are replaced. The node numbers stay, and so the placement of keys.
fn layout(dir: &Path, nodes: Option<u16>) -> Result<Cluster> {
    let path = conf_path(dir);
    let before = match path.exists() {
        true => Some(Cluster::load(Some(&path))?),
        false => None,
    };
    let count = match (&before, nodes) {
        (Some(before), Some(nodes)) if before.len() != usize::from(nodes) => {
            let message = format!(
                "{}: it has {} nodes and their keys; use another --dir for {nodes}",
                dir.display(),
                before.len()
            );
            return Err(Error::new(ErrorKind::Config, message));
        }
        (Some(before), _) => before.len(),
        (None, nodes) => usize::from(nodes.unwrap_or(NODES)),
    };
    if before.is_some() {
        check_nodes(dir, count)?;
    }
    let text = addresses(before.as_ref(), count)?;
    // The cluster file is written after all directories exist. A directory that is missing later was removed, together
    // with its keys.
    let draft = dir.join("s4.conf.new");
    let failed = |e: std::io::Error| Error::io(path.display(), &e);
    std::fs::write(&draft, &text).map_err(failed)?;
    let cluster = Cluster::parse(&text, &path)?;
    if before.is_none() {
        cluster.ids().try_for_each(|node| make_node(dir, &draft, &cluster, node))?;
    }
    std::fs::rename(&draft, &path).map_err(failed)?;
    Ok(cluster)
}

/// Refuses to start without a node's directory. If it were created again, the node would be healthy, and its keys would
/// be missing silently.
fn check_nodes(dir: &Path, count: usize) -> Result<()> {
    match (0..count).map(|node| node_dir(dir, node)).find(|node| !node.is_dir()) {
        None => Ok(()),
        Some(gone) => Err(Error::new(
            ErrorKind::Config,
            format!("{}: the node's directory is gone; bring it back, or use another --dir", gone.display()),
        )),
    }
}

/// The lines of the cluster file, with the ports of `before` if they are free.
fn addresses(before: Option<&Cluster>, count: usize) -> Result<String> {
    // Listen on all ports until all are chosen, so that no port is chosen twice.
    let mut listeners = Vec::new();
    for node in 0..count {
        let kept = before.and_then(|before| TcpListener::bind(("127.0.0.1", before.address(node).port())).ok());
        let listener = match kept {
            Some(listener) => listener,
            None => s4::ports::free().map_err(|e| Error::io("a free port", &e))?,
        };
        listeners.push(listener);
    }
    let lines = listeners.iter().map(|listener| listener.local_addr().map(|address| format!("{address}\n")));
    lines.collect::<std::io::Result<String>>().map_err(|e| Error::io("a free port", &e))
}

fn conf_path(dir: &Path) -> PathBuf {
    dir.join("s4.conf")
}

fn node_dir(dir: &Path, node: usize) -> PathBuf {
    dir.join(format!("node-{node}"))
}

fn log_path(dir: &Path, node: usize) -> PathBuf {
    dir.join(format!("node-{node}.log"))
}

/// The command `s4-server` for this node of the cluster in the file `conf`.
fn server(dir: &Path, conf: &Path, cluster: &Cluster, node: usize) -> Command {
    let mut command = Command::new(program("s4-server"));
    command.arg("--conf").arg(conf).arg("--data").arg(node_dir(dir, node));
    command.arg("--port").arg(cluster.address(node).port().to_string()).stdin(Stdio::null());
    command
}

fn cannot_start(e: std::io::Error) -> Error {
    Error::io(format!("cannot start {}", program("s4-server").display()), &e)
}

/// Creates a node's directory, unless it exists.
fn make_node(dir: &Path, conf: &Path, cluster: &Cluster, node: usize) -> Result<()> {
    if node_dir(dir, node).exists() {
        return Ok(());
    }
    let made = server(dir, conf, cluster, node).arg("--init").output().map_err(cannot_start)?;
    match made.status.success() {
        true => Ok(()),
        false => {
            let said = String::from_utf8_lossy(&made.stderr);
            Err(Error::new(ErrorKind::Config, format!("node {node}: {}", said.trim())))
        }
    }
}

fn spawn(args: &LocalArgs, dir: &Path, cluster: &Cluster, node: usize, secret: &Path) -> Result<Child> {
    let path = log_path(dir, node);
    let log = OpenOptions::new().create(true).append(true).mode(0o600).open(&path);
    let log = log.map_err(|e| Error::io(path.display(), &e))?;
    let copy = log.try_clone().map_err(|e| Error::io(path.display(), &e))?;
    let mut command = server(dir, &conf_path(dir), cluster, node);
    command.arg("--jobs").arg(commands_at_once(args.jobs, cluster.len()).to_string());
    command.arg("--secret").arg(secret);
    // In its own process group: Ctrl-C in the terminal goes to this program, which then ends the daemon in order.
    command.stdout(copy).stderr(log).process_group(0);
    command.spawn().map_err(cannot_start)
}

/// Commands at a time per node. By default, the nodes share the default of a single daemon.
fn commands_at_once(asked: Option<u16>, nodes: usize) -> usize {
    let cpus = std::thread::available_parallelism().map_or(1, usize::from);
    asked.map_or((cpus + 2).div_ceil(nodes), usize::from)
}

async fn await_health(client: &Client, dir: &Path, nodes: &mut [Child]) -> Result<()> {
    let began = Instant::now();
    for node in client.cluster().ids() {
        while let Err(error) = client.health(node).await {
            if let Ok(Some(status)) = nodes[node].try_wait() {
                let log = std::fs::read_to_string(log_path(dir, node)).unwrap_or_default();
                let last = log.lines().last().unwrap_or("it printed nothing");
                return Err(Error::new(ErrorKind::Config, format!("node {node} ended with {status}: {last}")));
            }
            if began.elapsed() > START_TIMEOUT {
                return Err(error);
            }
            tokio::time::sleep(PAUSE).await;
        }
    }
    Ok(())
}

/// The file that records where the cluster is mounted.
fn mount_note(dir: &Path) -> PathBuf {
    dir.join("mount")
}

/// Mounts the cluster in the background, and records where.
fn start_mount(dir: &Path, mountpoint: &Path, secret: &Path) -> Result<()> {
    let path = dir.join("mount.log");
    let log = OpenOptions::new()
        .create(true)
        .append(true)
        .mode(0o600)
        .open(&path)
        .map_err(|e| Error::io(path.display(), &e))?;
    let mut command = mount::command(mountpoint, Some(&conf_path(dir)), Some(secret));
    let ended = command.arg("--background").stdin(Stdio::null()).stderr(log).status();
    let status = ended.map_err(|e| Error::io("cannot start s4-mount", &e))?;
    if !status.success() {
        let log = std::fs::read_to_string(&path).unwrap_or_default();
        let last = log.lines().rfind(|line| line.starts_with("s4-mount: ") && !line.contains("did not come up"));
        let why = last.unwrap_or("it did not say why").trim_start_matches("s4-mount: ");
        return Err(Error::new(ErrorKind::Config, format!("the mount did not come up: {why}")));
    }
    let mountpoint = mountpoint.canonicalize().map_err(|e| Error::io(mountpoint.display(), &e))?;
    let note = mount_note(dir);
    std::fs::write(&note, mountpoint.as_os_str().as_bytes()).map_err(|e| Error::io(note.display(), &e))
}

/// Unmounts the cluster: the recorded mount, whose server may be dead, and mounts that users have made. Waits until all
/// closed files are published; therefore the nodes must still run.
fn stop_mounts(dir: &Path, cluster: &Cluster) -> Result<()> {
    let note = mount_note(dir);
    let noted = std::fs::read(&note).ok().map(|path| PathBuf::from(OsStr::from_bytes(&path)));
    let digest = cluster.digest();
    let unmounted: Vec<_> = mounts::list()
        .into_iter()
        .filter(|mounted| mounted.is_cluster)
        .filter(|mounted| match answer(&mounted.dir) {
            Some(theirs) => theirs == digest.as_bytes(),
            // A mount whose server is dead does not answer. If it is the recorded one, it is this cluster's.
            None => noted.as_ref() == Some(&mounted.dir),
        })
        .map(|mounted| mounts::begin_unmount(&mounted, true))
        .collect();
    let until = Instant::now() + mounts::PUBLISH_TIMEOUT;
    let stopped: Vec<Result<()>> = unmounted.into_iter().map(|unmounted| unmounted?.await_published(until)).collect();
    if noted.is_some() {
        std::fs::remove_file(&note).map_err(|e| Error::io(note.display(), &e))?;
    }
    stopped.into_iter().collect()
}

/// The digest of the cluster that is mounted on `dir`. `None` if it does not answer soon, or not to this user.
fn answer(dir: &Path) -> Option<Vec<u8>> {
    let (sender, answer) = mpsc::channel();
    let dir = dir.to_owned();
    std::thread::spawn(move || sender.send(xattr::get(dir, mounts::CLUSTER_ATTRIBUTE)));
    answer.recv_timeout(ANSWER_TIMEOUT).ok()?.ok()?
}

async fn stop(dir: &Path) -> Result<ExitStatus> {
    let path = conf_path(dir);
    if !path.exists() {
        return Err(Error::new(ErrorKind::NotFound, format!("{}: no cluster of 's4 local' is there", dir.display())));
    }
    let cluster = Cluster::load(Some(&path))?;
    local_door::stop(dir).await;
    // After an error, stop the nodes nevertheless.
    stop_mounts(&dir.canonicalize().map_err(|e| Error::io(dir.display(), &e))?, &cluster).unwrap_or_else(print_message);
    let running: Vec<(usize, i32)> =
        cluster.ids().filter_map(|node| Some((node, running_pid(&node_dir(dir, node))?))).collect();
    for (_, pid) in &running {
        // This fails if the process has ended already.
        let _ = kill(Pid::from_raw(*pid), nix::sys::signal::Signal::SIGTERM);
    }
    let began = Instant::now();
    for (node, pid) in running {
        while running_pid(&node_dir(dir, node)) == Some(pid) {
            if began.elapsed() > STOP_TIMEOUT {
                let _ = kill(Pid::from_raw(pid), nix::sys::signal::Signal::SIGKILL);
            }
            tokio::time::sleep(PAUSE).await;
        }
    }
    Ok(ExitStatus::Done)
}

/// The process that holds the lock of a data directory.
fn running_pid(data: &Path) -> Option<i32> {
    lock_holder(&File::options().read(true).write(true).open(data.join(".s4/lock")).ok()?).ok()?
}

/// The cluster file of a cluster that this user runs by `s4 local`.
pub fn running_conf() -> Option<PathBuf> {
    let own = nix::unistd::geteuid().as_raw();
    std::fs::read_dir("/proc").ok()?.flatten().find_map(|process| {
        process.metadata().ok().filter(|found| found.uid() == own)?;
        let line = std::fs::read(process.path().join("cmdline")).ok()?;
        let mut args = line.split(|&byte| byte == 0).map(OsStr::from_bytes);
        Path::new(args.next()?).file_name().filter(|name| *name == "s4-server")?;
        let conf = Path::new(args.skip_while(|arg| *arg != "--conf").nth(1)?);
        let dir = conf.parent()?;
        (conf == conf_path(dir) && node_dir(dir, 0).is_dir()).then(|| conf.to_owned())
    })
}
