//! The adapter between the FUSE library and the file system. It turns requests into calls and results into replies.
//! Only these files know the library: `connect` mounts, `filesystem` takes the requests, `dispatch` decides on which
//! thread they are answered, `passthrough` registers files with the kernel, and `replies` converts results.

mod connect;
mod dispatch;
mod filesystem;
mod passthrough;
mod replies;

pub use connect::{Mounted, mount, remount};
