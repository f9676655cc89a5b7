//! `s4 cluster resize`: drives the nodes through a resize. What was begun is recorded on the nodes alone, so the same
//! command goes on after an interruption. Node 0 is in both lists; once it has ended its part, the resize is decided.

use crate::cli::{Global, ResizeArgs};
use crate::commands::console::print_message;
use crate::commands::display::{Display, bar, is_terminal};
use crate::commands::format::{counted, cut, seconds_text, size_text};
use s4::client::{Client, Secret, Settings};
use s4::cluster::{Cluster, conf_path};
use s4::error::{Error, ErrorKind, ExitStatus, Result};
use s4::placement::NodeId;
use s4::protocol::{Moved, ResizePlan};
use s4::resize::Lists;
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use tokio::task::JoinSet;
use tokio::time::sleep;

/// How long a node may take to restart.
const RESTART: Duration = Duration::from_secs(60);
/// How long a node may go on for an earlier client that is gone.
const EARLIER: Duration = Duration::from_secs(60);
const PAUSE: Duration = Duration::from_millis(50);
/// How often the progress is drawn.
const TICK: Duration = Duration::from_millis(200);
/// How often the move is repeated because a node was restarted meanwhile.
const ROUNDS: usize = 5;

/// What a node is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// It serves by the list before.
    Before,
    Resizing,
    /// It serves by the list after.
    After,
}

struct Driver {
    lists: Lists,
    before: Client,
    after: Client,
}

/// What was moved.
#[derive(Default)]
struct Sum {
    moved: Moved,
    /// Keys and bytes of the cluster; `None` if an earlier command began, since some keys may be on two nodes then.
    all: Option<(u64, u64)>,
}

/// Resizes a cluster whose nodes run with their lists already.
pub async fn run(global: &Global, args: &ResizeArgs) -> Result<ExitStatus> {
    let [given] = &args.new[..] else {
        let message = "'s4 cluster up' did not make this cluster: give one cluster file with the new list";
        return Err(Error::usage(message.to_owned()));
    };
    let given = Path::new(given);
    let (conf, new) = (Cluster::load(global.conf_path.as_deref())?, Cluster::load(Some(given))?);
    let settings = settings(global)?;
    let lists = match conf.digest() == new.digest() {
        false => Lists::new(conf, new.clone())?,
        true => match under_way(&Client::new(new.clone(), settings.clone())).await? {
            Some(lists) => lists,
            None => {
                print_message(format_args!("the cluster has these {} nodes; nothing is moved", new.len()));
                return Ok(ExitStatus::Done);
            }
        },
    };
    if args.dry_run {
        return describe(lists, settings, false).await.map(|()| ExitStatus::Done);
    }
    drive(lists, settings).await?;
    tell_of_conf(&conf_path(global.conf_path.as_deref())?, given, &new);
    Ok(ExitStatus::Done)
}

pub fn settings(global: &Global) -> Result<Settings> {
    let secret = Secret::find(global.secret.as_deref(), global.conf_path.as_deref())?;
    Ok(Settings { deadline: global.deadline, secret, ..Settings::default() })
}

/// Resizes, and prints what was moved.
pub async fn drive(lists: Lists, settings: Settings) -> Result<()> {
    let nodes = lists.after().len() as u64;
    let began = Instant::now();
    let sum = Driver::new(lists, settings).resize().await;
    let Sum { moved, all } = sum.map_err(|error| error.with_more("when that is mended, the same command goes on"))?;
    let seconds = began.elapsed().as_secs_f64();
    let rate = size_text((moved.bytes as f64 / seconds.max(0.001)) as u64);
    let what = match all {
        Some((keys, bytes)) => {
            format!("{} of {}, {} of {}", moved.keys, counted(keys, "key"), size_text(moved.bytes), size_text(bytes))
        }
        None => format!("{} that were left, {}", counted(moved.keys, "key"), size_text(moved.bytes)),
    };
    print_message(format_args!(
        "moved {what}, in {} ({rate}/s); the cluster has {} now",
        seconds_text(seconds),
        counted(nodes, "node")
    ));
    Ok(())
}

/// Prints what a resize would move, and moves nothing. `gives_conf`: the resize would replace the cluster files over ssh.
pub async fn describe(lists: Lists, settings: Settings, gives_conf: bool) -> Result<()> {
    let driver = Driver::new(lists, settings);
    // Hosts that are to be added have no daemon yet.
    let nodes = if gives_conf { driver.lists.before().ids() } else { driver.lists.ids() };
    let grows = driver.lists.sizes().after > driver.lists.sizes().before;
    let plans = driver.on(nodes, |driver, node| async move { driver.check(node, gives_conf).await }).await?;
    driver.check_room(&plans)?;
    let moving: u64 = plans.iter().flat_map(|plan| &plan.to).map(|(_, bytes)| bytes).sum();
    let sum = |count: fn(&ResizePlan) -> u64| plans.iter().map(count).sum::<u64>();
    print_message(format_args!(
        "would move {} of {}, {} of {}; nothing was changed{}",
        sum(|plan| plan.moved_keys),
        counted(sum(|plan| plan.keys), "key"),
        size_text(moving),
        size_text(sum(|plan| plan.bytes)),
        if gives_conf && grows { "; whether new hosts have room for that is not known" } else { "" }
    ));
    Ok(())
}

/// Tells what is left to do if this machine's cluster file has the old list.
fn tell_of_conf(conf: &Path, given: &Path, new: &Cluster) {
    if !Cluster::load(Some(conf)).is_ok_and(|found| found.digest() == new.digest()) {
        let (conf, given) = (conf.display(), given.display());
        print_message(format_args!("{conf} has the old list, which is refused from now on; put {given} in its place"));
    }
}

/// The lists of a resize that was interrupted when some nodes had the new list already.
async fn under_way(client: &Client) -> Result<Option<Lists>> {
    let states = client.on_every_node(|client, node| async move { client.resize_state(node).await }).await;
    let mut lists = None;
    for state in states {
        lists = state?.lists.or(lists);
    }
    Ok(lists)
}

impl Driver {
    fn new(lists: Lists, settings: Settings) -> Arc<Self> {
        let before = Client::new(lists.before().clone(), settings.clone());
        let after = Client::new(lists.after().clone(), settings);
        Arc::new(Self { lists, before, after })
    }

    async fn resize(self: Arc<Self>) -> Result<Sum> {
        let mut sum = Sum::default();
        // Once node 0 has ended, nodes that leave may be gone.
        if self.phase(0).await?.0 != Phase::After {
            let phases = self.phases().await?;
            let plans = self.on_all(|driver, node| async move { driver.check(node, false).await }).await?;
            self.check_room(&plans)?;
            let has_begun = phases.iter().any(|(phase, _)| *phase == Phase::Resizing);
            let add = |sum: (u64, u64), plan: &ResizePlan| (sum.0 + plan.keys, sum.1 + plan.bytes);
            sum.all = (!has_begun).then(|| plans.iter().fold((0, 0), add));
            self.on_all(|driver, node| async move { driver.begin(node).await }).await?;
            sum.moved = self.clone().move_all().await?;
            self.end(0).await?;
        }
        // Nodes that leave next, while others can still say what the lists are.
        for is_leaving in [true, false] {
            let rest = self.lists.ids().filter(|&node| self.lists.leaves(node) == is_leaving);
            self.on(rest, |driver, node| async move { driver.end(node).await }).await?;
        }
        Ok(sum)
    }

    /// Runs `ask` for all nodes at once. Errors: all but the first are printed.
    async fn on_all<T, F>(self: &Arc<Self>, ask: impl Fn(Arc<Self>, NodeId) -> F) -> Result<Vec<T>>
    where
        T: Send + 'static,
        F: Future<Output = Result<T>> + Send + 'static,
    {
        self.on(self.lists.ids(), ask).await
    }

    async fn on<T, F>(
        self: &Arc<Self>,
        nodes: impl Iterator<Item = NodeId>,
        ask: impl Fn(Arc<Self>, NodeId) -> F,
    ) -> Result<Vec<T>>
    where
        T: Send + 'static,
        F: Future<Output = Result<T>> + Send + 'static,
    {
        let mut asked = JoinSet::new();
        for node in nodes {
            let asking = ask(self.clone(), node);
            asked.spawn(async move { (node, asking.await) });
        }
        let (mut answers, mut failed) = (BTreeMap::new(), BTreeMap::new());
        while let Some(answer) = asked.join_next().await {
            match answer.unwrap_or_else(|error| std::panic::resume_unwind(error.into_panic())) {
                (node, Ok(answer)) => _ = answers.insert(node, answer),
                (node, Err(error)) => _ = failed.insert(node, error),
            }
        }
        let mut failed = failed.into_values();
        match failed.next() {
            None => Ok(answers.into_values().collect()),
            Some(first) => {
                failed.for_each(print_message);
                Err(first)
            }
        }
    }

    /// The client for a node that is being resized, which knows both lists.
    fn client(&self, node: NodeId) -> &Client {
        if self.lists.leaves(node) { &self.before } else { &self.after }
    }

    async fn phases(self: &Arc<Self>) -> Result<Vec<(Phase, String)>> {
        self.on_all(|driver, node| async move { driver.phase(node).await }).await
    }

    /// What the node is doing, and its token.
    async fn phase(&self, node: NodeId) -> Result<(Phase, String)> {
        let clients = [(&self.after, Phase::After), (&self.before, Phase::Before)];
        let mut refused = None;
        for (client, phase) in clients.into_iter().filter(|(client, _)| client.cluster().ids().contains(&node)) {
            match client.resize_state(node).await {
                Ok(state) => {
                    let phase = match state.lists {
                        None => phase,
                        Some(lists) if lists == self.lists => Phase::Resizing,
                        Some(lists) => {
                            let (name, sizes) = (client.cluster().name(node), lists.sizes());
                            let message = format!(
                                "{name}: another resize is under way, from {} to {} nodes; end that first",
                                sizes.before, sizes.after
                            );
                            return Err(Error::new(ErrorKind::Busy, message));
                        }
                    };
                    return Ok((phase, state.token));
                }
                Err(error) if error.kind() == ErrorKind::ClusterMismatch => refused = Some(error),
                Err(error) => return Err(error),
            }
        }
        Err(refused.unwrap_or_else(|| Error::new(ErrorKind::NotFound, format!("there is no node {node}"))))
    }

    async fn check(&self, node: NodeId, gives_conf: bool) -> Result<ResizePlan> {
        let (phase, _) = self.phase(node).await?;
        let client = if phase == Phase::Before { &self.before } else { self.client(node) };
        client.check_resize(node, &self.lists, gives_conf).await
    }

    /// Refuses if a node would get more than it has room for.
    fn check_room(&self, plans: &[ResizePlan]) -> Result<()> {
        let mut coming: BTreeMap<NodeId, u64> = BTreeMap::new();
        for (node, bytes) in plans.iter().flat_map(|plan| &plan.to) {
            *coming.entry(*node).or_default() += bytes;
        }
        for (node, coming) in coming {
            let Some(plan) = plans.get(node) else { continue };
            let going: u64 = plan.to.iter().map(|(_, bytes)| bytes).sum();
            if coming > plan.room.saturating_add(going) {
                let (name, coming) = (self.lists.name(node), size_text(coming));
                let room = size_text(plan.room + going);
                let message = format!("{name}: no space: it would get {coming}, and has room for {room}");
                return Err(Error::new(ErrorKind::NoSpace, message));
            }
        }
        Ok(())
    }

    /// Begins the resize on a node, and waits until the node has restarted.
    async fn begin(&self, node: NodeId) -> Result<()> {
        let (phase, _) = self.phase(node).await?;
        if phase != Phase::Resizing {
            let client = if phase == Phase::Before { &self.before } else { &self.after };
            client.begin_resize(node, &self.lists).await?;
        }
        self.wait_for(node, Phase::Resizing).await
    }

    async fn wait_for(&self, node: NodeId, wanted: Phase) -> Result<()> {
        let began = Instant::now();
        loop {
            let found = self.phase(node).await;
            match found {
                Ok((phase, _)) if phase == wanted => return Ok(()),
                Err(error) if began.elapsed() > RESTART => return Err(error),
                Ok(_) if began.elapsed() > RESTART => {
                    let message = format!("{}: it does not restart", self.lists.name(node));
                    return Err(Error::new(ErrorKind::Deadline, message));
                }
                Err(error) if error.kind() == ErrorKind::ClusterMismatch => return Err(error),
                Ok(_) | Err(_) => sleep(PAUSE).await,
            }
        }
    }

    /// Makes all nodes move, until they have done so without a restart: a node that went down may have lost what it
    /// got last.
    async fn move_all(self: Arc<Self>) -> Result<Moved> {
        let mut moved = Moved::default();
        for _ in 0..ROUNDS {
            let tokens = self.phases().await?;
            moved += self.move_once().await?;
            // From here on, no node can lose what it has got.
            self.on_all(|driver, node| async move { driver.client(node).sync_moved(node).await }).await?;
            if self.phases().await? == tokens {
                return Ok(moved);
            }
        }
        Err(Error::new(ErrorKind::Unreachable, "nodes are restarted again and again"))
    }

    async fn move_once(self: &Arc<Self>) -> Result<Moved> {
        let progress: Arc<Mutex<BTreeMap<NodeId, Moved>>> = Arc::default();
        let moving = self.on_all(|driver, node| {
            let progress = progress.clone();
            async move { driver.move_node(node, &progress).await }
        });
        tokio::pin!(moving);
        let (mut display, began) = (is_terminal().then(Display::default), Instant::now());
        let moved = loop {
            tokio::select! {
                moved = &mut moving => break moved?,
                () = sleep(TICK) => {
                    let sum = sum_of(progress.lock().unwrap_or_else(PoisonError::into_inner).values());
                    if let Some(display) = &mut display {
                        display.draw(|width, _| vec![cut(&line(sum, began.elapsed(), width), width)]);
                    }
                }
            }
        };
        Ok(sum_of(moved.iter()))
    }

    async fn move_node(&self, node: NodeId, progress: &Mutex<BTreeMap<NodeId, Moved>>) -> Result<Moved> {
        let began = Instant::now();
        loop {
            let note = |moved| _ = progress.lock().unwrap_or_else(PoisonError::into_inner).insert(node, moved);
            match self.client(node).move_keys(node, note).await {
                // It ends what it does for a client that is gone.
                Err(error) if error.kind() == ErrorKind::Busy && began.elapsed() < EARLIER => sleep(PAUSE).await,
                moved => return moved,
            }
        }
    }

    /// Ends the resize on a node, if it has not ended there.
    async fn end(&self, node: NodeId) -> Result<()> {
        let is_leaving = self.lists.leaves(node);
        match self.phase(node).await {
            Ok((Phase::After, _)) => return Ok(()),
            // A node that has left is gone.
            Err(_) if is_leaving => return Ok(()),
            phase => phase.map(drop)?,
        }
        self.client(node).end_resize(node).await?;
        if is_leaving { Ok(()) } else { self.wait_for(node, Phase::After).await }
    }
}

fn sum_of<'m>(moved: impl Iterator<Item = &'m Moved>) -> Moved {
    moved.fold(Moved::default(), |mut sum, moved| {
        sum += *moved;
        sum
    })
}

/// One line of at most `width` characters.
fn line(moved: Moved, elapsed: Duration, width: usize) -> String {
    let rate = size_text((moved.bytes as f64 / elapsed.as_secs_f64().max(0.001)) as u64);
    let (bytes, all) = (size_text(moved.bytes), size_text(moved.all_bytes));
    let text = format!(" {} of {} keys moved, {bytes} of {all}, {rate}/s", moved.keys, moved.all_keys);
    let share = moved.keys as f64 / moved.all_keys.max(1) as f64;
    bar(share.min(1.0), width.saturating_sub(text.len())) + &text
}
