//! `s4 cp` from key to key. The bytes pass through this process: it reads and verifies each key, and the destination
//! node publishes it like any other key. Nodes do not have to trust each other.

use super::exclude::Exclude;
use super::gather::{gather, pipe};
use super::report::{Counts, Report};
use super::sources::{Counting, Keys, Source};
use s4::checksum::Checksum;
use s4::client::{Client, PutOptions};
use s4::error::{Error, ErrorKind, ExitStatus, Result};
use s4::key::{Dir, Key};
use s4::wire::SMALL;
use std::sync::Arc;
use tokio::task::JoinSet;

/// Keys that are copied at the same time.
const AT_ONCE: usize = 16;

/// Copies the keys of `sources` to their paths below `dst`.
pub async fn copy(
    client: &Client,
    sources: Vec<Source>,
    dst: &Dir,
    exclude: &Exclude,
    skip_existing: bool,
) -> Result<ExitStatus> {
    let mut report = Report::start(skip_existing);
    let _counting = Counting::start(client, &sources, exclude, &report);
    let mut keys = Keys::new(client, sources, exclude.clone());
    let mut running = JoinSet::new();
    while !report.is_lost() {
        let copied = match keys.next().await {
            Ok(Some(found)) => dst.join(found.below()).map(|to| (found, to)),
            Ok(None) => break,
            Err(error) => Err(error),
        };
        match copied {
            Ok((found, to)) => {
                let (client, counts) = (client.clone(), report.counts.clone());
                running
                    .spawn(async move { copy_key(&client, &found.key, &to, found.size, skip_existing, &counts).await });
            }
            Err(error) => report.fail(error),
        }
        if running.len() >= AT_ONCE {
            take_one(&mut running, &mut report).await;
        }
    }
    while !report.is_lost() && !running.is_empty() {
        take_one(&mut running, &mut report).await;
    }
    report.finish()
}

async fn take_one(running: &mut JoinSet<Result<()>>, report: &mut Report) {
    match running.join_next().await {
        Some(Ok(Err(error))) => report.fail(error),
        Some(Err(error)) => report.fail(Error::new(ErrorKind::Io, error.to_string())),
        Some(Ok(Ok(()))) | None => {}
    }
}

/// Copies one key; `size` is its expected size.
pub async fn copy_key(
    client: &Client,
    from: &Key,
    to: &Key,
    size: u64,
    skip_existing: bool,
    counts: &Arc<Counts>,
) -> Result<()> {
    if skip_existing && client.find_key(to).await?.is_some() {
        counts.add_existing(size);
        return Ok(());
    }
    let reading = async { if size <= SMALL as u64 { gather(client, from, SMALL).await } else { Ok(None) } };
    let (head, small) = tokio::try_join!(client.head(from), reading)?;
    let head = head.ok_or_else(|| Error::new(ErrorKind::NotFound, format!("{from}: no such key")))?;
    // The bytes and the metadata were asked for one by one.
    let of_one_key = |found: Checksum| match found == head.stat.checksum {
        true => Ok(()),
        false => Err(Error::new(ErrorKind::NotFound, format!("{from}: replaced while it was copied"))),
    };
    let options = PutOptions { metadata: head.metadata, ..PutOptions::default() };
    let copied = match small {
        Some(bytes) => {
            of_one_key(Checksum::of(&bytes))?;
            client.put_small_with(to, bytes.into(), options).await
        }
        None => {
            let ((writer, end, reader), to_name, from_name) = (pipe(), to.to_string(), from.to_string());
            let (got, put) = tokio::join!(
                async {
                    match client.get(from, writer, &to_name, 0).await {
                        Ok(found) => {
                            of_one_key(found)?;
                            end.end().await;
                        }
                        // If the put has ended before, it knows the reason.
                        Err(error) if !end.is_reader_gone() => return Err(error),
                        Err(_) => {}
                    }
                    Ok(())
                },
                client.put_with(to, reader, &from_name, options),
            );
            got.and(put)
        }
    };
    copied.map(|checksum| {
        counts.add_key();
        counts.add_bytes(checksum.len);
    })
}
