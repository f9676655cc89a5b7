//! `s4 umount`: takes a mount away.

use crate::cli::UmountArgs;
use s4::error::{Error, ErrorKind, ExitStatus, Result, reason};
use s4::mounts;

pub fn run(args: &UmountArgs) -> Result<ExitStatus> {
    let shown = args.dir.display();
    let refused = |why: &str| Error::new(ErrorKind::NotFound, format!("{shown}: {why}"));
    // Not looked at itself: what is mounted there may be dead.
    let dir = mounts::resolve(&args.dir).map_err(|e| refused(&reason(&e)))?;
    match mounts::at(&dir) {
        None => Err(refused("nothing is mounted there")),
        Some(mounted) if !mounted.is_cluster => Err(refused("what is mounted there is no s4 cluster")),
        Some(_) => mounts::unmount(&dir, args.lazy).map(|()| ExitStatus::Done),
    }
}
