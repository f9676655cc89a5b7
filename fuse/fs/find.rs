//! What a name is: which nodes are asked, and what their answers make of it.

use super::Fs;
use crate::errno::{Result, errno, io_errno};
use nix::errno::Errno;
use s4::client::Client;
use s4::error::{Error, Result as S4Result};
use s4::key::Key;
use s4::placement::{self, NodeId};
use s4::protocol::{KeyStat, RELIANCE, Stat, Told};
use s4::stored;
use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use tokio::task::JoinSet;

/// How long the node of a key is waited for before the others are asked about its name too, or believed.
const HOME_FIRST: Duration = Duration::from_millis(20);

/// Names missed in a directory one after the other from which on there are leases asked for: where some are made, more will be.
const SOME: usize = 4;

/// Directories with leases at once.
const MOST: usize = 64;

/// What a name turned out to be.
pub(super) enum Found {
    Key(Key, KeyStat),
    Dir,
    Absent,
}

impl Fs {
    /// What `path` is. A key is known to its own node, which is asked first. A directory is wherever it has keys, so that the others
    /// are asked too where the name is no key, or its node is slow, or no key is expected; but not while all of them have given a
    /// lease on where it is. The key hides a directory of its name: its node has its say, unless it hangs.
    pub(super) async fn find(&self, path: &str) -> Result<Found> {
        let (dir, name) = path.rsplit_once('/').unwrap_or(("", path));
        // A bucket is never a key, so no node knows it better than others.
        let home = (!dir.is_empty()).then(|| placement::node_of_basename(name, self.client.cluster().len()));
        let misses = self.misses.in_a_row(dir);
        let found = self.find_after(misses, path, dir, home).await?;
        match found {
            Found::Absent => self.misses.note(dir),
            Found::Key(..) => self.misses.end(dir),
            Found::Dir => {}
        }
        Ok(found)
    }

    async fn find_after(&self, misses: usize, path: &str, dir: &str, home: Option<NodeId>) -> Result<Found> {
        let mut answers = Answers::default();
        answers.home = home;
        let mut remote = Vec::new();
        for node in self.client.cluster().ids() {
            match self.local.dir(node) {
                Some(data) => answers.take(node, Ok(told(stored::stat(data, path).map_err(io_errno)?))),
                None => remote.push(node),
            }
        }
        if let Some(found) = answers.found(path, true) {
            return found;
        }
        let leased = self.misses.has_lease(dir);
        let mut lease = None;
        if misses == 0 || leased || answers.is_dir {
            if let Some(home) = home.filter(|home| remote.contains(home)) {
                remote.retain(|&node| node != home);
                answers.ask(&self.client, &[home], path, false);
                let heard = async { while !answers.home_said && answers.hear().await {} };
                let _ = tokio::time::timeout(HOME_FIRST, heard).await;
            }
            let said = answers.home_said;
            if let Some(found) = answers.found(path, false) {
                return found;
            }
            if leased && said {
                return answers.nothing();
            }
        } else if misses >= SOME && !dir.is_empty() {
            lease = Some(self.misses.ask_lease(dir));
        }
        answers.ask(&self.client, &remote, path, lease.is_some());
        let patience = tokio::time::sleep(HOME_FIRST);
        tokio::pin!(patience);
        let mut patient = true;
        loop {
            if let Some(found) = answers.found(path, patient) {
                return found;
            }
            tokio::select! {
                biased;
                more = answers.hear() => if !more {
                    break;
                },
                () = &mut patience, if patient => patient = false,
            }
        }
        if let Some(asked) = lease
            && answers.leases == remote.len()
        {
            self.misses.keep_lease(dir, asked);
        }
        answers.nothing()
    }
}

/// Nodes that were asked what a name is, and what they have said.
#[derive(Default)]
struct Answers {
    /// The own node of a key of this name.
    home: Option<NodeId>,
    /// Those that are here.
    answered: Vec<(NodeId, S4Result<Told>)>,
    awaited: JoinSet<(NodeId, S4Result<Told>)>,
    home_said: bool,
    key: Option<KeyStat>,
    is_dir: bool,
    leases: usize,
    /// Why it is not known whether there is a key.
    failed: Option<Error>,
}

impl Answers {
    fn ask(&mut self, client: &Client, nodes: &[NodeId], path: &str, lease: bool) {
        let mut left = nodes.to_vec();
        for (node, soon) in client.tell_soon(nodes, path, lease) {
            left.retain(|&other| other != node);
            match soon {
                Ok(told) => self.answered.push((node, told)),
                Err(later) => {
                    let (client, path) = (client.clone(), path.to_owned());
                    self.awaited.spawn(async move { (node, client.tell_later(later, &path).await) });
                }
            }
        }
        for node in left {
            let (client, path) = (client.clone(), path.to_owned());
            self.awaited.spawn(async move { (node, client.tell(node, &path, lease).await) });
        }
    }

    /// Takes the next answer. False if none is to come.
    async fn hear(&mut self) -> bool {
        let next = match self.answered.pop() {
            Some(answered) => Some(answered),
            None => self.awaited.join_next().await.and_then(std::result::Result::ok),
        };
        let Some((node, told)) = next else { return false };
        self.take(node, told);
        true
    }

    fn take(&mut self, node: NodeId, told: S4Result<Told>) {
        let at_home = Some(node) == self.home;
        self.home_said |= at_home;
        match told {
            Ok(Told { stat, lease }) => {
                self.leases += usize::from(lease);
                match stat {
                    Stat::Key(stat) if at_home => self.key = Some(stat),
                    Stat::Dir { .. } => self.is_dir = true,
                    Stat::Key(_) | Stat::Absent => {}
                }
            }
            // Where its own node says that there is no key, others could only tell of a directory. One that is on dead nodes
            // alone is as gone as its keys.
            Err(error) if at_home || self.home.is_none() => self.failed = Some(error),
            Err(error) => tracing::debug!("{error}"),
        }
    }

    /// What it is, as far as answers have come. With `patient`, a directory only if there is no key, or none can be.
    fn found(&mut self, path: &str, patient: bool) -> Option<Result<Found>> {
        if let Some(stat) = self.key.take() {
            return Some(Key::parse(path).map(|key| Found::Key(key, stat)).map_err(|_| Errno::EINVAL));
        }
        let is_sure = !patient || self.home_said || self.home.is_none();
        (self.is_dir && is_sure).then_some(Ok(Found::Dir))
    }

    /// What it is that nobody knows.
    fn nothing(&mut self) -> Result<Found> {
        self.failed.take().map_or(Ok(Found::Absent), |error| Err(errno(&error)))
    }
}

impl Drop for Answers {
    fn drop(&mut self) {
        // A request that is broken off would cost its connection.
        self.awaited.detach_all();
    }
}

fn told(stat: Stat) -> Told {
    Told { stat, lease: false }
}

/// Where names were looked for in vain, and where no directory can come to be. Guards both.
#[derive(Default)]
pub struct Misses(Mutex<State>);

#[derive(Default)]
struct State {
    /// The directory in which a name was last missed, and how many before it.
    dir: String,
    in_a_row: usize,
    /// By directory.
    leases: HashMap<String, Lease>,
}

enum Lease {
    AskedAt(Instant),
    Until(Instant),
}

impl Misses {
    fn in_a_row(&self, dir: &str) -> usize {
        let state = self.lock();
        if state.dir == dir { state.in_a_row } else { 0 }
    }

    fn note(&self, dir: &str) {
        let mut state = self.lock();
        if state.dir != dir {
            dir.clone_into(&mut state.dir);
            state.in_a_row = 0;
        }
        state.in_a_row += 1;
    }

    fn end(&self, dir: &str) {
        let mut state = self.lock();
        if state.dir == dir {
            state.in_a_row = 0;
        }
    }

    fn has_lease(&self, dir: &str) -> bool {
        matches!(self.lock().leases.get(dir), Some(Lease::Until(until)) if *until > Instant::now())
    }

    /// To be called before any node is asked. Returns when.
    fn ask_lease(&self, dir: &str) -> Instant {
        let (mut state, now) = (self.lock(), Instant::now());
        if state.leases.len() >= MOST {
            state.leases.clear();
        }
        state.leases.insert(dir.to_owned(), Lease::AskedAt(now));
        now
    }

    /// All nodes have given their lease on `dir`, unless it has ended meanwhile.
    fn keep_lease(&self, dir: &str, asked: Instant) {
        if let Some(lease) = self.lock().leases.get_mut(dir)
            && matches!(lease, Lease::AskedAt(at) if *at == asked)
        {
            *lease = Lease::Until(asked + RELIANCE);
        }
    }

    /// Ends the leases above `dir`, in which something was made by us, whom they do not bind: directories may have come with it.
    pub fn made_in(&self, dir: &str) {
        let mut state = self.lock();
        if state.leases.is_empty() {
            return;
        }
        for (end, _) in dir.match_indices('/') {
            state.leases.remove(&dir[..end]);
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
