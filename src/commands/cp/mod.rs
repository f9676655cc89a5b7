//! `s4 cp`

mod between;
mod download;
mod draft;
mod exclude;
mod file;
mod gather;
mod ordered;
mod provenance;
mod report;
mod s3;
mod sources;
mod split;
mod upload;
mod walk;

use super::console::{print_message, unbuffered};
use crate::cli::CpArgs;
use exclude::Exclude;
use file::{HERE, get_file};
use report::Counts;
use s4::client::Client;
use s4::error::{Error, ErrorKind, ExitStatus, Result};
use s4::key::{self, Dir, Key};
use s4::protocol::Change;
use sources::{Source, What};
use std::collections::HashMap;
use std::fs::{File, OpenOptions};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use walk::{Files, Root};

pub async fn run(client: &Client, args: CpArgs) -> Result<ExitStatus> {
    if args.src.iter().chain([&args.dst]).any(|path| s3::is_url(path)) {
        return Box::pin(s3::run(client, args)).await;
    }
    if args.s3.is_given() {
        return Err(Error::usage("options for s3:// go with 's4 cp -r s3://… s4://…' and 's4 cp -r s4://… s3://…'"));
    }
    if let Some(size) = args.split {
        return Box::pin(split::run(client, &args, size)).await;
    }
    let exclude = match args.provenance {
        true => Exclude::parse(&[&args.exclude[..], &[format!("/{}", provenance::FILE)]].concat())?,
        false => Exclude::parse(&args.exclude)?,
    };
    let from_cluster = key::is_url(&args.src[0]);
    if args.src.iter().any(|src| key::is_url(src) != from_cluster) {
        return Err(Error::usage("the sources are all in the cluster, or all local"));
    }
    if args.provenance
        && (!args.recursive || args.src.len() > 1 || args.dst == "-" || (from_cluster && key::is_url(&args.dst)))
    {
        return Err(Error::usage("--provenance goes with the copy of one tree by -r, into the cluster or out of it"));
    }
    match (from_cluster, key::is_url(&args.dst)) {
        (false, true) => Box::pin(put(client, &args, exclude)).await,
        (true, false) => Box::pin(get(client, &args, &exclude)).await,
        (true, true) => Box::pin(copy(client, &args, &exclude)).await,
        (false, false) => Err(neither(&args.dst)),
    }
}

/// If the error is that the key exists, adds advice.
fn taken(error: Error) -> Error {
    match error.kind() {
        ErrorKind::AlreadyExists => error.with_more("choose another name, or delete it first with 's4 rm'"),
        _ => error,
    }
}

fn neither(dst: &str) -> Error {
    let message = "neither SRC nor DST begins with s4://";
    match Key::parse_url(dst) {
        Err(error) if !Path::new(dst).exists() => Error::usage(format!("{message}: {error}")),
        _ => Error::usage(format!("{message}; cp copies local files")),
    }
}

/// The source, if it is the only one and not a tree.
fn single(args: &CpArgs) -> Option<&str> {
    match &*args.src {
        [src] if !args.recursive => Some(src),
        _ => None,
    }
}

/// True if the only source matches `--exclude`.
fn is_left_out(src: &str, exclude: &Exclude) -> bool {
    exclude.leaves_out(src.rsplit_once('/').map_or(src, |(_, name)| name))
}

fn left_out(src: &str) -> ExitStatus {
    print_message(format_args!("{src} left out, since it exists at the destination"));
    ExitStatus::Done
}

/// Errors: there are several sources, and the destination is no directory.
fn check_dir(args: &CpArgs, is_dir: bool) -> Result<()> {
    match args.src.len() > 1 && !is_dir {
        true => Err(Error::usage(format!("{}: several sources go to a directory, which ends in /", args.dst))),
        false => Ok(()),
    }
}

/// Errors: two sources have the same name at the destination.
fn check_names<'a>(sources: &[String], names: impl Iterator<Item = &'a str>) -> Result<()> {
    let mut seen = HashMap::new();
    for (source, name) in sources.iter().zip(names) {
        if let Some(other) = seen.insert(name, source) {
            return Err(Error::usage(format!("{other} and {source} would both become {name}")));
        }
    }
    Ok(())
}

/// Copies into the cluster.
async fn put(client: &Client, args: &CpArgs, exclude: Exclude) -> Result<ExitStatus> {
    if let Some(src) = single(args) {
        return match is_left_out(src, &exclude) {
            true => Ok(ExitStatus::Done),
            false => put_one(client, src, &args.dst, args.skip_existing).await.map_err(taken),
        };
    }
    check_dir(args, args.dst.ends_with('/'))?;
    let dst = Dir::parse_url(&args.dst)?;
    let roots = args.src.iter().map(|src| root(args, src)).collect::<Result<Vec<Root>>>()?;
    if roots.len() > 1 {
        let names: Vec<_> =
            roots.iter().filter_map(|root| root.name.as_ref()).map(|name| name.to_string_lossy()).collect();
        check_names(&args.src, names.iter().map(|name| &**name))?;
    }
    let top = roots[0].path.clone();
    let files = Files { roots, dst: dst.clone(), exclude: exclude.clone() };
    let copied = upload::copy(client, files, args.skip_existing).await?;
    if args.provenance {
        provenance::restore(client, &top, &dst, &exclude).await?;
    }
    Ok(copied)
}

fn root(args: &CpArgs, src: &str) -> Result<Root> {
    if src == "-" {
        return Err(Error::usage("stdin is no tree, and not one of several sources"));
    }
    let path = PathBuf::from(src);
    let is_dir = std::fs::metadata(&path).map_err(|e| Error::io(src, &e))?.is_dir();
    let is_single = args.src.len() == 1;
    match (is_dir, args.recursive) {
        (true, false) => return Err(is_a_directory(src)),
        (false, true) if is_single => return Err(Error::usage(format!("{src}: is no directory; leave out -r"))),
        _ => {}
    }
    let name = path.file_name().map(ToOwned::to_owned);
    if name.is_none() && !is_single {
        return Err(Error::usage(format!("{src}: it has no basename to keep")));
    }
    Ok(Root { path, name: name.filter(|_| !is_single) })
}

fn is_a_directory(src: &str) -> Error {
    Error::usage(format!("{src}: is a directory; -r copies those"))
}

async fn put_one(client: &Client, src: &str, dst: &str, skip_existing: bool) -> Result<ExitStatus> {
    let key = target_key(src, dst)?;
    if skip_existing && client.find_key(&key).await?.is_some() {
        return Ok(left_out(src));
    }
    if src == "-" {
        client.put(&key, unbuffered(std::io::stdin())?, "stdin", Change::default()).await?;
        return Ok(ExitStatus::Done);
    }
    let failed = |e: std::io::Error| Error::io(src, &e);
    let file = File::open(src).map_err(failed)?;
    let found = file.metadata().map_err(failed)?;
    if found.is_dir() {
        return Err(is_a_directory(src));
    }
    client.put_file(&key, file, found.len(), src).await?;
    Ok(ExitStatus::Done)
}

/// The key for `dst`. If `dst` ends in `/`, the key gets the basename of `src`, a local path or key.
fn target_key(src: &str, dst: &str) -> Result<Key> {
    let basename = || match src {
        "-" => Err(Error::usage(format!("{dst}: stdin has no name to keep; name the key"))),
        _ => match Path::new(src).file_name().and_then(|name| name.to_str()) {
            Some(basename) => Ok(basename),
            None => Err(Error::usage(format!("{src}: it has no basename to keep"))),
        },
    };
    match (dst.ends_with('/'), Key::parse_url(dst)) {
        (true, _) => Dir::parse_url(dst)?.join(basename()?),
        // Only the bucket was named.
        (false, Err(_)) if Key::parse_url(&format!("{dst}/k")).is_ok() => {
            let name = basename().unwrap_or("NAME");
            Err(Error::usage(format!("'{dst}': it names a bucket; name the key, as in {dst}/{name}")))
        }
        (false, key) => key,
    }
}

/// Copies out of the cluster.
async fn get(client: &Client, args: &CpArgs, exclude: &Exclude) -> Result<ExitStatus> {
    if let Some(src) = single(args) {
        return match is_left_out(src, exclude) {
            true => Ok(ExitStatus::Done),
            false => get_one(client, &Key::parse_url(src)?, &args.dst, args.skip_existing).await,
        };
    }
    Box::pin(get_many(client, args, exclude)).await
}

/// Copies trees, or several keys, out of the cluster.
async fn get_many(client: &Client, args: &CpArgs, exclude: &Exclude) -> Result<ExitStatus> {
    if args.dst == "-" {
        return ordered::print(client, sources(client, args, false).await?, exclude).await;
    }
    let dst = Path::new(&args.dst);
    check_dir(args, args.dst.ends_with('/') || dst.is_dir())?;
    let sources = sources(client, args, dst == Path::new(".")).await?;
    let top = sources[0].clone();
    let provenance = args.provenance.then(|| provenance::place(&top, dst)).transpose()?;
    let copied = download::copy(client, sources, dst, exclude, args.skip_existing).await?;
    if let Some(path) = provenance {
        provenance::save(client, top, &path, exclude).await?;
    }
    Ok(copied)
}

/// The sources of a copy out of the cluster or within it. If the destination is `.` (`here`), a directory keeps its
/// name, and a bucket does not.
async fn sources(client: &Client, args: &CpArgs, here: bool) -> Result<Vec<Source>> {
    if let [src] = &*args.src {
        let dir = Dir::parse_url(src)?;
        return Ok(vec![match here && dir.as_str().contains('/') {
            true => Source::named(What::Below(dir)),
            false => Source::whole(dir),
        }]);
    }
    let mut sources = Vec::new();
    for src in &args.src {
        // With -r, a source may be a key or a directory.
        let is_dir =
            args.recursive && (Key::parse_url(src).is_err() || client.find_key(&Key::parse_url(src)?).await?.is_none());
        let what = if is_dir { What::Below(Dir::parse_url(src)?) } else { What::Key(Key::parse_url(src)?) };
        sources.push(Source::named(what));
    }
    if args.dst != "-" {
        check_names(&args.src, sources.iter().map(Source::name))?;
    }
    Ok(sources)
}

async fn get_one(client: &Client, key: &Key, dst: &str, skip_existing: bool) -> Result<ExitStatus> {
    if dst == "-" {
        client.get(key, unbuffered(std::io::stdout())?, "stdout", HERE).await?;
        return Ok(ExitStatus::Done);
    }
    let path = target_path(key, dst);
    match std::fs::metadata(&path) {
        // A pipe or device gets the bytes as they arrive.
        Ok(found) if !found.is_file() => {
            let sink = OpenOptions::new().write(true).open(&path).map_err(|e| Error::io(path.display(), &e))?;
            client.get(key, sink, &path.display().to_string(), HERE).await?;
        }
        Ok(_) if skip_existing => return Ok(left_out(&key.to_string())),
        _ => {
            get_file(client, key, &path).await?;
        }
    }
    Ok(ExitStatus::Done)
}

/// The file for `dst`. In a directory, it gets the basename of the key.
fn target_path(key: &Key, dst: &str) -> PathBuf {
    let path = Path::new(dst);
    match dst.ends_with('/') || path.is_dir() {
        true => path.join(key.basename()),
        false => path.to_owned(),
    }
}

/// Copies from key to key.
async fn copy(client: &Client, args: &CpArgs, exclude: &Exclude) -> Result<ExitStatus> {
    if let Some(src) = single(args) {
        let from = Key::parse_url(src)?;
        let to = target_key(src, &args.dst)?;
        if is_left_out(src, exclude) {
            return Ok(ExitStatus::Done);
        }
        if args.skip_existing && client.find_key(&to).await?.is_some() {
            return Ok(left_out(src));
        }
        let counts = Arc::new(Counts::default());
        // A large key is streamed, so its size must be known before.
        let size = client.find_key(&from).await?.map_or(0, |found| found.checksum.len);
        return between::copy_key(client, &from, &to, size, false, &counts).await.map(|()| ExitStatus::Done);
    }
    check_dir(args, args.dst.ends_with('/'))?;
    let (sources, dst) = (sources(client, args, false).await?, Dir::parse_url(&args.dst)?);
    for source in &sources {
        if let What::Below(dir) = &source.what
            && dir.overlaps(&dst)
        {
            let message = format!("{dir} and {dst}: a directory is not copied into itself, nor over what holds it");
            return Err(Error::new(ErrorKind::Usage, message));
        }
    }
    between::copy(client, sources, &dst, exclude, args.skip_existing).await
}
