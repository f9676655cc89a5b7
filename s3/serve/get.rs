//! GetObject and HeadObject.

use super::attributes::{Conditions, Shown};
use super::door::Door;
use super::failure::OrFailure;
use super::names::{self, Object};
use crate::metadata;
use bytes::Bytes;
use futures::Stream;
use hyper::HeaderMap;
use hyper::header::{CONTENT_RANGE, HeaderValue};
use s3s::dto::{
    GetObjectAttributesInput, GetObjectAttributesOutput, GetObjectInput, GetObjectOutput, HeadObjectInput,
    HeadObjectOutput, Metadata as UserMetadata, Range as ByteRange, StreamingBlob, Timestamp, TimestampFormat,
};
use s3s::stream::{ByteStream, RemainingLength};
use s3s::{S3Error, S3Request, S3Response, S3Result, StdError, s3_error};
use s4::client::{Client, TRIES, blocking};
use s4::error::Error;
use s4::key::Key;
use s4::protocol::Metadata;
use std::ops::Range;
use std::pin::Pin;
use std::task::{Context, Poll};
use tokio::sync::mpsc;

/// Bytes of a piece of an answer.
const PIECE: usize = 128 * 1024;
/// Pieces that wait for the client to read them.
const PIECES: usize = 2;
/// The type of an object that was put without one.
pub const NO_TYPE: &str = "binary/octet-stream";
/// The type by which some clients know a directory marker.
pub const DIR_TYPE: &str = "application/x-directory";

/// An object that exists.
pub struct Found {
    /// `None` for a directory.
    pub key: Option<Key>,
    pub shown: Shown,
    pub metadata: Metadata,
}

impl Found {
    fn content_type(&self) -> String {
        let default = if self.key.is_some() { NO_TYPE } else { DIR_TYPE };
        self.metadata.content_type().unwrap_or(default).to_owned()
    }

    fn header(&self, name: &str) -> Option<String> {
        metadata::header(&self.metadata, name).map(str::to_owned)
    }

    fn expires(&self) -> Option<Timestamp> {
        Timestamp::parse(TimestampFormat::HttpDate, metadata::header(&self.metadata, "expires")?).ok()
    }

    fn user(&self) -> Option<UserMetadata> {
        Some(metadata::user(&self.metadata).map(|(name, value)| (name.clone(), value.clone())).collect())
    }
}

/// The part of an object that an answer has.
struct Selected {
    range: Range<u64>,
    /// The value of the header, if a part was asked for; also if it is the whole object.
    content_range: Option<String>,
}

/// Error: the range is not in the object.
fn select(object: &Shown, range: Option<ByteRange>, part: Option<i32>) -> S3Result<Selected> {
    let len = object.checksum.len;
    let range = match (range, part) {
        (Some(_), Some(_)) => return Err(s3_error!(InvalidRequest, "a range and a part number exclude each other")),
        (Some(range), None) => range.check(len).map_err(|_| not_in(len))?,
        // Every object is one part.
        (None, Some(1)) if len > 0 => 0..len,
        (None, Some(1) | None) => return Ok(Selected { range: 0..len, content_range: None }),
        (None, Some(_)) => return Err(s3_error!(InvalidPart, "the object has one part")),
    };
    let content_range = Some(format!("bytes {}-{}/{len}", range.start, range.end - 1));
    Ok(Selected { range, content_range })
}

fn not_in(len: u64) -> S3Error {
    let mut error = s3_error!(InvalidRange, "the range is not in the object, which has {len} bytes");
    if let Ok(value) = HeaderValue::from_str(&format!("bytes */{len}")) {
        error.set_headers(HeaderMap::from_iter([(CONTENT_RANGE, value)]));
    }
    error
}

impl Door {
    /// The object of this name. Errors: no such key or bucket; a version that does not exist.
    pub async fn find(&self, bucket: &str, key: &str, version: Option<&str>) -> S3Result<Found> {
        check_version(version)?;
        if let Some(object) = names::existing(bucket, key)
            && let Some(found) = self.look_up(object).await?
        {
            return Ok(found);
        }
        self.require_bucket(bucket).await?;
        Err(names::no_such_key(bucket, key))
    }

    async fn look_up(&self, object: Object) -> S3Result<Option<Found>> {
        Ok(match object {
            Object::Key(key) => self.client().head(&key).await.or_failure()?.map(|head| Found {
                key: Some(key),
                shown: Shown { checksum: head.stat.checksum, mtime: head.stat.mtime },
                metadata: head.metadata,
            }),
            Object::Dir(dir) => self.dir_time(&dir).await?.map(|mtime| Found {
                key: None,
                shown: Shown::of_dir(mtime),
                metadata: Metadata::default(),
            }),
        })
    }

    pub async fn get_object(&self, req: S3Request<GetObjectInput>) -> S3Result<S3Response<GetObjectOutput>> {
        let input = req.input;
        let found = self.find(&input.bucket, &input.key, input.version_id.as_deref()).await?;
        let conditions = Conditions {
            if_match: input.if_match,
            if_none_match: input.if_none_match,
            if_modified_since: input.if_modified_since,
            if_unmodified_since: input.if_unmodified_since,
        };
        conditions.check(&found.shown)?;
        let selected = select(&found.shown, input.range, input.part_number)?;
        let len = selected.range.end - selected.range.start;
        let body = match &found.key {
            Some(key) => Pieces::start(self.client(), key.clone(), found.shown, selected.range).await?,
            None => Pieces::none(),
        };
        let output = GetObjectOutput {
            accept_ranges: Some("bytes".to_owned()),
            body: Some(StreamingBlob::new(body)),
            content_length: Some(len as i64),
            content_range: selected.content_range,
            cache_control: found.header("cache-control"),
            content_disposition: found.header("content-disposition"),
            content_encoding: found.header("content-encoding"),
            content_language: found.header("content-language"),
            content_type: Some(found.content_type()),
            expires: found.expires(),
            metadata: found.user(),
            e_tag: Some(found.shown.etag()),
            last_modified: Some(found.shown.time()),
            parts_count: input.part_number.map(|_| 1),
            ..GetObjectOutput::default()
        };
        Ok(S3Response::new(output))
    }

    pub async fn head_object(&self, req: S3Request<HeadObjectInput>) -> S3Result<S3Response<HeadObjectOutput>> {
        let input = req.input;
        let found = self.find(&input.bucket, &input.key, input.version_id.as_deref()).await?;
        let conditions = Conditions {
            if_match: input.if_match,
            if_none_match: input.if_none_match,
            if_modified_since: input.if_modified_since,
            if_unmodified_since: input.if_unmodified_since,
        };
        conditions.check(&found.shown)?;
        let selected = select(&found.shown, input.range, input.part_number)?;
        let output = HeadObjectOutput {
            accept_ranges: Some("bytes".to_owned()),
            content_length: Some((selected.range.end - selected.range.start) as i64),
            content_range: selected.content_range,
            cache_control: found.header("cache-control"),
            content_disposition: found.header("content-disposition"),
            content_encoding: found.header("content-encoding"),
            content_language: found.header("content-language"),
            content_type: Some(found.content_type()),
            expires: found.expires(),
            metadata: found.user(),
            e_tag: Some(found.shown.etag()),
            last_modified: Some(found.shown.time()),
            parts_count: input.part_number.map(|_| 1),
            ..HeadObjectOutput::default()
        };
        Ok(S3Response::new(output))
    }

    pub async fn get_object_attributes(
        &self,
        req: S3Request<GetObjectAttributesInput>,
    ) -> S3Result<S3Response<GetObjectAttributesOutput>> {
        let input = req.input;
        let found = self.find(&input.bucket, &input.key, input.version_id.as_deref()).await?;
        // s3s passes the header as one attribute.
        let asked = input.object_attributes.iter().flat_map(|names| names.as_str().split(',').map(str::trim));
        let asked: Vec<&str> = asked.collect();
        let asked = |name: &str| asked.contains(&name);
        Ok(S3Response::new(GetObjectAttributesOutput {
            e_tag: asked("ETag").then(|| found.shown.etag()),
            last_modified: Some(found.shown.time()),
            object_size: asked("ObjectSize").then_some(found.shown.checksum.len as i64),
            storage_class: asked("StorageClass").then(|| "STANDARD".to_owned().into()),
            ..GetObjectAttributesOutput::default()
        }))
    }
}

/// Objects have no versions: the only one is called `null`.
pub fn check_version(version: Option<&str>) -> S3Result<()> {
    match version {
        None | Some("" | "null") => Ok(()),
        Some(_) => Err(s3_error!(NoSuchVersion, "objects have no versions")),
    }
}

/// The bytes of a span of a key, as the body of an answer. Each is verified before it is sent. An error breaks the
/// connection off, so that the client notices.
struct Pieces {
    first: Option<Bytes>,
    rest: mpsc::Receiver<Result<Bytes, Error>>,
    left: u64,
}

impl Pieces {
    fn none() -> Self {
        Self { first: None, rest: mpsc::channel(1).1, left: 0 }
    }

    /// Waits for the first bytes, so that an error can still be the answer.
    async fn start(client: &Client, key: Key, shown: Shown, range: Range<u64>) -> S3Result<Self> {
        if range.is_empty() {
            return Ok(Self::none());
        }
        let left = range.end - range.start;
        let (sender, mut rest) = mpsc::channel(PIECES);
        tokio::spawn(send(client.clone(), key, shown, range, sender));
        match rest.recv().await {
            Some(first) => Ok(Self { first: Some(first.or_failure()?), rest, left }),
            None => Err(s3_error!(InternalError, "no bytes came")),
        }
    }
}

/// Sends a span of a key, and resumes after a connection to the node breaks.
async fn send(client: Client, key: Key, shown: Shown, range: Range<u64>, to: mpsc::Sender<Result<Bytes, Error>>) {
    let (mut next, mut tries) = (range.start, TRIES);
    while next < range.end {
        let mut span = match client.get_span(&key, shown.checksum, next..range.end).await {
            Ok(span) => span,
            Err(error) => {
                let _ = to.send(Err(error)).await;
                return;
            }
        };
        let sender = to.clone();
        let (sent, ended) = blocking(move || {
            let mut sent = 0;
            loop {
                match span.next_block(PIECE) {
                    Ok(Some(piece)) => {
                        let len = piece.len() as u64;
                        // An error means that the client is gone.
                        if sender.blocking_send(Ok(piece)).is_err() {
                            return (sent, None);
                        }
                        sent += len;
                    }
                    Ok(None) => return (sent, None),
                    Err(error) => return (sent, Some(error)),
                }
            }
        })
        .await;
        next += sent;
        tries = if sent > 0 { TRIES } else { tries - 1 };
        match ended {
            None => return,
            Some(error) if error.is_of_broken_connection() && tries > 0 => {}
            Some(error) => {
                tracing::warn!("an answer is broken off: {error}");
                let _ = to.send(Err(error)).await;
                return;
            }
        }
    }
}

impl Stream for Pieces {
    type Item = Result<Bytes, StdError>;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = self.get_mut();
        let next = match this.first.take() {
            Some(first) => Some(Ok(first)),
            None if this.left == 0 => None,
            None => match this.rest.poll_recv(cx) {
                Poll::Ready(next) => next,
                Poll::Pending => return Poll::Pending,
            },
        };
        if let Some(Ok(piece)) = &next {
            this.left = this.left.saturating_sub(piece.len() as u64);
        }
        Poll::Ready(next.map(|piece| piece.map_err(StdError::from)))
    }
}

impl ByteStream for Pieces {
    fn remaining_length(&self) -> RemainingLength {
        RemainingLength::new_exact(usize::try_from(self.left).unwrap_or(usize::MAX))
    }
}
