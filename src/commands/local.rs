//! `s4 local`: a cluster of daemons on this machine's loopback address.

use super::{mount, program};
use crate::cli::LocalArgs;
use nix::fcntl::{Flock, FlockArg};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use s4::client::{Client, Secret, Settings};
use s4::cluster::Cluster;
use s4::error::{Error, ErrorKind, ExitStatus, Result, reason};
use std::ffi::OsStr;
use std::fs::{File, OpenOptions};
use std::net::TcpListener;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};
use tokio::signal::unix::{SignalKind, signal};

const NODES: u16 = 3;
/// How long the nodes may take to start.
const START: Duration = Duration::from_secs(20);
/// How long a node may take to end before it is killed: longer than its own grace.
const STOP: Duration = Duration::from_secs(15);
const PAUSE: Duration = Duration::from_millis(10);

pub async fn run(args: &LocalArgs, secret: Option<&Path>) -> Result<ExitStatus> {
    match args.stop {
        true => stop(&args.dir).await,
        false => start(args, secret).await,
    }
}

async fn start(args: &LocalArgs, secret: Option<&Path>) -> Result<ExitStatus> {
    let failed = |e: std::io::Error| Error::new(ErrorKind::Io, format!("{}: {}", args.dir.display(), reason(&e)));
    std::fs::create_dir_all(&args.dir).map_err(failed)?;
    let dir = args.dir.canonicalize().map_err(failed)?;
    // Looked for by their directories, before the file that leads to them is written anew.
    if let Some(node) = (0..)
        .map_while(|node| node_dir(&dir, node).exists().then_some(node))
        .find(|&node| running_pid(&node_dir(&dir, node)).is_some())
    {
        let message = format!("{}: node {node} runs already; 's4 local --stop --dir {0}' stops it", dir.display());
        return Err(Error::new(ErrorKind::AlreadyExists, message));
    }
    let cluster = layout(&dir, args.nodes)?;
    let mut nodes = Nodes(Vec::new());
    for node in cluster.ids() {
        nodes.0.push(spawn(args, &dir, &cluster, node, secret)?);
    }
    let settings = Settings { secret: secret.map(Secret::read).transpose()?, ..Settings::default() };
    await_health(&Client::new(cluster.clone(), settings), &dir, &mut nodes).await?;
    if let Some(mountpoint) = &args.mount {
        start_mount(&dir, mountpoint, secret)?;
    }
    println!("export S4_CONF_PATH={}", conf_path(&dir).display());
    if args.detach {
        nodes.0.clear();
        return Ok(ExitStatus::Done);
    }
    eprintln!("s4: {} nodes run, Ctrl-C stops them", cluster.len());
    await_interrupt().await?;
    stop_mount(&dir)?;
    drop(nodes);
    Ok(ExitStatus::Done)
}

/// Reads or writes the cluster file. Ports that others have taken since the last run are replaced: the nodes' numbers,
/// and so the placement of keys, stay.
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
    // All are held until all are chosen, so that no port is chosen twice.
    let mut held = Vec::new();
    for node in 0..count {
        let old = before.as_ref().map(|cluster| cluster.address(node).port());
        let kept = old.and_then(|port| TcpListener::bind(("127.0.0.1", port)).ok());
        let listener = match kept {
            Some(listener) => listener,
            None => TcpListener::bind(("127.0.0.1", 0)).map_err(|e| Error::io("a free port", &e))?,
        };
        held.push(listener);
    }
    let mut text = String::new();
    for listener in &held {
        let address = listener.local_addr().map_err(|e| Error::io("a free port", &e))?;
        text += &format!("{address}\n");
    }
    std::fs::write(&path, &text).map_err(|e| Error::io(path.display(), &e))?;
    Cluster::parse(&text, &path)
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

/// The daemons of a cluster in the foreground. Dropped, they are stopped.
struct Nodes(Vec<Child>);

impl Drop for Nodes {
    fn drop(&mut self) {
        for child in &self.0 {
            // One that ended by itself needs no signal.
            let _ = kill(Pid::from_raw(child.id() as i32), Signal::SIGTERM);
        }
        for child in &mut self.0 {
            let _ = child.wait();
        }
    }
}

fn spawn(args: &LocalArgs, dir: &Path, cluster: &Cluster, node: usize, secret: Option<&Path>) -> Result<Child> {
    let path = log_path(dir, node);
    let log = OpenOptions::new().create(true).append(true).open(&path);
    let log = log.map_err(|e| Error::io(path.display(), &e))?;
    let copy = log.try_clone().map_err(|e| Error::io(path.display(), &e))?;
    let program = program("s4-server");
    let mut command = Command::new(&program);
    command.arg("--conf").arg(conf_path(dir)).arg("--data").arg(node_dir(dir, node));
    command.arg("--port").arg(cluster.address(node).port().to_string());
    if let Some(jobs) = args.jobs {
        command.arg("--jobs").arg(jobs.to_string());
    }
    if let Some(secret) = secret {
        command.arg("--secret").arg(secret);
    }
    // A group of its own: the terminal's Ctrl-C is for this program, which then ends the daemon in order.
    command.stdin(Stdio::null()).stdout(copy).stderr(log).process_group(0);
    command.spawn().map_err(|e| Error::io(format!("cannot start {}", program.display()), &e))
}

async fn await_health(client: &Client, dir: &Path, nodes: &mut Nodes) -> Result<()> {
    let began = Instant::now();
    for node in client.cluster().ids() {
        while let Err(error) = client.health(node).await {
            if let Ok(Some(status)) = nodes.0[node].try_wait() {
                let log = std::fs::read_to_string(log_path(dir, node)).unwrap_or_default();
                let last = log.lines().last().unwrap_or("it printed nothing");
                return Err(Error::new(ErrorKind::Config, format!("node {node} ended with {status}: {last}")));
            }
            if began.elapsed() > START {
                return Err(error);
            }
            tokio::time::sleep(PAUSE).await;
        }
    }
    Ok(())
}

async fn await_interrupt() -> Result<()> {
    let mut terminate = signal(SignalKind::terminate()).map_err(|e| Error::io("cannot wait for signals", &e))?;
    tokio::select! {
        _ = terminate.recv() => {}
        _ = tokio::signal::ctrl_c() => {}
    }
    Ok(())
}

/// Where the mount of a cluster is noted.
fn mount_note(dir: &Path) -> PathBuf {
    dir.join("mount")
}

/// Mounts the cluster in the background, and notes where.
fn start_mount(dir: &Path, mountpoint: &Path, secret: Option<&Path>) -> Result<()> {
    let path = dir.join("mount.log");
    let log = OpenOptions::new().create(true).append(true).open(&path).map_err(|e| Error::io(path.display(), &e))?;
    let mut command = mount::command(mountpoint, Some(&conf_path(dir)), secret);
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

/// Takes the noted mount away, if there is one.
fn stop_mount(dir: &Path) -> Result<()> {
    let note = mount_note(dir);
    let Ok(mountpoint) = std::fs::read(&note) else {
        return Ok(());
    };
    let mountpoint = Path::new(OsStr::from_bytes(&mountpoint));
    let program = if nix::unistd::geteuid().is_root() { "umount" } else { "fusermount3" };
    let flags: &[&str] = if program == "umount" { &["-l"] } else { &["-u", "-z"] };
    // One that was taken away by others needs nothing.
    let _ = Command::new(program).args(flags).arg(mountpoint).stderr(Stdio::null()).status();
    std::fs::remove_file(&note).map_err(|e| Error::io(note.display(), &e))
}

async fn stop(dir: &Path) -> Result<ExitStatus> {
    let path = conf_path(dir);
    if !path.exists() {
        return Err(Error::new(ErrorKind::NotFound, format!("{}: no cluster of 's4 local' is there", dir.display())));
    }
    stop_mount(dir)?;
    let cluster = Cluster::load(Some(&path))?;
    let running: Vec<(usize, i32)> =
        cluster.ids().filter_map(|node| Some((node, running_pid(&node_dir(dir, node))?))).collect();
    for (_, pid) in &running {
        // One that ended by itself needs no signal.
        let _ = kill(Pid::from_raw(*pid), Signal::SIGTERM);
    }
    let began = Instant::now();
    for (node, pid) in running {
        while running_pid(&node_dir(dir, node)) == Some(pid) {
            if began.elapsed() > STOP {
                let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
            }
            tokio::time::sleep(PAUSE).await;
        }
    }
    Ok(ExitStatus::Done)
}

/// The process that holds the lock of a data directory.
fn running_pid(data: &Path) -> Option<i32> {
    let path = data.join(".s4/lock");
    let file = File::open(&path).ok()?;
    match Flock::lock(file, FlockArg::LockSharedNonblock) {
        Ok(_) => None,
        Err(_) => std::fs::read_to_string(&path).ok()?.trim().parse().ok(),
    }
}
