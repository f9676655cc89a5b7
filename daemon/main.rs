//! The program `s4-server`: one node of a cluster.

mod app;
mod connections;
mod guard;
mod handlers;
mod jobs;
mod log;
mod monitoring;
mod mounts;
mod names;
#[cfg(test)]
mod names_model;
mod peer;
mod request_log;
mod resize;
mod route;
mod routes;
mod server;
mod store;
mod transfer;
mod upgrades;

use app::{App, Ending, IN_FLIGHT};
use clap::Parser;
use connections::Connections;
use jobs::{Jobs, Shared};
use listen_address::LocalNode;
use log::LogLevel;
use monitoring::Monitoring;
use names::Names;
use resize::Resize;
use s4::budget::MemoryBudget;
use s4::client::{Client, Secret, Settings, blocking};
use s4::cluster::Cluster;
use s4::error::{Error, ExitStatus, Result};
use s4::listen_address;
use s4::placement::NodeId;
use s4::resize::Sizes;
use s4::size::parse_size;
use std::net::SocketAddr;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};
use store::{Options, Store};
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use upgrades::Upgrades;

/// How long to retry if the address is in use.
const IN_USE: Duration = Duration::from_secs(1);

/// How long threads that use the store may continue after everything else has ended.
const LAST: Duration = Duration::from_millis(500);

/// The interval between two removals of unused files.
const IDLE_CHECK: Duration = Duration::from_secs(60);

/// The interval between two syncs, if keys were made. By then, older data is mostly on the disk already: the kernel
/// writes it after the same time.
const SYNC: Duration = Duration::from_secs(30);

/// Serve this machine's keys of an s4 cluster, and run commands next to them.
///
/// Whoever can reach a daemon can run commands on its machine: keep strangers off the network. Run it as a user of its own.
///
/// The daemon finds its own line in the cluster file by the addresses of this machine, and listens on that address only. When it
/// listens, it prints a line to stdout. Its log goes to stderr.
///
/// At its start it kills the commands that a killed predecessor left, and removes their files.
#[derive(Parser)]
#[command(name = "s4-server", version, max_term_width = 100, after_help = EXAMPLES, after_long_help = LONG)]
struct Args {
    /// The cluster file [default: $S4_CONF_PATH, else ~/.s4.conf]
    ///
    /// It has one 'host:port' a line, in the same order on every machine: see s4(1).
    #[arg(long, alias = "conf-path", short = 'c', value_name = "FILE")]
    conf: Option<PathBuf>,
    /// Which of this machine's lines in the cluster file to serve
    ///
    /// It is needed if there are several.
    #[arg(long, value_name = "PORT")]
    port: Option<u16>,
    /// Where the keys are
    ///
    /// The directory is made with --init. The file system must have unnamed temporary files (O_TMPFILE) and user extended
    /// attributes. The path must have no whitespace, quote or backslash. The directory belongs to one node number of one
    /// number of nodes, and is refused with others.
    #[arg(long, value_name = "DIR", default_value = "./s4_data")]
    data: PathBuf,
    /// Commands of maps that run at once [default: the number of CPUs + 2]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    jobs: Option<u16>,
    /// Free space to keep: bytes, or with K, M, G or T [default: a twentieth of the disk, at most 4G]
    ///
    /// The units are powers of 1,024. With less free space, the node takes no keys and starts no tasks; deleting works.
    #[arg(long, value_name = "SIZE", value_parser = parse_size)]
    reserve: Option<u64>,
    /// Make the data directory of this node, which a start never does, and end
    ///
    /// So a daemon whose disk is not mounted is no empty node. A directory that holds anything and does not say that it is
    /// this node's is refused.
    #[arg(long)]
    init: bool,
    /// Sync each key to the disk before it is published
    ///
    /// Without it, keys of the last half minute before a power cut may be lost: they are removed at the next start if they
    /// are not whole.
    #[arg(long)]
    fsync: bool,
    /// Require this file's first line, a shared secret, of every request
    ///
    /// The secret has at least 16 printable ASCII characters. Without this option and S4_SECRET_PATH, the file is the cluster
    /// file's name with .secret appended, if there is such a file.
    #[arg(long, value_name = "FILE", env = "S4_SECRET_PATH", hide_env_values = true)]
    secret: Option<PathBuf>,
    /// What is logged to stderr: all from this level on; debug has a line for each request
    ///
    /// Each level has all before it. From 'warn' on, refused and failed requests are logged: ten of each kind in ten seconds,
    /// and a count of the others. From 'info' on, the begin and the end of jobs. Commands, their variables, headers and bodies
    /// are never logged.
    #[arg(long, value_name = "LEVEL", env = "S4_LOG", default_value = "info", hide_env_values = true)]
    log: LogLevel,
}

const EXAMPLES: &str = "\
Whoever can reach a daemon can run commands on its machine: keep strangers off the network.

Example: a cluster of one on this machine
  echo 127.0.0.1:8080 > ~/.s4.conf
  s4-server --data /mnt/nvme/s4 --init
  s4-server --data /mnt/nvme/s4";

const LONG: &str = "\
Example: a cluster of one on this machine
  echo 127.0.0.1:8080 > ~/.s4.conf
  s4-server --data /srv/s4/data --init
  s4-server --data /srv/s4/data &

Example: two nodes on one machine, with two lines in the cluster file, once their data directories are made
  s4-server --port 8080 --data /srv/disk0/s4 &
  s4-server --port 8081 --data /srv/disk1/s4 &

Signals:
  SIGTERM, SIGINT   Take no more connections, let what is under way finish for 3 seconds, kill all
                    commands, and end.

Environment:
  S4_CONF_PATH      The cluster file.
  S4_SECRET_PATH    The value of --secret.
  S4_LOG            The value of --log.

Commands inherit the daemon's whole environment. If an s4 is beside s4-server and their PATH leads to another one or to
none, the directory of both comes first on it.

Files:
  ~/.s4.conf        The cluster file.
  DIR/bucket/key    A key in the data directory: a plain file of mode 0444, with its checksum and
                    length in the extended attribute 'user.s4.key'. Do not change these files, and put
                    none there.
  DIR/.s4/          The daemon's own: its lock, whose node this is, and the files of running jobs.

Exit status:
  0   ended by a signal
  1   could not start; the reason is on stderr
  2   wrong usage";

fn main() -> ExitCode {
    let args = Args::parse();
    let status = match run(args) {
        Ok(()) => ExitStatus::Done,
        Err(error) => {
            eprintln!("s4-server: {error}");
            error.kind().exit_status()
        }
    };
    ExitCode::from(status.code())
}

fn run(args: Args) -> Result<()> {
    let cluster = Cluster::load(args.conf.as_deref())?;
    let local = listen_address::find(&cluster, args.port)?;
    log::start(args.log, cluster.name(local.node).to_string());
    s4::limits::tune_malloc();
    s4::limits::raise_descriptors();
    s4::limits::keep_descriptors();
    let secret = Secret::find(args.secret.as_deref(), args.conf.as_deref())?;
    if args.init {
        let options = options(&args, local.node, cluster.len(), None);
        let made = if store::init(&options)? { "made" } else { "was made before" };
        println!("s4-server: data directory {} of node {}: {made}", options.dir.display(), options.node);
        return Ok(());
    }
    let state = resize::read(&args.data)?;
    let cluster = resize::list_of(state.as_ref(), cluster, local.node)?;
    let sizes = state.as_ref().map(|state| state.lists.sizes());
    let store = Arc::new(Store::open(options(&args, local.node, cluster.len(), sizes))?);
    let ending = store.clone();
    let runtime = s4::runtime::build()?;
    let served = runtime.block_on(serve(&args, (cluster, state), local, secret, store));
    // Threads that still wait for a peer or the disk end with the process.
    runtime.shutdown_timeout(LAST);
    if let Ok(Some(Ending::Restart)) = served {
        // As after a kill: what the nodes know of each other's directories is compared.
        return Err(Error::io("cannot start again", &restart()));
    }
    // If a thread still uses the store, it may still publish. Then the store is left as after a kill.
    if let Some(store) = Arc::into_inner(ending)
        && let Err(error) = store.end()
    {
        tracing::warn!("the data directory is not marked as stopped in order: {error}");
    }
    served.map(drop)
}

fn options(args: &Args, node: NodeId, nodes: usize, resize: Option<Sizes>) -> Options {
    Options { dir: args.data.clone(), reserve: args.reserve, fsync: args.fsync, node, nodes, resize }
}

/// Replaces this process by the same program with the same arguments. Returns only if that fails.
fn restart() -> std::io::Error {
    let mut args = std::env::args_os();
    let name = args.next().unwrap_or_default();
    // The file may have been replaced since; then the path does not lead to it.
    let program = std::env::current_exe().ok().filter(|path| path.exists()).unwrap_or("/proc/self/exe".into());
    std::process::Command::new(program).arg0(name).args(args).exec()
}

/// Serves until the daemon is to end. Returns why it ends by itself, if it does.
async fn serve(
    args: &Args,
    (cluster, state): (Cluster, Option<resize::State>),
    local: LocalNode,
    secret: Option<Secret>,
    store: Arc<Store>,
) -> Result<Option<Ending>> {
    let LocalNode { node, address } = local;
    let name = cluster.name(node).to_string();
    let failed = |e: std::io::Error| Error::io(format!("{name}: cannot listen"), &e);
    // Connections are accepted from now on, and served after the recovery.
    let listener = listen(address).await.map_err(failed)?;
    let signalled = shutdown_signal()?;
    let client_of =
        |cluster: &Cluster| Client::new(cluster.clone(), Settings { secret: secret.clone(), ..Settings::default() });
    let client = client_of(&cluster);
    let resize = state.map(|state| {
        let client = client_of(state.lists.after());
        Arc::new(Resize::new(state, node, client, store.clone()))
    });
    let cpus = std::thread::available_parallelism().map_or(1, usize::from);
    let slots = args.jobs.map_or(cpus + 2, usize::from);
    let data = store.root().display().to_string();
    let names = Names::new(store.clone(), client.clone(), node);
    let shared = Arc::new(Shared::new(store, client, names.clone(), node, slots)?);
    let jobs = Arc::new(Jobs::open(shared)?);
    println!("s4-server: node {node} of {} on {}, data in {data}", cluster.len(), cluster.address(node));
    let host = cluster.address(node).host().to_owned();
    let app = Arc::new(App {
        jobs,
        names: names.clone(),
        digest: cluster.digest(),
        cluster,
        node,
        secret,
        started: Instant::now(),
        resize,
        conf: s4::cluster::conf_path(args.conf.as_deref())?,
        ending: watch::Sender::new(None),
        watch: Monitoring::default(),
        upgrades: Upgrades::new(),
        connections: Connections::new(),
        scrubbing: Arc::default(),
        requests: Arc::default(),
        in_flight: MemoryBudget::new(IN_FLIGHT),
    });
    let (sampler, views) = (app.watch.sampler.clone(), app.watch.views.clone());
    tokio::spawn(monitoring::sample_until_the_end(sampler, views, app.jobs.shared.clone(), host));
    if app.resize.is_none() {
        tokio::spawn(close_idle(app.jobs.clone()));
        tokio::spawn(names.start());
    }
    tokio::spawn(sync_now_and_then(app.jobs.shared.store.clone()));
    let mut by_itself = app.ending.subscribe();
    let shutdown = async {
        tokio::select! {
            () = signalled => None,
            // An error means that the daemon has ended.
            ending = by_itself.wait_for(Option::is_some) => ending.ok().and_then(|ending| *ending),
        }
    };
    Ok(server::run(listener, app, shutdown).await)
}

/// Closes keys that nobody reads any more, and removes files that no job needs and uploads that nobody
/// touches, until the process ends.
async fn close_idle(jobs: Arc<Jobs>) {
    loop {
        tokio::time::sleep(IDLE_CHECK).await;
        let jobs = jobs.clone();
        blocking(move || {
            jobs.shared.store.close_idle_files();
            jobs.shared.names.settle_unreported();
            jobs.remove_unused_files();
            jobs.shared.store.expire_uploads();
        })
        .await;
    }
}

/// Syncs new keys to the disk, until the process ends.
async fn sync_now_and_then(store: Arc<Store>) {
    loop {
        tokio::time::sleep(SYNC).await;
        let store = store.clone();
        blocking(move || {
            if let Err(error) = store.sync() {
                tracing::warn!("cannot sync {}: {error}", store.root().display());
            }
        })
        .await;
    }
}

/// Listens at `address`. The address may be in use for a moment: a child of a killed daemon holds the socket until its
/// execve.
async fn listen(address: SocketAddr) -> std::io::Result<TcpListener> {
    let began = Instant::now();
    loop {
        match TcpListener::bind(address).await {
            Err(e) if e.kind() == std::io::ErrorKind::AddrInUse && began.elapsed() < IN_USE => {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            done => return done,
        }
    }
}

/// Resolves at the first SIGTERM or SIGINT.
fn shutdown_signal() -> Result<impl Future<Output = ()>> {
    let failed = |e: std::io::Error| Error::io("cannot wait for signals", &e);
    let mut terminate = signal(SignalKind::terminate()).map_err(failed)?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(failed)?;
    Ok(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
    })
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
        let see_also = ["s4(1)"];
        let page = s4_manual::Page { section: 8, see_also: &see_also, ..s4_manual::Page::default() };
        s4_manual::check("s4-server.8", &s4_manual::render(&command, &page));
    }
}
