//! A node's keys on its disk: publish, read, list, delete, recover. Knows no HTTP. Everything here blocks.

mod core;
mod data_dir;
mod dirs;
mod errors;
mod health;
mod identity;
mod list;
mod marking;
mod naming;
mod open;
mod open_files;
mod parts;
mod publish;
mod read;
mod recovery;
mod remove;
mod scrub;
mod sorter;
mod space;
mod spread;
mod synced;
mod trash;
mod tree;
mod watches;
mod wipe;

pub use core::{Options, Store};
pub use data_dir::{DataDir, open_linked, open_within};
pub use dirs::{Asking, Others, Receiving, Settled};
pub use identity::init;
pub use list::Selection;
pub use publish::{Draft, Requester};
pub use read::Opened;
pub use scrub::{ScrubPosition, ScrubStep};
pub use sorter::Sorter;
pub use spread::spread;
pub use watches::Watch;
