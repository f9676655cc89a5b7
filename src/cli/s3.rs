//! The options of `s4 cp -r` with `s3://`.

use super::jobs::ShowArgs;
use clap::Args;
use s4::protocol::{Access, S3};

// Not a doc comment: clap would show it in the help.
#[derive(Args)]
pub struct S3Args {
    #[command(flatten)]
    pub access: Access,
    /// Send the credentials of AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY and AWS_SESSION_TOKEN to the nodes, for this copy
    ///
    /// The nodes store them nowhere. Without this option, each node uses its own credentials.
    #[arg(long, help_heading = S3)]
    pub send_credentials: bool,
    /// Objects at a time on each node [default: 16]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..), help_heading = S3)]
    pub jobs: Option<u16>,
    /// Show what each node would copy, and copy nothing
    ///
    /// This shows objects and bytes of each node, and the names that no key can have.
    #[arg(long, help_heading = S3)]
    pub dry_run: bool,
    /// Go on with an earlier copy: leave out what it has copied
    ///
    /// Keys that were copied from the same object, and objects that have the bytes of their keys, are left out unread. Uploads
    /// in parts continue, and those that are left over are aborted.
    #[arg(long, help_heading = S3)]
    pub resume: bool,
    /// Replace objects of S3 that exist
    #[arg(long, help_heading = S3)]
    pub overwrite: bool,
    /// Leave out objects whose names no key can have
    #[arg(long, help_heading = S3)]
    pub skip_bad_names: bool,
    /// Print the job's id and return; s4 wait follows it
    #[arg(long, help_heading = S3)]
    pub detach: bool,
    #[command(flatten, next_help_heading = S3)]
    pub show: ShowArgs,
}

impl S3Args {
    /// True if any of them is given.
    pub fn is_given(&self) -> bool {
        let flags =
            [self.send_credentials, self.dry_run, self.resume, self.overwrite, self.skip_bad_names, self.detach];
        let shows = self.show.quiet || self.show.json;
        self.access != Access::default() || self.jobs.is_some() || flags.contains(&true) || shows
    }
}
