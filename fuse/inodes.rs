//! Inode numbers and what they stand for.
//!
//! A key's number follows from its name and checksum, so it is the same in every mount, and a key that was deleted and
//! made again is another inode: the kernel's cached pages of the old one are never mixed with the new.

use crate::control::path::ControlPath;
use crate::specials::Special;
use crate::spool::Spool;
use s4::checksum::{self, Checksum};
use s4::key::Key;
use s4::protocol::KeyStat;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

pub type Ino = u64;
pub const ROOT: Ino = 1;

/// What an inode stands for.
#[derive(Clone)]
pub enum Node {
    /// A directory as `bucket/dir`; empty for the root.
    Dir(String),
    Key(Key, KeyStat),
    /// A file that is being written.
    Spool(Arc<Spool>),
    /// A FIFO or a socket.
    Special(Arc<Special>),
    Control(ControlPath),
}

/// What finds an inode again.
#[derive(Clone, PartialEq, Eq, Hash)]
enum Name {
    Dir(String),
    Key(Key, Checksum),
    Special(u64),
    Control(ControlPath),
}

impl Name {
    /// `None` for the root, which needs none, and for a file that is being written, which may get another.
    fn of(node: &Node) -> Option<Self> {
        match node {
            Node::Dir(path) if path.is_empty() => None,
            Node::Dir(path) => Some(Self::Dir(path.clone())),
            Node::Key(key, stat) => Some(Self::Key(key.clone(), stat.checksum)),
            Node::Special(special) => Some(Self::Special(special.number)),
            Node::Control(path) => Some(Self::Control(path.clone())),
            Node::Spool(_) => None,
        }
    }
}

struct Inode {
    node: Node,
    /// How often the kernel was told of it, less how often it forgot.
    lookups: u64,
}

/// Guards all numbers that the kernel knows.
#[derive(Default)]
struct Table {
    inodes: HashMap<Ino, Inode>,
    names: HashMap<Name, Ino>,
    /// Files being written, by their `bucket/dir/name`.
    spools: HashMap<String, Ino>,
    spooled: u64,
}

#[derive(Default)]
pub struct Inodes(Mutex<Table>);

impl Inodes {
    pub fn get(&self, ino: Ino) -> Option<Node> {
        if ino == ROOT {
            return Some(Node::Dir(String::new()));
        }
        self.lock().inodes.get(&ino).map(|inode| inode.node.clone())
    }

    /// The number of `node`, which the kernel is about to be told of once more.
    pub fn enter(&self, node: Node) -> Ino {
        let mut table = self.lock();
        if let Node::Spool(spool) = &node {
            return table.enter_spool(spool.clone());
        }
        let Some(name) = Name::of(&node) else {
            return ROOT;
        };
        let ino = match table.names.get(&name) {
            Some(&ino) => ino,
            None => table.free_number(number(&name)),
        };
        table.names.insert(name, ino);
        let inode = table.inodes.entry(ino).or_insert(Inode { node: node.clone(), lookups: 0 });
        inode.node = node;
        inode.lookups += 1;
        ino
    }

    /// The number that `enter` would give, without telling the kernel of it.
    pub fn peek(&self, node: &Node) -> Ino {
        if let Node::Spool(spool) = node {
            return self.lock().spools.get(spool.key().as_str()).copied().unwrap_or(ROOT);
        }
        let Some(name) = Name::of(node) else {
            return ROOT;
        };
        self.lock().names.get(&name).copied().unwrap_or_else(|| number(&name))
    }

    pub fn forget(&self, ino: Ino, lookups: u64) {
        let mut table = self.lock();
        let Some(inode) = table.inodes.get_mut(&ino) else {
            return;
        };
        inode.lookups = inode.lookups.saturating_sub(lookups);
        let forgotten = inode.lookups == 0;
        // A file that is being written is found by its name until its close.
        if forgotten && !table.spools.values().any(|&named| named == ino) {
            table.drop_inode(ino);
        }
    }

    /// The file that is being written at `path`.
    pub fn spool_at(&self, path: &str) -> Option<Arc<Spool>> {
        let table = self.lock();
        match &table.inodes.get(table.spools.get(path)?)?.node {
            Node::Spool(spool) => Some(spool.clone()),
            _ => None,
        }
    }

    /// Files being written directly in directory `dir`, or with `below` anywhere below it.
    pub fn spools_in(&self, dir: &str, below: bool) -> Vec<Arc<Spool>> {
        let table = self.lock();
        let in_dir = |path: &str| match path.strip_prefix(dir).and_then(|rest| rest.strip_prefix('/')) {
            Some(rest) => below || !rest.contains('/'),
            None => false,
        };
        let found = table.spools.iter().filter(|(path, _)| in_dir(path));
        found
            .filter_map(|(_, ino)| match &table.inodes.get(ino)?.node {
                Node::Spool(spool) => Some(spool.clone()),
                _ => None,
            })
            .collect()
    }

    /// Gives a file that is being written another name; false if another such file has it.
    pub fn rename_spool(&self, spool: &Arc<Spool>, to: Key) -> bool {
        let mut table = self.lock();
        if table.spools.contains_key(to.as_str()) {
            return false;
        }
        if let Some(ino) = table.spools.remove(spool.key().as_str()) {
            table.spools.insert(to.as_str().to_owned(), ino);
        }
        spool.set_key(to);
        true
    }

    /// A key has another name now; the kernel goes on with the same number.
    pub fn rename_key(&self, from: &Key, to: &Key, stat: &KeyStat) {
        let mut table = self.lock();
        if let Some(ino) = table.names.remove(&Name::Key(from.clone(), stat.checksum)) {
            table.names.insert(Name::Key(to.clone(), stat.checksum), ino);
            if let Some(inode) = table.inodes.get_mut(&ino) {
                inode.node = Node::Key(to.clone(), stat.clone());
            }
        }
    }

    /// A directory is gone. One that is made of its name later is another, while the kernel still knows the old one.
    pub fn remove_dir(&self, path: &str) {
        self.lock().names.remove(&Name::Dir(path.to_owned()));
    }

    /// The file has no name any more: it is gone, or a key of that name is there now, which has a number of its own.
    pub fn unname_spool(&self, spool: &Spool) {
        let mut table = self.lock();
        spool.lose_name();
        if let Some(ino) = table.spools.remove(spool.key().as_str())
            && table.inodes.get(&ino).is_some_and(|inode| inode.lookups == 0)
        {
            table.inodes.remove(&ino);
        }
    }

    /// A file without a name is closed for good.
    pub fn drop_unnamed(&self, ino: Ino) {
        let mut table = self.lock();
        if table.inodes.get(&ino).is_some_and(|inode| inode.lookups == 0) {
            table.drop_inode(ino);
        }
    }

    /// Puts changed attributes in the place of the old.
    pub fn update(&self, ino: Ino, node: Node) {
        if let Some(inode) = self.lock().inodes.get_mut(&ino) {
            inode.node = node;
        }
    }

    fn lock(&self) -> MutexGuard<'_, Table> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Table {
    fn enter_spool(&mut self, spool: Arc<Spool>) -> Ino {
        let path = spool.key().as_str().to_owned();
        let ino = match self.spools.get(&path) {
            Some(&ino) => ino,
            None => {
                self.spooled += 1;
                let seed = format!("{} {path}", self.spooled);
                self.free_number(checksum::hash(seed.as_bytes()))
            }
        };
        // One that has lost its name meanwhile is known by its number only.
        if spool.has_name() {
            self.spools.insert(path, ino);
        }
        self.inodes.entry(ino).or_insert(Inode { node: Node::Spool(spool), lookups: 0 }).lookups += 1;
        ino
    }

    /// The first number from `wanted` on that stands for nothing.
    fn free_number(&self, wanted: u64) -> Ino {
        (wanted..).find(|ino| *ino > ROOT && !self.inodes.contains_key(ino)).unwrap_or(wanted)
    }

    fn drop_inode(&mut self, ino: Ino) {
        let Some(inode) = self.inodes.remove(&ino) else {
            return;
        };
        let Some(name) = Name::of(&inode.node) else {
            return;
        };
        if self.names.get(&name) == Some(&ino) {
            self.names.remove(&name);
        }
    }
}

fn number(name: &Name) -> Ino {
    let text = match name {
        Name::Dir(path) => format!("d {path}"),
        Name::Key(key, checksum) => format!("k {checksum} {}", key.as_str()),
        Name::Special(number) => format!("s {number}"),
        Name::Control(path) => format!("c {path:?}"),
    };
    // The top bit stays clear: some tools read inode numbers as signed.
    (checksum::hash(text.as_bytes()) >> 1).max(ROOT + 1)
}
