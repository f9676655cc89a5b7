//! `s4 umount`: unmounts, and waits until all closed files are published.

use crate::cli::UmountArgs;
use s4::error::{Error, ErrorKind, ExitStatus, Result, reason};
use s4::mounts;
use std::time::Instant;

pub fn run(args: &UmountArgs) -> Result<ExitStatus> {
    let shown = args.dir.display();
    let refused = |why: &str| Error::new(ErrorKind::NotFound, format!("{shown}: {why}"));
    // The mount itself is not accessed, since its server may be dead.
    let dir = mounts::resolve(&args.dir).map_err(|e| refused(&reason(&e)))?;
    let mounted = match mounts::at(&dir) {
        None => return Err(refused("nothing is mounted there")),
        Some(mounted) if !mounted.is_cluster => return Err(refused("what is mounted there is no s4 cluster")),
        Some(mounted) => mounted,
    };
    let unmounted = mounts::begin_unmount(&mounted, args.lazy)?;
    unmounted.await_published(Instant::now() + mounts::PUBLISH_TIMEOUT).map(|()| ExitStatus::Done)
}
