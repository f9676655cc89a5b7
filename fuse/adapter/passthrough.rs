//! Passthrough: files that are registered with the kernel, so that it reads and writes them without asking us.

use crate::inodes::Ino;
use fuser::{BackingId, ReplyCreate, ReplyOpen};
use std::collections::HashMap;
use std::fs::File;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

/// The registered file of each open inode, if it has one, and how many opens use it: the kernel demands one file for
/// all opens of an inode, or none for any.
type Backings = HashMap<Ino, (Option<Arc<BackingId>>, u64)>;

/// A reply by which a file is registered.
pub trait Registrar {
    fn register(&self, file: &File) -> std::io::Result<BackingId>;
}

/// The library has the same methods for both types, and no trait.
macro_rules! registrar {
    ($($reply:ty),*) => {$(
        impl Registrar for $reply {
            fn register(&self, file: &File) -> std::io::Result<BackingId> {
                self.open_backing(file)
            }
        }
    )*};
}

registrar!(ReplyOpen, ReplyCreate);

/// Decides which files are registered with the kernel.
#[derive(Clone, Default)]
pub struct Passthrough {
    /// True if the kernel takes registrations.
    allowed: Arc<AtomicBool>,
    /// Set once any file was registered: the kernel may then write files without asking us.
    used: Arc<AtomicBool>,
    /// Guards the registered files.
    backings: Arc<Mutex<Backings>>,
}

impl Passthrough {
    /// `used` is set once any file was registered.
    pub fn new(used: Arc<AtomicBool>) -> Self {
        Self { used, ..Self::default() }
    }

    /// Allows registering, if the kernel can do it.
    pub fn allow(&self, passthrough: bool) {
        self.allowed.store(passthrough, Ordering::Relaxed);
    }

    /// The file that the kernel is to use for this open of `ino`. If the kernel refuses to register a file, for lack of
    /// privilege or because the file system does not support it, it is not asked again. A file that is opened with
    /// O_DIRECT is not registered: the kernel would apply the alignment rules of the file system below.
    pub fn register(
        &self,
        ino: Ino,
        file: Option<&Arc<File>>,
        flags: i32,
        reply: &impl Registrar,
    ) -> Option<Arc<BackingId>> {
        let mut backings = self.backings.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((backing, uses)) = backings.get_mut(&ino) {
            *uses += 1;
            return backing.clone();
        }
        let wanted = self.allowed.load(Ordering::Relaxed) && flags & nix::libc::O_DIRECT == 0;
        let backing = file.filter(|_| wanted).and_then(|file| match reply.register(file) {
            Ok(backing) => {
                self.used.store(true, Ordering::Relaxed);
                Some(Arc::new(backing))
            }
            Err(error) => {
                tracing::info!("no passthrough, files are read through the mount: {error}");
                self.allowed.store(false, Ordering::Relaxed);
                None
            }
        });
        backings.insert(ino, (backing.clone(), 1));
        backing
    }

    pub fn release(&self, ino: Ino) {
        let mut backings = self.backings.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, uses)) = backings.get_mut(&ino) {
            *uses -= 1;
            if *uses == 0 {
                backings.remove(&ino);
            }
        }
    }
}
