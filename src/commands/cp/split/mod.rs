//! `s4 cp --split`: cuts one input at line ends into many keys, and sends several at the same time.

mod cut;
mod input;
mod pieces;
mod published;

use super::report::{Counts, Report};
use crate::cli::CpArgs;
use crate::commands::console::unbuffered;
use input::{Input, unpacked_name};
use pieces::{Names, Piece, Split, check_number, cut, digits};
use published::Published;
use s4::client::Client;
use s4::error::{Error, ErrorKind, ExitStatus, Result};
use s4::key::{self, Dir, Key};
use s4::protocol::Change;
use std::fs::File;
use std::io::Read;
use std::path::Path;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc::{Receiver, channel};
use tokio::task::JoinSet;
use tokio::time::Instant;

/// Simultaneous uploads per node, with a limit for all: each needs a thread.
const FOR_A_NODE: usize = 2;
const AT_ONCE: std::ops::RangeInclusive<usize> = 4..=16;

pub async fn run(client: &Client, args: &CpArgs, size: u64) -> Result<ExitStatus> {
    let [src] = &*args.src else {
        return Err(Error::usage("--split cuts one file"));
    };
    if key::is_url(src) || !key::is_url(&args.dst) {
        return Err(Error::usage("--split cuts a local file, or stdin, and makes keys of it"));
    }
    let file = match &**src {
        "-" => unbuffered(std::io::stdin())?,
        path => File::open(path).map_err(|e| Error::io(path, &e))?,
    };
    let (dir, name) = target(src, &args.dst, args.decompress)?;
    let input = input::open(src, file, args.decompress)?;
    let split = Split { size, has_header: args.header };
    let names = Names { dir, name, digits: digits(&input, split) };
    // Fail early if no key can have the name.
    names.key(0)?;
    let sending = Sending { client: client.clone(), names, what: shown(src), skip_existing: args.skip_existing };
    sending.run(input, split).await
}

fn shown(src: &str) -> Arc<str> {
    if src == "-" { "stdin".into() } else { src.into() }
}

/// The directory of the pieces and their common name: that of `src`, unless `dst` has one.
fn target(src: &str, dst: &str, decompress: bool) -> Result<(Dir, String)> {
    if !dst.ends_with('/') {
        let key = Key::parse_url(dst)?;
        return Ok((Dir::try_from(key.parent().to_owned())?, key.basename().to_owned()));
    }
    let name = match src {
        "-" => "stdin",
        path => {
            let name = Path::new(path).file_name().and_then(|name| name.to_str());
            name.ok_or_else(|| Error::usage(format!("{src}: it has no basename to keep")))?
        }
    };
    let name = if decompress { unpacked_name(name) } else { name };
    Ok((Dir::parse_url(dst)?, name.to_owned()))
}

struct Sending {
    client: Client,
    names: Names,
    what: Arc<str>,
    skip_existing: bool,
}

impl Sending {
    async fn run(self, input: Input, split: Split) -> Result<ExitStatus> {
        let mut report = Report::start(self.skip_existing);
        let at_once = (FOR_A_NODE * self.client.cluster().len()).clamp(*AT_ONCE.start(), *AT_ONCE.end());
        if let Input::File(_, len) = &input {
            // An estimate: repeated headers are not counted.
            let _ = report.counts.all.set((len.div_ceil(split.size), *len));
        }
        let (sender, pieces) = channel(1);
        let what = self.what.clone();
        let cutting = tokio::task::spawn_blocking(move || cut(&what, input, split, &sender));
        let mut published = Published::default();
        let mut sent = self.send_all(pieces, at_once, &report.counts, &mut published).await;
        if sent.is_ok() {
            // If cutting failed, the input is incomplete.
            sent = cutting.await.map_err(|e| Error::new(ErrorKind::Io, e.to_string()));
        }
        if let Err(error) = sent {
            report.fail(self.with_published(error, &published));
        }
        report.finish()
    }

    /// Sends pieces until there are no more, or one fails. After a failure, waits for uploads in progress, but only for
    /// the deadline: a stream may never continue.
    async fn send_all(
        &self,
        pieces: Receiver<Result<Piece>>,
        at_once: usize,
        counts: &Arc<Counts>,
        published: &mut Published,
    ) -> Result<()> {
        let (mut pieces, mut running) = (Some(pieces), JoinSet::new());
        let mut failed: Option<Error> = None;
        let mut ends = pin!(tokio::time::sleep(Duration::MAX));
        while pieces.is_some() || !running.is_empty() {
            let piece = tokio::select! {
                piece = next(&mut pieces), if pieces.is_some() && running.len() < at_once => piece,
                Some(sent) = running.join_next() => {
                    match sent.unwrap_or_else(|e| Err(Error::new(ErrorKind::Io, e.to_string()))) {
                        Ok(number) => {
                            published.add(number);
                            continue;
                        }
                        Err(error) => Some(Err(error)),
                    }
                }
                () = &mut ends, if failed.is_some() => break,
            };
            match piece.map(|piece| piece.and_then(|piece| self.start(piece, counts))) {
                Some(Ok(sending)) => {
                    running.spawn(sending);
                }
                Some(Err(error)) if failed.is_none() => {
                    (pieces, failed) = (None, Some(error));
                    ends.as_mut().reset(Instant::now() + self.client.deadline());
                }
                Some(Err(_)) => {}
                None => pieces = None,
            }
        }
        failed.map_or(Ok(()), Err)
    }

    fn start(&self, piece: Piece, counts: &Arc<Counts>) -> Result<impl Future<Output = Result<u64>> + Send + 'static> {
        check_number(&self.names, piece.number)?;
        let key = self.names.key(piece.number)?;
        let (client, what, counts) = (self.client.clone(), self.what.clone(), counts.clone());
        let skip_existing = self.skip_existing;
        Ok(async move {
            let number = piece.number;
            if skip_existing && let Some(existing) = client.find_key(&key).await? {
                let len = existing.checksum.len;
                check_len(&key, len, measure(piece, &what).await?)?;
                counts.add_existing(len);
                return Ok(number);
            }
            let input = Counted { input: piece.input, counts: counts.clone() };
            client.put(&key, input, &what, Change::default()).await?;
            counts.add_key();
            Ok(number)
        })
    }

    fn with_published(&self, error: Error, published: &Published) -> Error {
        let same = "the same command on the same input";
        let what_now = match (error.kind() == ErrorKind::AlreadyExists, self.skip_existing) {
            (true, true) => "choose another destination".to_owned(),
            (true, false) => format!("choose another destination, or go on with {same} and --skip-existing"),
            (false, true) => format!("run {same} again to go on"),
            (false, false) => format!("run {same} again, with --skip-existing, to go on"),
        };
        Error::new(error.kind(), format!("{error}; {}; {what_now}", published.text(&self.names)))
    }
}

async fn next(pieces: &mut Option<Receiver<Result<Piece>>>) -> Option<Result<Piece>> {
    pieces.as_mut()?.recv().await
}

/// The length of a piece. A piece of a stream must be read to find it.
async fn measure(piece: Piece, what: &str) -> Result<u64> {
    let Piece { len, mut input, .. } = piece;
    match len {
        Some(len) => Ok(len),
        None => {
            let read = s4::client::blocking(move || std::io::copy(&mut input, &mut std::io::sink())).await;
            read.map_err(|e| Error::io(what, &e))
        }
    }
}

/// Refuses an existing key whose length differs: it cannot be this piece of an earlier run.
fn check_len(key: &Key, existing: u64, piece: u64) -> Result<()> {
    match existing == piece {
        true => Ok(()),
        false => Err(Error::new(
            ErrorKind::AlreadyExists,
            format!(
                "{key}: exists with {existing} bytes, where this piece has {piece}: another input, or another --split, made it"
            ),
        )),
    }
}

/// Counts the bytes that are read.
struct Counted {
    input: Box<dyn Read + Send>,
    counts: Arc<Counts>,
}

impl Read for Counted {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let n = self.input.read(buffer)?;
        self.counts.add_bytes(n as u64);
        Ok(n)
    }
}
