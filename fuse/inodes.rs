//! Inode numbers, and what they stand for.
//!
//! The number of a key is a hash of its name and checksum. It is the same in every mount, and a key that was deleted
//! and created again is another inode: the kernel never mixes its cached pages of the two. A file that is created in
//! this mount gets the next number after a random base, which is never used again: by this number, /proc shows which
//! processes have the file open. The file keeps its number when it is published, as long as the kernel knows it.

use crate::control::path::ControlPath;
use crate::specials::Special;
use crate::spool::Spool;
use s4::checksum;
use s4::directory::DIR_MODE;
use s4::key::Key;
use s4::protocol::KeyStat;
use std::collections::HashMap;
use std::hash::{BuildHasher, Hasher, RandomState};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

pub type Ino = u64;
pub const ROOT: Ino = 1;

/// The attributes of a directory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DirStat {
    /// Nanoseconds since 1970.
    pub mtime: i64,
    /// Permission bits.
    pub mode: u32,
}

impl DirStat {
    /// Of a directory whose home node has not reported its attributes.
    pub const UNKNOWN: Self = Self { mtime: 0, mode: DIR_MODE };
}

/// What an inode stands for.
#[derive(Clone)]
pub enum Node {
    /// A directory as `bucket/dir`; empty for the root.
    Dir(String, DirStat),
    Key(Key, KeyStat),
    /// A file that is being written.
    Spool(Arc<Spool>),
    /// A FIFO or a socket.
    Special(Arc<Special>),
    Control(ControlPath),
}

/// The name under which an inode is found.
#[derive(Clone, PartialEq, Eq, Hash)]
enum Name {
    Dir(String),
    Key(Key),
    Special(u64),
    Control(ControlPath),
}

impl Name {
    /// `None` for the root, which has a fixed number, and for a file that is being written, which may be renamed.
    fn of(node: &Node) -> Option<Self> {
        match node {
            Node::Dir(path, _) if path.is_empty() => None,
            Node::Dir(path, _) => Some(Self::Dir(path.clone())),
            Node::Key(key, _) => Some(Self::Key(key.clone())),
            Node::Special(special) => Some(Self::Special(special.number)),
            Node::Control(path) => Some(Self::Control(path.clone())),
            Node::Spool(_) => None,
        }
    }
}

struct Inode {
    node: Node,
    /// How often the kernel was given the number, minus how often it forgot it.
    lookups: u64,
    /// How many open files it has.
    opens: u64,
    /// It was deleted through this mount.
    unlinked: bool,
}

impl Inode {
    fn new(node: Node) -> Self {
        Self { node, lookups: 0, opens: 0, unlinked: false }
    }

    /// True if the bytes are those of `node`.
    fn is_same(&self, node: &Node) -> bool {
        match (&self.node, node) {
            (Node::Key(_, ours), Node::Key(_, theirs)) => ours.checksum == theirs.checksum,
            (Node::Spool(ours), Node::Key(_, theirs)) => {
                ours.stat().is_some_and(|ours| ours.checksum == theirs.checksum)
            }
            _ => true,
        }
    }

    fn is_spool(&self, spool: &Arc<Spool>) -> bool {
        matches!(&self.node, Node::Spool(ours) if Arc::ptr_eq(ours, spool))
    }
}

/// Guards all numbers that the kernel knows.
struct Table {
    inodes: HashMap<Ino, Inode>,
    names: HashMap<Name, Ino>,
    /// Files being written, by their `bucket/dir/name`.
    spools: HashMap<String, Ino>,
    /// The number of the next new file.
    next: Ino,
}

impl Default for Table {
    fn default() -> Self {
        let random = RandomState::new().build_hasher().finish();
        // Some tools read inode numbers as signed.
        Self { inodes: HashMap::new(), names: HashMap::new(), spools: HashMap::new(), next: random >> 2 | 1 << 61 }
    }
}

#[derive(Default)]
pub struct Inodes(Mutex<Table>);

impl Inodes {
    pub fn get(&self, ino: Ino) -> Option<Node> {
        if ino == ROOT {
            return Some(Node::Dir(String::new(), DirStat::UNKNOWN));
        }
        self.lock().inodes.get(&ino).map(|inode| inode.node.clone())
    }

    /// The number of `node`. Counts one more lookup, since the caller is about to pass the number to the kernel.
    pub fn enter(&self, node: Node) -> Ino {
        let mut table = self.lock();
        if let Node::Spool(spool) = &node {
            return table.enter_spool(spool.clone());
        }
        let Some(name) = Name::of(&node) else {
            return ROOT;
        };
        let ino = table.known(&name, &node).unwrap_or_else(|| table.free_number(number(&node)));
        table.names.insert(name, ino);
        let inode = table.inodes.entry(ino).or_insert_with(|| Inode::new(node.clone()));
        inode.lookups += 1;
        if !matches!(inode.node, Node::Spool(_)) {
            inode.node = node;
        }
        ino
    }

    /// The number that `enter` would return. Counts no lookup: for replies that give the kernel no reference to the
    /// inode.
    pub fn peek(&self, node: &Node) -> Ino {
        if let Node::Spool(spool) = node {
            return self.lock().spools.get(spool.key().as_str()).copied().unwrap_or(ROOT);
        }
        let Some(name) = Name::of(node) else {
            return ROOT;
        };
        self.lock().known(&name, node).unwrap_or_else(|| number(node))
    }

    /// The number of a file that is being written.
    pub fn number_of(&self, spool: &Arc<Spool>) -> Option<Ino> {
        self.lock().inodes.iter().find(|(_, inode)| inode.is_spool(spool)).map(|(ino, _)| *ino)
    }

    /// Counts one more open file.
    pub fn add_open(&self, ino: Ino) {
        if let Some(inode) = self.lock().inodes.get_mut(&ino) {
            inode.opens += 1;
        }
    }

    /// Counts one open file less.
    pub fn remove_open(&self, ino: Ino) {
        if let Some(inode) = self.lock().inodes.get_mut(&ino) {
            inode.opens = inode.opens.saturating_sub(1);
        }
    }

    /// True if it was deleted through this mount.
    pub fn is_unlinked(&self, ino: Ino) -> bool {
        self.lock().inodes.get(&ino).is_some_and(|inode| inode.unlinked)
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

    /// Records that a key was renamed. It keeps its number.
    pub fn rename_key(&self, from: &Key, to: &Key, stat: &KeyStat) {
        let mut table = self.lock();
        let renamed = Node::Key(to.clone(), stat.clone());
        let Some(ino) = table.names.remove(&Name::Key(from.clone())) else { return };
        let Some(inode) = table.inodes.get_mut(&ino).filter(|inode| inode.is_same(&renamed)) else { return };
        match &inode.node {
            Node::Spool(spool) => spool.set_key(to.clone()),
            _ => inode.node = renamed,
        }
        table.names.insert(Name::Key(to.clone()), ino);
    }

    /// Records that a key was deleted. A later key of this name gets another number.
    pub fn unlink_key(&self, key: &Key) {
        let mut table = self.lock();
        if let Some(ino) = table.names.remove(&Name::Key(key.clone()))
            && let Some(inode) = table.inodes.get_mut(&ino)
        {
            inode.unlinked = true;
        }
    }

    /// Records that the file `ino` was published with bytes. From now on its name stands for the key, which has the
    /// number of the file.
    pub fn publish_spool(&self, ino: Ino, spool: &Arc<Spool>) {
        let mut table = self.lock();
        spool.lose_name();
        let key = spool.key();
        table.spools.remove(key.as_str());
        if table.inodes.get(&ino).is_some_and(|inode| inode.is_spool(spool) && inode.lookups > 0) {
            table.names.insert(Name::Key(key), ino);
        }
    }

    /// To be called once no descriptor can write to the file `ino`. If the file was published, its inode stands for the
    /// key from now on.
    pub fn settle_spool(&self, ino: Ino, spool: &Arc<Spool>) {
        let mut table = self.lock();
        let Some(stat) = spool.stat() else { return };
        let key = spool.key();
        if spool.has_name() && table.spools.get(key.as_str()) == Some(&ino) {
            // An empty key was published, and nothing was written later.
            spool.lose_name();
            table.spools.remove(key.as_str());
            table.names.insert(Name::Key(key.clone()), ino);
        }
        let name = Name::Key(key.clone());
        if table.names.get(&name) != Some(&ino) {
            return;
        }
        match table.inodes.get_mut(&ino) {
            // A process that opened the file before the publish may still write to it through a shared mapping.
            Some(inode) if inode.is_spool(spool) && !spool.is_shared() => inode.node = Node::Key(key, stat),
            _ => drop(table.names.remove(&name)),
        }
    }

    /// Makes the next lookup of the key return another number: the file `ino` may no longer hold the bytes of the key.
    pub fn detach_key(&self, ino: Ino, key: &Key) {
        let mut table = self.lock();
        let name = Name::Key(key.clone());
        if table.names.get(&name) == Some(&ino) {
            table.names.remove(&name);
        }
    }

    /// Makes the inode `ino` of an empty key stand for `spool`, whose bytes will replace the key. False if the key is
    /// open, or was replaced by another: then the next lookup returns another number, since the kernel uses one backing
    /// file for each inode.
    pub fn write_empty(&self, ino: Ino, spool: &Arc<Spool>) -> bool {
        let mut table = self.lock();
        let (key, name) = (spool.key(), Name::Key(spool.key()));
        if table.names.get(&name) != Some(&ino) {
            return false;
        }
        table.names.remove(&name);
        if table.spools.contains_key(key.as_str()) {
            return false;
        }
        match table.inodes.get_mut(&ino) {
            Some(inode) if inode.opens == 0 && matches!(&inode.node, Node::Key(_, stat) if stat.checksum.len == 0) => {
                inode.node = Node::Spool(spool.clone());
            }
            _ => return false,
        }
        table.spools.insert(key.as_str().to_owned(), ino);
        true
    }

    /// Records that a directory was deleted. A later directory of this name gets another number as long as the kernel
    /// knows the old one.
    pub fn remove_dir(&self, path: &str) {
        self.lock().names.remove(&Name::Dir(path.to_owned()));
    }

    /// Frees the name of a file that will not become a key.
    pub fn free_spool_name(&self, spool: &Spool) {
        let mut table = self.lock();
        if !spool.has_name() {
            // Its name stands for something else by now.
            return;
        }
        spool.lose_name();
        let Some(ino) = table.spools.remove(spool.key().as_str()) else { return };
        match table.inodes.get_mut(&ino) {
            Some(inode) if inode.lookups > 0 => inode.unlinked = true,
            _ => drop(table.inodes.remove(&ino)),
        }
    }

    /// Drops an inode if the kernel has forgotten it.
    pub fn drop_forgotten(&self, ino: Ino) {
        let mut table = self.lock();
        if table.inodes.get(&ino).is_some_and(|inode| inode.lookups == 0) {
            table.drop_inode(ino);
        }
    }

    /// Sets what `ino` stands for, with changed attributes.
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
        let key = spool.key();
        let path = key.as_str().to_owned();
        // A lookup that has found the spool may arrive here after the publish. By then the name stands for the key.
        let as_key = || self.known(&Name::Key(key.clone()), &Node::Key(key.clone(), spool.stat()?));
        let ino = match self.spools.get(&path).copied().or_else(as_key) {
            Some(ino) => ino,
            None => {
                let ino = self.free_number(self.next);
                self.next = ino + 1;
                ino
            }
        };
        // It may have lost its name since it was looked up.
        if spool.has_name() {
            self.spools.insert(path, ino);
        }
        self.inodes.entry(ino).or_insert_with(|| Inode::new(Node::Spool(spool))).lookups += 1;
        ino
    }

    /// The number of `name`, if its inode has the bytes of `node`.
    fn known(&self, name: &Name, node: &Node) -> Option<Ino> {
        let ino = *self.names.get(name)?;
        self.inodes.get(&ino)?.is_same(node).then_some(ino)
    }

    /// The first unused number from `wanted` on.
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

fn number(node: &Node) -> Ino {
    let text = match node {
        Node::Dir(path, _) => format!("d {path}"),
        Node::Key(key, stat) => format!("k {} {}", stat.checksum, key.as_str()),
        Node::Control(path) => format!("c {path:?}"),
        Node::Special(special) => format!("s {}", special.number),
        Node::Spool(spool) => format!("w {}", spool.key()),
    };
    // The top bit stays clear: some tools read inode numbers as signed.
    (checksum::hash(text.as_bytes()) >> 1).max(ROOT + 1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spool::Snapshot;
    use s4::checksum::Checksum;
    use std::path::PathBuf;
    use std::time::SystemTime;

    #[test]
    fn a_file_that_was_looked_up_while_it_was_published_keeps_its_number() {
        let (inodes, key) = (Inodes::default(), Key::parse("b/1_k").unwrap());
        let file = Arc::new(tempfile::tempfile().unwrap());
        let spool = Arc::new(Spool::new(file, PathBuf::new(), key, 0o444));
        let ino = inodes.enter(Node::Spool(spool.clone()));
        let stat = KeyStat { checksum: Checksum::of(b"one"), mtime: 0, mode: 0o444 };
        spool.set_published(Snapshot { len: 3, modified: SystemTime::UNIX_EPOCH }, stat);
        // A lookup between these two steps has found the spool.
        inodes.publish_spool(ino, &spool);
        assert_eq!(inodes.enter(Node::Spool(spool.clone())), ino, "published");
        inodes.settle_spool(ino, &spool);
        assert_eq!(inodes.enter(Node::Spool(spool)), ino, "closed");
    }
}
