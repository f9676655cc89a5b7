//! Directories on this node: it decides alone about those whose home it is, and has copies of others.
//!
//! A directory has a home node as a key has. Invariants, which ARCHITECTURE.md explains:
//! - the home has recorded every node that has a copy of the directory as a holder;
//! - the home has a copy of each of its directories, so that its file system refuses a key and a directory of the same
//!   name.
//!
//! So a node reports to the home before it makes a copy, and removes its copy before it reports that it has left.
//! [`copies`] has the state on the disk and [`table`] the state in memory; [`entering`] makes directories; [`leaving`]
//! and [`asking`] remove them; [`moving`] gives them new homes in a resize.

mod asking;
mod copies;
mod entering;
mod leaving;
mod moving;
mod sending;
pub(super) mod table;
mod walk;

pub use asking::{Asking, Settled};
pub use sending::Receiving;
pub use table::Others;
