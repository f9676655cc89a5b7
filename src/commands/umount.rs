//! `s4 umount`: takes a mount away, and waits until what was closed in it is published.

use crate::cli::UmountArgs;
use s4::error::{Error, ErrorKind, ExitStatus, Result, reason};
use s4::mounts::{self, Servers};
use std::time::Duration;

/// How long that may take: a little longer than `s4-mount` waits for it when it ends.
const PUBLISHED: Duration = Duration::from_secs(65);

pub fn run(args: &UmountArgs) -> Result<ExitStatus> {
    let shown = args.dir.display();
    let refused = |why: &str| Error::new(ErrorKind::NotFound, format!("{shown}: {why}"));
    // Not looked at itself: what is mounted there may be dead.
    let dir = mounts::resolve(&args.dir).map_err(|e| refused(&reason(&e)))?;
    let mounted = match mounts::at(&dir) {
        None => return Err(refused("nothing is mounted there")),
        Some(mounted) if !mounted.is_cluster => return Err(refused("what is mounted there is no s4 cluster")),
        Some(mounted) => mounted,
    };
    mounts::unmount(&dir, args.lazy)?;
    match Servers::of(&mounted.device).have_published(PUBLISHED) {
        true => Ok(ExitStatus::Done),
        false => {
            let why =
                "files that were closed are not published yet, and only the log of s4-mount will tell whether they are";
            Err(Error::new(ErrorKind::Deadline, format!("{shown}: unmounted, but {why}")))
        }
    }
}
