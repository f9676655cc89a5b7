//! `s4-s3 get`: an object to stdout. Where the server has a checksum of it, exit status 0 says that the bytes match.

use crate::cli::GetArgs;
use crate::client::{Failure, PART, S3, S3Url, Settings};
use bytes::Bytes;
use futures::StreamExt;
use s4::client::blocking;
use s4::error::{Error, ErrorKind, Result};
use std::fs::File;
use std::io::Write;
use std::os::fd::AsFd;
use std::pin::pin;

/// Parts of a large object in memory.
const PARTS: usize = 8;

pub async fn run(args: &GetArgs) -> Result<()> {
    let url = S3Url::parse_object(&args.url)?;
    let s3 = S3::new(Settings::new(&args.access, None, PARTS)?)?;
    let failed = |failure: Failure| failure.about(&url);
    let info = s3.head(&url).await.map_err(failed)?;
    let stdout = std::io::stdout().as_fd().try_clone_to_owned().map_err(|e| Error::io("stdout", &e))?;
    let mut stdout = File::from(stdout);
    if info.len <= PART {
        let (_, bytes, _) = s3.get_small(&url, &info.etag).await.map_err(failed)?;
        return blocking(move || stdout.write_all(&bytes)).await.map_err(written);
    }
    let mut verifier = info.verifier();
    let mut blocks = pin!(s3.get_large(&url, &info, PARTS));
    while let Some(block) = blocks.next().await {
        let block: Bytes = block.map_err(failed)?;
        verifier.update(&block).map_err(failed)?;
        let (result, back) = blocking(move || (stdout.write_all(&block), stdout)).await;
        result.map_err(written)?;
        stdout = back;
    }
    verifier.finish().map(drop).map_err(failed)
}

fn written(error: std::io::Error) -> Error {
    match error.kind() {
        std::io::ErrorKind::BrokenPipe => Error::new(ErrorKind::OutputClosed, "stdout is closed"),
        _ => Error::io("stdout", &error),
    }
}
