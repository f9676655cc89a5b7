//! `s4 cp -r` to stdout: writes keys in the order of their names. While one is written, the next small ones are
//! fetched.

use super::exclude::Exclude;
use super::file::HERE;
use super::gather::gather;
use super::sources::{Keys, Source};
use crate::commands::console::unbuffered;
use s4::client::{Client, blocking};
use s4::error::{Error, ErrorKind, ExitStatus, Result};
use s4::key::Key;
use std::collections::VecDeque;
use std::io::Write;
use tokio::task::JoinHandle;

/// Keys that are fetched ahead.
const AHEAD: usize = 16;
/// Limit of bytes of a key that is fetched ahead. A larger key is streamed when it is its turn.
const LARGEST: usize = 1 << 20;

/// A key in the queue.
struct Next {
    key: Key,
    fetched: Option<JoinHandle<Result<Option<Vec<u8>>>>>,
}

/// Writes the keys of `sources` to stdout, in order.
pub async fn print(client: &Client, sources: Vec<Source>, exclude: &Exclude) -> Result<ExitStatus> {
    let mut keys = Keys::new(client, sources, exclude.clone());
    let (mut queue, mut is_end) = (VecDeque::new(), false);
    loop {
        while queue.len() < AHEAD && !is_end {
            match keys.next().await? {
                Some(found) => queue.push_back(begin(client, found.key, found.size)),
                None => is_end = true,
            }
        }
        match queue.pop_front() {
            Some(next) => write(client, next).await?,
            None => return Ok(ExitStatus::Done),
        }
    }
}

fn begin(client: &Client, key: Key, size: u64) -> Next {
    let fetched = (size <= LARGEST as u64).then(|| {
        let (client, key) = (client.clone(), key.clone());
        tokio::spawn(async move { gather(&client, &key, LARGEST).await })
    });
    Next { key, fetched }
}

async fn write(client: &Client, next: Next) -> Result<()> {
    let fetched = match next.fetched {
        Some(fetched) => fetched.await.map_err(|e| Error::new(ErrorKind::Io, e.to_string()))??,
        None => None,
    };
    let mut stdout = unbuffered(std::io::stdout())?;
    match fetched {
        // On a blocking thread, so that the next keys arrive even if nobody reads stdout.
        Some(bytes) => blocking(move || stdout.write_all(&bytes)).await.map_err(|e| Error::io("stdout", &e)),
        None => client.get(&next.key, stdout, "stdout", HERE).await.map(drop),
    }
}
