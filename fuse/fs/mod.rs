//! The file system: what each operation means in the cluster. It knows no FUSE; every operation returns a result.
//!
//! `namespace` knows what names and inode numbers stand for. `names` (operations on names), `dirs` (reading
//! directories) and `files` (open files) use it. `closes` decides which close publishes a file: `writers` finds out,
//! from /proc, which processes can still write. `publisher` sends the bytes.

mod attributes;
mod closes;
mod dirs;
mod files;
mod handles;
mod names;
mod namespace;
mod publisher;
mod space;
mod writers;

use crate::control::Control;
use crate::eager_upload::EagerUploads;
use crate::local::LocalNodes;
use crate::size_watcher::SizeWatcher;
use crate::spool::files::SpoolFiles;
pub use attributes::Attributes;
use closes::Closes;
pub use dirs::{DirEntry, Dirs};
pub use files::{Files, OpenedFile};
pub use names::{Names, NewAttributes, WHY_ATTRIBUTE};
pub use namespace::Namespace;
pub use publisher::Publisher;
use s4::client::Client;
use space::SpaceCache;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use writers::Writers;

/// The parts of a mounted file system.
pub struct Fs {
    pub namespace: Arc<Namespace>,
    pub names: Names,
    pub dirs: Dirs,
    pub files: Arc<Files>,
    pub publisher: Arc<Publisher>,
    pub space: SpaceCache,
    /// Set by the adapter once the kernel may write files without asking us.
    pub passthrough: Arc<AtomicBool>,
}

impl Fs {
    /// Files whose key belongs to no node of this machine are kept in `spool_dir` until they are published.
    pub fn new(client: Client, local: LocalNodes, spool_dir: PathBuf, mountpoint: PathBuf) -> Self {
        let spool_files = Arc::new(SpoolFiles::new(local.dirs(), spool_dir));
        let size_watcher = SizeWatcher::new(EagerUploads::new(client.clone()));
        let control = Control::new(client.clone(), mountpoint);
        let namespace = Arc::new(Namespace::new(client.clone(), local, control));
        let passthrough = Arc::<AtomicBool>::default();
        let writers = Arc::new(Writers::new(passthrough.clone()));
        let publisher = Arc::new(Publisher::new(namespace.clone(), writers.clone()));
        let closes = Closes::new(namespace.clone(), writers, publisher.clone(), spool_files.clone());
        Self {
            names: Names::new(namespace.clone(), spool_files.clone()),
            dirs: Dirs::new(namespace.clone()),
            files: Arc::new(Files::new(namespace.clone(), spool_files, size_watcher, closes)),
            namespace,
            publisher,
            space: SpaceCache::new(client),
            passthrough,
        }
    }
}
