//! Detects arguments of a map in the wrong order.

use crate::cli::MapArgs;
use s4::error::{Error, Result};
use s4::key;
use s4::protocol::MapKind;

/// Refuses a CMD that is before or between the directories.
pub fn check_order(kind: MapKind, args: &MapArgs) -> Result<()> {
    let cmd = args.cmd.to_string_lossy();
    let (indir, outdir) = (&args.indir, &args.outdir);
    let right = match (key::is_url(indir), key::is_url(outdir), key::is_url(&cmd)) {
        (false, true, true) => format!("{outdir} {cmd} '{indir}'"),
        (true, false, true) => format!("{indir} {cmd} '{outdir}'"),
        (true, true, true) => {
            return Err(Error::usage(format!(
                "'{}' is a name in the cluster, and CMD is a command",
                cmd.escape_debug()
            )));
        }
        _ => return Ok(()),
    };
    Err(Error::usage(format!("CMD comes last: s4 {kind} {}", right.escape_debug().to_string().replace("\\'", "'"))))
}
