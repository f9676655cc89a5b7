//! The body of a put, as input for the client library: a task moves it from the socket into a bounded channel, and a
//! thread of the put reads it, hashes it, and verifies at its end what the request says about it. A body that fails is
//! an error of reading, so nothing of it is published.

use super::edge::BodyFault;
use bytes::{Buf, Bytes};
use futures::StreamExt;
use hyper::header::HeaderMap;
use s3s::checksum::ChecksumHasher;
use s3s::crypto::{Checksum as _, Crc32, Crc32c, Crc64Nvme, Md5, Sha1, Sha256};
use s3s::dto::StreamingBlob;
use s3s::{S3Error, S3ErrorCode, S3Result, StdError, TrailingHeaders, s3_error};
use s4::checksum::Checksum;
use s4::hasher::Hasher;
use std::io::Read;
use std::sync::{Arc, Mutex, PoisonError};
use tokio::sync::mpsc;

/// Chunks that wait in the channel. Each is at most as large as the buffer of the connection.
const CHUNKS: usize = 2;

/// A body of a request, and what the request says about it.
pub struct Upload {
    pub body: Option<StreamingBlob>,
    pub expected: Expected,
    pub fault: Option<BodyFault>,
}

/// What a body must be.
pub struct Expected {
    /// Base64.
    md5: Option<String>,
    /// The name of each checksum, as in `x-amz-checksum-NAME`, and its value in base64; `None` if a trailer has it.
    sums: Vec<(&'static str, Option<String>)>,
    trailers: Option<TrailingHeaders>,
    len: Option<u64>,
}

const SUMS: [&str; 5] = ["crc32", "crc32c", "crc64nvme", "sha1", "sha256"];

impl Expected {
    /// From the headers of a request.
    pub fn of(headers: &HeaderMap, trailers: Option<TrailingHeaders>) -> S3Result<Self> {
        let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok()).map(str::trim);
        let announced = text("x-amz-trailer").unwrap_or_default().to_ascii_lowercase();
        let mut sums = Vec::new();
        for name in SUMS {
            let header = format!("x-amz-checksum-{name}");
            match text(&header) {
                Some(value) => sums.push((name, Some(value.to_owned()))),
                None if announced.split(',').any(|word| word.trim() == header) => sums.push((name, None)),
                None => {}
            }
        }
        let is_chunked = text("x-amz-content-sha256").is_some_and(|form| form.starts_with("STREAMING-"));
        let len = text(if is_chunked { "x-amz-decoded-content-length" } else { "content-length" });
        let len = len.map(|len| len.parse().map_err(|_| s3_error!(InvalidRequest, "the length is no number")));
        let md5 = text("content-md5").map(str::to_owned);
        if md5.as_ref().is_some_and(|md5| md5.len() != 24) {
            return Err(s3_error!(InvalidDigest, "the Content-MD5 is not one"));
        }
        Ok(Self { md5, sums, trailers, len: len.transpose()? })
    }

    /// The length of the body, if the request says it.
    pub fn len(&self) -> Option<u64> {
        self.len
    }
}

/// What was received: the checksum of the cluster, and those of S3 that were verified.
#[derive(Clone)]
pub struct Receipt {
    pub checksum: Checksum,
    pub verified: s3s::dto::Checksum,
}

/// The end of a body: its receipt, or why it was refused. `None` before the end.
#[derive(Clone, Default)]
struct Outcome(Arc<Mutex<Option<S3Result<Receipt>>>>);

enum Piece {
    Bytes(Bytes),
    End,
    Failed(S3Error),
}

/// Runs `put` with the body as its input. Returns its result, and the receipt if the whole body was read. Error: the
/// body was refused.
pub async fn receive<T, F: Future<Output = T>>(
    upload: Upload,
    put: impl FnOnce(BodyReader) -> F,
) -> S3Result<(T, Option<Receipt>)> {
    let (sender, pieces) = mpsc::channel(CHUNKS);
    let outcome = Outcome::default();
    let reader = BodyReader::new(pieces, upload.expected, outcome.clone());
    let put = std::pin::pin!(put(reader));
    let mut put = futures::FutureExt::fuse(put);
    let put = tokio::select! {
        // The put has failed, or it has read everything.
        done = &mut put => done,
        () = pump(upload.body, upload.fault, sender) => put.await,
    };
    let outcome = outcome.0.lock().unwrap_or_else(PoisonError::into_inner).take();
    Ok((put, outcome.transpose()?))
}

/// Reads a body to its end, and verifies it; stores nothing.
pub async fn read_only(upload: Upload) -> S3Result<Receipt> {
    let read = |mut reader: BodyReader| s4::client::blocking(move || std::io::copy(&mut reader, &mut std::io::sink()));
    match receive(upload, read).await? {
        (_, Some(receipt)) => Ok(receipt),
        (_, None) => Err(s3_error!(IncompleteBody, "the body ended early")),
    }
}

/// Moves the body into the channel, until its end or until nobody reads any more.
async fn pump(body: Option<StreamingBlob>, fault: Option<BodyFault>, sender: mpsc::Sender<Piece>) {
    if let Some(mut body) = body {
        while let Some(next) = body.next().await {
            let (piece, is_last) = match next {
                Ok(bytes) => (Piece::Bytes(bytes), false),
                Err(error) => (Piece::Failed(refusal(fault.as_ref(), &error)), true),
            };
            if sender.send(piece).await.is_err() || is_last {
                return;
            }
        }
    }
    // Without this mark, the reader takes the end of the channel for a client that is gone.
    let _ = sender.send(Piece::End).await;
}

/// The error for a body that cannot be read. The types of s3s's errors are private, and only their texts tell them
/// apart.
fn refusal(fault: Option<&BodyFault>, error: &StdError) -> S3Error {
    if let Some(error) = fault.and_then(BodyFault::error) {
        return error;
    }
    let text = error.to_string();
    if text.contains("SignatureMismatch") {
        s3_error!(SignatureDoesNotMatch, "the signature of a chunk or trailer does not match")
    } else if text.contains("Sha256Mismatch") {
        let code = S3ErrorCode::Custom("XAmzContentSHA256Mismatch".into());
        let mut error = S3Error::with_message(code, "the bytes do not match the x-amz-content-sha256 that was signed");
        error.set_status_code(hyper::StatusCode::BAD_REQUEST);
        error
    } else {
        s3_error!(IncompleteBody, "the body cannot be read: {text}")
    }
}

/// Reads a body on a blocking thread.
pub struct BodyReader {
    pieces: mpsc::Receiver<Piece>,
    current: Bytes,
    expected: Expected,
    hasher: Hasher,
    sums: ChecksumHasher,
    md5: Option<Md5>,
    /// `None` once the end was reached.
    outcome: Option<Outcome>,
}

impl BodyReader {
    fn new(pieces: mpsc::Receiver<Piece>, expected: Expected, outcome: Outcome) -> Self {
        let has = |name: &str| expected.sums.iter().any(|(other, _)| *other == name);
        let sums = ChecksumHasher {
            crc32: has("crc32").then(Crc32::new),
            crc32c: has("crc32c").then(Crc32c::new),
            crc64nvme: has("crc64nvme").then(Crc64Nvme::new),
            sha1: has("sha1").then(Sha1::new),
            sha256: has("sha256").then(Sha256::new),
        };
        let md5 = expected.md5.is_some().then(Md5::new);
        let (current, hasher) = (Bytes::new(), Hasher::new());
        Self { pieces, current, expected, hasher, sums, md5, outcome: Some(outcome) }
    }

    fn update(&mut self, bytes: &[u8]) {
        self.hasher.update(bytes);
        self.sums.update(bytes);
        if let Some(md5) = &mut self.md5 {
            md5.update(bytes);
        }
    }

    /// Records how the body has ended. Error: not as expected.
    fn end(&mut self, ended: S3Result<()>) -> std::io::Result<usize> {
        let result = ended.and_then(|()| self.verify());
        let is_good = result.is_ok();
        if let Some(outcome) = self.outcome.take() {
            *outcome.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(result);
        }
        if is_good { Ok(0) } else { Err(std::io::Error::other("the body was refused")) }
    }

    fn verify(&mut self) -> S3Result<Receipt> {
        let checksum = self.hasher.finish();
        if let Some(len) = self.expected.len.filter(|&len| len != checksum.len) {
            return Err(s3_error!(IncompleteBody, "{len} bytes were announced, and {} came", checksum.len));
        }
        if let (Some(md5), Some(expected)) = (self.md5.take(), &self.expected.md5)
            && *expected != base64_simd::STANDARD.encode_to_string(md5.finalize())
        {
            return Err(s3_error!(BadDigest, "the bytes do not match the Content-MD5"));
        }
        let verified = std::mem::take(&mut self.sums).finalize();
        for (name, expected) in &self.expected.sums {
            let trailer = format!("x-amz-checksum-{name}");
            let in_trailer = || {
                let trailers = self.expected.trailers.as_ref()?;
                trailers.read(|map| Some(map.get(&trailer)?.to_str().ok()?.trim().to_owned())).flatten()
            };
            let Some(expected) = expected.clone().or_else(in_trailer) else {
                return Err(s3_error!(InvalidRequest, "the trailer {trailer} was announced and is missing"));
            };
            if found(&verified, name) != Some(&expected) {
                return Err(s3_error!(BadDigest, "the bytes do not match the {trailer}"));
            }
        }
        Ok(Receipt { checksum, verified })
    }
}

/// The checksum of this name.
fn found<'a>(sums: &'a s3s::dto::Checksum, name: &str) -> Option<&'a String> {
    match name {
        "crc32" => sums.checksum_crc32.as_ref(),
        "crc32c" => sums.checksum_crc32c.as_ref(),
        "crc64nvme" => sums.checksum_crc64nvme.as_ref(),
        "sha1" => sums.checksum_sha1.as_ref(),
        "sha256" => sums.checksum_sha256.as_ref(),
        _ => None,
    }
}

impl Read for BodyReader {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        while self.current.is_empty() {
            if self.outcome.is_none() {
                return Ok(0);
            }
            match self.pieces.blocking_recv() {
                Some(Piece::Bytes(bytes)) => {
                    self.update(&bytes);
                    self.current = bytes;
                }
                Some(Piece::End) => return self.end(Ok(())),
                Some(Piece::Failed(error)) => return self.end(Err(error)),
                None => return self.end(Err(s3_error!(IncompleteBody, "the client is gone"))),
            }
        }
        let n = self.current.len().min(buffer.len());
        self.current.copy_to_slice(&mut buffer[..n]);
        Ok(n)
    }
}
