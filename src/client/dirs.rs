//! Directories and names: requests to the node that is the home of a name.

use super::core::{Client, retry_if_broken};
use super::lines::Lines;
use super::tree::json_body;
use crate::body::{self, Activity};
use crate::directory::DIR_MODE;
use crate::error::{Error, ErrorKind, Result};
use crate::key::{Dir, Key};
use crate::placement::{NodeId, node_of_basename};
use crate::protocol::{Change, Entered, Entry, KeyStat, Listed, Stat, escape};
use bytes::Bytes;
use hyper::Method;
use tokio::task::JoinSet;

/// After this fraction of the deadline (1/5), the other nodes are asked besides the home of a name.
const HOME_FIRST: u32 = 5;

/// A listing of the directories that one node holds and whose home is another node.
pub struct HeldDirs {
    lines: Lines,
    subject: String,
}

impl HeldDirs {
    pub async fn next(&mut self) -> Result<Option<Dir>> {
        let malformed =
            || Error::new(ErrorKind::Unreachable, format!("{}: malformed or cut off listing", self.subject));
        loop {
            let line = self.lines.next().await?.ok_or_else(malformed)?;
            match Listed::parse(&line).map_err(|e| e.of_peer(&self.subject))? {
                Listed::Entry(Entry::Dir { path, .. }) => {
                    let dir = path.strip_suffix('/').ok_or_else(malformed)?;
                    return Dir::try_from(dir.to_owned()).map(Some);
                }
                Listed::Entry(Entry::Key { .. }) => return Err(malformed()),
                Listed::Alive => {}
                Listed::End => return Ok(None),
            }
        }
    }
}

impl Client {
    /// The home of the name at `path` (`bucket`, `bucket/dir` or `bucket/dir/name`).
    pub fn home_of(&self, path: &str) -> NodeId {
        node_of_basename(path.rsplit_once('/').map_or(path, |(_, name)| name), self.cluster().len())
    }

    /// What `path` is.
    pub async fn look_up(&self, path: &Dir) -> Result<Stat> {
        let node = self.home_of(path.as_str());
        let path = format!("/v1/stat/{}", escape(path.as_str()));
        let response = self.send(node, Method::GET, &path, body::empty(), &Activity::default()).await?;
        self.json(node, response).await
    }

    /// The attributes of `key`; `None` if there is no key of this name.
    pub async fn find_key(&self, key: &Key) -> Result<Option<KeyStat>> {
        match self.look_up(&Dir::try_from(key.as_str().to_owned())?).await? {
            Stat::Key(found) => Ok(Some(found)),
            Stat::Dir { .. } | Stat::Absent => Ok(None),
        }
    }

    /// What `path` stands for. If its home is slow or down, the other nodes are asked whether they hold something in
    /// it: then it is a directory, and default attributes are returned.
    pub async fn resolve(&self, path: &Dir) -> Result<Stat> {
        let (client, asked_path) = (self.clone(), path.clone());
        let mut asked = Box::pin(async move { client.look_up_inline(&asked_path).await });
        let mut answer = tokio::time::timeout(self.deadline() / HOME_FIRST, &mut asked).await.ok();
        match answer {
            Some(Err(error)) if !is_silence(&error) => return Err(error),
            Some(Ok(stat)) => return Ok(stat),
            Some(Err(_)) | None => {}
        }
        let home = self.home_of(path.as_str());
        let mut others = JoinSet::new();
        for node in self.cluster().ids().filter(|&node| node != home) {
            let (client, path) = (self.clone(), path.clone());
            others.spawn(async move { client.holds_dir(node, &path).await });
        }
        loop {
            tokio::select! {
                biased;
                stat = &mut asked, if answer.is_none() => match stat {
                    Err(error) if is_silence(&error) => answer = Some(Err(error)),
                    stat => {
                        // Dropping a running request would close its connection.
                        others.detach_all();
                        return stat;
                    }
                },
                Some(held) = others.join_next() => if let Ok(Ok(true)) = held {
                    others.detach_all();
                    if answer.is_none() {
                        // Its end tells later requests whether the home is silent.
                        tokio::spawn(asked);
                    }
                    return Ok(Stat::Dir { mtime: 0, mode: DIR_MODE });
                },
                else => return answer.unwrap_or_else(|| Err(self.deadline_error(home))),
            }
        }
    }

    /// True if `node` holds something in `dir`.
    pub async fn holds_dir(&self, node: NodeId, dir: &Dir) -> Result<bool> {
        let response = self.send(node, Method::GET, &dir_path(dir), body::empty(), &Activity::default()).await?;
        self.json(node, response).await
    }

    /// Creates a directory that stays when it is empty. Errors: the name exists.
    pub async fn make_dir(&self, dir: &Dir, change: Change) -> Result<()> {
        self.post(self.home_of(dir.as_str()), Method::PUT, &dir_path(dir), Some(&change)).await
    }

    pub async fn change_dir(&self, dir: &Dir, change: Change) -> Result<()> {
        self.post_again(self.home_of(dir.as_str()), &dir_path(dir), Some(&change)).await
    }

    /// Removes a directory. Errors: a node holds something in it.
    pub async fn remove_dir(&self, dir: &Dir) -> Result<()> {
        self.post(self.home_of(dir.as_str()), Method::DELETE, &dir_path(dir), None::<&()>).await
    }

    /// Removes a directory once it is empty: now, or with its last entry. Errors: it is not there.
    pub async fn release_dir(&self, dir: &Dir) -> Result<()> {
        let path = format!("{}?once_empty=true", dir_path(dir));
        self.post(self.home_of(dir.as_str()), Method::DELETE, &path, None::<&()>).await
    }

    /// Tells the home of `dir` that `node` is about to hold something in it.
    pub async fn enter_dir(&self, home: NodeId, node: NodeId, dir: &Dir) -> Result<()> {
        self.enter_dirs(home, node, vec![dir.clone()]).await
    }

    /// The same for several. Errors: the first of them that cannot be entered; the later ones are not entered then.
    pub async fn enter_dirs(&self, home: NodeId, node: NodeId, dirs: Vec<Dir>) -> Result<()> {
        let entered = Entered { node, dirs };
        self.post_again(home, "/v1/names/enter", Some(&entered)).await
    }

    /// Tells the home of `dirs` that some node has removed its last entry in each.
    pub async fn left_dirs(&self, home: NodeId, dirs: &[Dir]) -> Result<()> {
        self.post_again(home, "/v1/names/left", Some(&dirs)).await
    }

    /// For each of `dirs`, true if `node` holds something in it.
    pub async fn let_go_dirs(&self, node: NodeId, dirs: &[Dir]) -> Result<Vec<bool>> {
        let json = Bytes::from(json_body(Some(&dirs))?);
        let activity = Activity::default();
        let ask = || self.send(node, Method::POST, "/v1/names/let_go", body::full(json.clone()), &activity);
        let response = retry_if_broken(ask).await?;
        let held: Vec<bool> = self.json(node, response).await?;
        match held.len() == dirs.len() {
            true => Ok(held),
            false => Err(self.malformed(node, "another number of directories")),
        }
    }

    /// Makes `home` ask `node`, which was killed, whether it still holds the directories that are recorded for it.
    pub async fn audit_dirs(&self, home: NodeId, node: NodeId) -> Result<()> {
        self.post_again(home, &format!("/v1/names/audit?node={node}"), None::<&()>).await
    }

    /// The directories whose home is `home` and that `node` holds.
    pub async fn held_dirs(&self, node: NodeId, home: NodeId) -> Result<HeldDirs> {
        let path = format!("/v1/names/held?home={home}");
        let response = self.send(node, Method::GET, &path, body::empty(), &Activity::default()).await?;
        Ok(HeldDirs { lines: Lines::new(self.chunks(node, response)), subject: self.cluster().name(node).to_string() })
    }
}

/// True if the node did not answer.
fn is_silence(error: &Error) -> bool {
    matches!(error.kind(), ErrorKind::Unreachable | ErrorKind::Deadline)
}

fn dir_path(dir: &Dir) -> String {
    format!("/v1/dirs/{}", escape(dir.as_str()))
}
