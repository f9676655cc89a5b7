//! What a name is: which nodes are asked, and what their answers make of it.

use super::Fs;
use super::misses::Missing;
use crate::errno::{Result, errno, io_errno};
use nix::errno::Errno;
use s4::client::Client;
use s4::error::{Error, ErrorKind, Result as S4Result};
use s4::key::Key;
use s4::placement::{self, NodeId};
use s4::protocol::{Book, KeyStat, Stat, Told};
use s4::stored;
use std::time::Duration;
use tokio::task::JoinSet;

/// How long the node of a key is waited for before the others are asked about its name too, or believed.
const HOME_FIRST: Duration = Duration::from_millis(20);

/// What a name turned out to be.
pub(super) enum Found {
    Key(Key, KeyStat),
    Dir,
    Absent,
}

impl Fs {
    /// What `path` is. A key is known to its own node, which is asked first. A directory is wherever it has keys, so that the others
    /// are asked too where the name is no key, or its node is slow, or no key is expected; but not while all of them have given a
    /// lease on where it is. By an exclusive one of its own node, nobody is. The key hides a directory of its name: its node has its
    /// say, unless it hangs.
    pub(super) async fn find(&self, path: &str) -> Result<Found> {
        let (dir, name) = path.rsplit_once('/').unwrap_or(("", path));
        // A bucket is never a key, so no node knows it better than others.
        let home = (!dir.is_empty()).then(|| placement::node_of_basename(name, self.client.cluster().len()));
        let found = self.find_after(self.misses.missing(dir), path, dir, home).await?;
        self.misses.note(dir, &found);
        match &found {
            Found::Dir => self.known.add(path),
            Found::Key(..) | Found::Absent => {}
        }
        Ok(found)
    }

    /// What it is that no node has told of. A directory may be on those alone that have not answered.
    fn nothing(&self, path: &str, answers: &mut Answers) -> Result<Found> {
        let unsure = answers.failed.take().or_else(|| answers.unheard.take().filter(|_| self.known.contains(path)));
        match unsure {
            Some(error) => Err(errno(&error)),
            None => Ok(Found::Absent),
        }
    }

    async fn find_after(&self, missing: Missing, path: &str, dir: &str, home: Option<NodeId>) -> Result<Found> {
        let mut answers = Answers::default();
        answers.home = home;
        let mut remote = Vec::new();
        for node in self.client.cluster().ids() {
            let stat = self.local.dir(node).map(|data| stored::stat(data, path).map_err(io_errno)).transpose()?;
            match stat.filter(|stat| *stat != Stat::Absent || self.local.is_there(node)) {
                Some(stat) => answers.take(node, Ok(told(stat))),
                None => remote.push(node),
            }
        }
        if let Some(found) = answers.found(path, true) {
            return found;
        }
        let patience = tokio::time::Instant::now() + HOME_FIRST;
        let leased = self.misses.has_lease(dir) && !self.known.contains(path);
        if leased && !answers.is_dir && self.has_none(path, home, &remote) {
            return self.nothing(path, &mut answers);
        }
        let mut lease = None;
        if missing == Missing::Unlikely || leased || answers.is_dir {
            if let Some(home) = home.filter(|home| remote.contains(home)) {
                remote.retain(|&node| node != home);
                answers.ask(&self.client, &[home], path, None);
                let heard = async { while !answers.home_said && answers.hear().await {} };
                let _ = tokio::time::timeout_at(patience, heard).await;
            }
            if let Some(found) = answers.found(path, answers.home_said) {
                return found;
            }
            if leased && answers.home_said {
                return self.nothing(path, &mut answers);
            }
        } else if missing == Missing::Likely && !dir.is_empty() {
            lease = self.misses.ask_lease(dir);
        }
        answers.ask(&self.client, &remote, path, lease.map(|asked| asked.book));
        let patience = tokio::time::sleep_until(patience);
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
        if let Some(asked) = lease {
            self.misses.answered(dir, asked, answers.leases == remote.len(), &answers.exclusive);
        }
        let nothing = self.nothing(path, &mut answers);
        if nothing.is_ok() && answers.unheard.is_none() {
            self.known.remove(path);
        }
        nothing
    }

    /// True if `home` is one of the `remote` nodes, and nothing is there by its lease.
    fn has_none(&self, path: &str, home: Option<NodeId>, remote: &[NodeId]) -> bool {
        let (Some(home), Some((dir, name))) = (home, path.rsplit_once('/')) else { return false };
        remote.contains(&home) && self.misses.has_none(dir, name, home)
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
    /// Those whose lease says that nothing comes to be.
    exclusive: Vec<NodeId>,
    /// Why it is not known whether there is a key.
    failed: Option<Error>,
    /// Why it is not known whether there is a directory.
    unheard: Option<Error>,
}

impl Answers {
    fn ask(&mut self, client: &Client, nodes: &[NodeId], path: &str, lease: Option<Book>) {
        let mut left = nodes.to_vec();
        for (node, soon) in client.tell_soon(nodes, path, lease) {
            left.retain(|&other| other != node);
            match soon {
                Ok(told) => self.answered.push((node, told)),
                Err(later) => {
                    let (client, path) = (client.clone(), path.to_owned());
                    self.awaited.spawn(async move { (node, client.tell_later(*later, &path).await) });
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
            Some(answered) => Ok(answered),
            None => match self.awaited.join_next().await {
                Some(joined) => joined,
                None => return false,
            },
        };
        match next {
            Ok((node, told)) => self.take(node, told),
            Err(error) => self.failed = Some(Error::new(ErrorKind::Io, error.to_string())),
        }
        true
    }

    fn take(&mut self, node: NodeId, told: S4Result<Told>) {
        let at_home = Some(node) == self.home;
        self.home_said |= at_home;
        match told {
            Ok(Told { stat, lease, exclusive }) => {
                self.leases += usize::from(lease);
                self.exclusive.extend(exclusive.then_some(node));
                match stat {
                    Stat::Key(stat) if at_home => self.key = Some(stat),
                    Stat::Dir { .. } => self.is_dir = true,
                    Stat::Key(_) | Stat::Absent => {}
                }
            }
            Err(error) if at_home || self.home.is_none() => self.failed = Some(error),
            // Where its own node says that there is no key, others could only tell of a directory.
            Err(error) => self.unheard = Some(error),
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
}

impl Drop for Answers {
    fn drop(&mut self) {
        // A request that is broken off would cost its connection.
        self.awaited.detach_all();
    }
}

fn told(stat: Stat) -> Told {
    Told { stat, lease: false, exclusive: false }
}
