//! `s4-s3 put`: an object from stdin. It appears whole when this program succeeds, and not at all when it fails.

use crate::cli::PutArgs;
use crate::client::{NewObject, S3, S3Url, Settings};
use crate::upload::{Source, Target, Uploads, growing_part};
use bytes::Bytes;
use s4::client::blocking;
use s4::error::{Error, ErrorKind, Result};
use std::io::Read;
use tokio::signal::unix::{SignalKind, signal};

/// Requests at a time.
const REQUESTS: usize = 4;

pub async fn run(args: &PutArgs) -> Result<()> {
    let url = S3Url::parse_object(&args.url)?;
    let s3 = S3::new(Settings::new(&args.access, None, REQUESTS)?)?;
    let user = args.metadata.iter().cloned().collect();
    let new = NewObject { content_type: args.content_type.clone(), user, overwrite: args.overwrite };
    let listen = |kind| signal(kind).map_err(|e| Error::io("cannot wait for signals", &e));
    let (mut interrupt, mut terminate) = (listen(SignalKind::interrupt())?, listen(SignalKind::terminate())?);
    let uploads = Uploads::default();
    let target = Target { s3: &s3, url: &url, new: &new, uploads: &uploads, begun: None };
    let mut stdin = Stdin;
    let caught = tokio::select! {
        made = target.make(growing_part, &mut stdin) => return made.map(drop),
        _ = interrupt.recv() => "interrupted",
        _ = terminate.recv() => "terminated",
    };
    let left = uploads.abort_all(&s3).await.into_iter().next();
    Err(left.unwrap_or_else(|| Error::new(ErrorKind::Cancelled, format!("{url}: {caught}"))))
}

struct Stdin;

impl Source for Stdin {
    async fn read(&mut self, len: u64) -> Result<Bytes> {
        let read = blocking(move || {
            let mut bytes = Vec::new();
            std::io::stdin().lock().take(len).read_to_end(&mut bytes).map(|_| bytes)
        });
        read.await.map(Bytes::from).map_err(|e| Error::io("stdin", &e))
    }
}
