//! Passthrough: files that are registered with the kernel, so that it reads and writes them without asking us.

use crate::inodes::Ino;
use fuser::{BackingId, ReplyCreate, ReplyOpen};
use std::collections::HashMap;
use std::fs::File;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

/// The registered file of each open inode, if it has one, and how many opens use it: the kernel wants one and the same for
/// all, or none for any.
type Backings = HashMap<Ino, (Option<Backing>, u64)>;

/// A registered file, and its number.
pub type Backing = (Arc<BackingId>, u32);

/// A reply by which a file is registered.
pub trait Registrar {
    fn register(&self, file: &File) -> std::io::Result<(BackingId, u32)>;
}

/// The library has the same methods for both, and no trait.
macro_rules! registrar {
    ($($reply:ty),*) => {$(
        impl Registrar for $reply {
            fn register(&self, file: &File) -> std::io::Result<(BackingId, u32)> {
                let number = self.open_backing(file)?.into_raw();
                // SAFETY: the number was just given, and belongs to nobody else.
                Ok((unsafe { self.wrap_backing(number) }, number))
            }
        }
    )*};
}

registrar!(ReplyOpen, ReplyCreate);

/// Decides which files are registered with the kernel.
#[derive(Clone, Default)]
pub struct Opener {
    /// Whether the kernel may be asked.
    passthrough: Arc<AtomicBool>,
    /// Set once any was registered: the kernel may write files without asking us.
    used: Arc<AtomicBool>,
    /// Guards what is registered now.
    backings: Arc<Mutex<Backings>>,
}

impl Opener {
    /// `used` is set once any file was registered.
    pub fn new(used: Arc<AtomicBool>) -> Self {
        Self { used, ..Self::default() }
    }

    /// Allows registering, if the kernel can do it.
    pub fn allow(&self, passthrough: bool) {
        self.passthrough.store(passthrough, Ordering::Relaxed);
    }

    /// The file that the kernel is to use for this open of `ino`. A kernel that refuses to register one, for want of
    /// privilege or of a fitting file system, is not asked again. What is opened to bypass caches is not registered: the
    /// kernel would hold the file itself to the rules of such writes.
    pub fn register(&self, ino: Ino, file: Option<&Arc<File>>, flags: i32, reply: &impl Registrar) -> Option<Backing> {
        let mut backings = self.backings.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((backing, uses)) = backings.get_mut(&ino) {
            *uses += 1;
            return backing.clone();
        }
        let wanted = self.passthrough.load(Ordering::Relaxed) && flags & nix::libc::O_DIRECT == 0;
        let backing = file.filter(|_| wanted).and_then(|file| match reply.register(file) {
            Ok((backing, number)) => {
                self.used.store(true, Ordering::Relaxed);
                Some((Arc::new(backing), number))
            }
            Err(error) => {
                tracing::info!("no passthrough, files are read through the mount: {error}");
                self.passthrough.store(false, Ordering::Relaxed);
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
