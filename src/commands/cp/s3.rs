//! `s4 cp -r` between S3 and the cluster: a job, in which each node copies its own keys.

use crate::cli::CpArgs;
use crate::commands::follow::Interrupts;
use crate::commands::start;
use s4::client::Client;
use s4::error::{Error, ExitStatus, Result};
use s4::key::{self, Dir};
use s4::protocol::{CopySpec, Credentials, JobSpec};

/// True for an URL of S3.
pub fn is_url(path: &str) -> bool {
    path.starts_with("s3://")
}

pub async fn run(client: &Client, args: CpArgs) -> Result<ExitStatus> {
    let spec = spec(&args)?;
    let mut interrupts = Interrupts::new()?;
    let ended = start::run(client, &spec, args.s3.detach, &args.s3.show, &mut interrupts).await;
    interrupts.status(ended)
}

/// The job as typed by the user.
fn spec(args: &CpArgs) -> Result<JobSpec> {
    let [from] = &*args.src else {
        return Err(Error::usage("a copy with S3 has one source"));
    };
    let (from, to) = (from.clone(), args.dst.clone());
    let dir = match (is_url(&from), is_url(&to)) {
        (true, false) if key::is_url(&to) => Dir::parse_url(&to)?,
        (false, true) if key::is_url(&from) => Dir::parse_url(&from)?,
        (true, true) => return Err(Error::usage(format!("{from} and {to}: one of the two is in the cluster, s4://…"))),
        _ => return Err(Error::usage("between S3 and local files other programs copy, as 'aws s3 cp' does")),
    };
    if !args.recursive {
        let one = "for one object: 's4-s3 get s3://… | s4 cp - s4://…', or 's4 cp s4://… - | s4-s3 put s3://…'";
        return Err(Error::usage(format!("-r copies what is below s3://bucket/prefix/; {one}")));
    }
    if args.split.is_some() || args.provenance || args.skip_existing || !args.exclude.is_empty() {
        return Err(Error::usage("--split, --provenance, --skip-existing and --exclude do not go with s3://"));
    }
    let options = &args.s3;
    let access = options.access.with_environment();
    let (dry_run, resume) = (options.dry_run, options.resume);
    let (overwrite, skip_bad_names) = (options.overwrite, options.skip_bad_names);
    let mut spec = JobSpec::copying(CopySpec { from, to, access, dry_run, resume, overwrite, skip_bad_names }, dir)?;
    spec.jobs = options.jobs;
    spec.credentials = options.send_credentials.then(credentials).transpose()?;
    Ok(spec)
}

/// The credentials in the environment.
fn credentials() -> Result<Credentials> {
    let absent = |name| Error::usage(format!("--send-credentials: {name} is not set"));
    let variable = |name| std::env::var(name).ok().filter(|value| !value.is_empty());
    let needed = |name| variable(name).ok_or_else(|| absent(name));
    Ok(Credentials {
        access_key_id: needed("AWS_ACCESS_KEY_ID")?,
        secret_access_key: needed("AWS_SECRET_ACCESS_KEY")?,
        session_token: variable("AWS_SESSION_TOKEN"),
    })
}
