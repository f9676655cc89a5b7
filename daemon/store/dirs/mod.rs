//! Directories on this node: those whose home it is, about which it alone decides, and its own copies of others.
//!
//! A directory has a home node as a key has. Invariants, which ARCHITECTURE.md explains:
//! - a node that has a copy of a directory is among the holders that the home has recorded;
//! - the home has a copy of each of its directories, so that its file system refuses a key and a directory of one name.
//!
//! So a node tells the home before it makes a copy, and removes its copy before it tells the home that it has left. [`copies`] are on
//! the disk and [`table`] in memory; [`entering`] makes directories, [`leaving`] and [`asking`] remove them.

mod asking;
mod copies;
mod entering;
mod leaving;
mod sending;
pub(super) mod table;
mod walk;

pub use asking::{Asking, Settled};
pub use sending::Receiving;
pub use table::Others;
