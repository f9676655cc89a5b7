//! PutObject. A key is written once: a put to a taken key fails, unless it has the same bytes, since a client repeats a
//! put whose answer it has lost.

use super::attributes::{Conditions, Shown, etag};
use super::door::Door;
use super::edge::BodyFault;
use super::failure::{self, OrFailure};
use super::names::{self, Object};
use super::reader::{self, Expected, Receipt, Upload};
use crate::metadata;
use hyper::HeaderMap;
use s3s::dto::{ETagCondition, PutObjectInput, PutObjectOutput};
use s3s::{S3Error, S3Request, S3Response, S3Result, s3_error};
use s4::checksum::Checksum;
use s4::client::PutOptions;
use s4::error::ErrorKind;
use s4::key::{Dir, Key};
use s4::protocol::{Change, Metadata, Stat};

/// Headers that ask for what s4 does not have. Ignoring them would be a lie. The second is a value that asks for nothing.
const REFUSED: [(&str, &str); 11] = [
    ("x-amz-grant-full-control", ""),
    ("x-amz-grant-read", ""),
    ("x-amz-grant-read-acp", ""),
    ("x-amz-grant-write-acp", ""),
    ("x-amz-object-lock-legal-hold", "OFF"),
    ("x-amz-object-lock-mode", ""),
    ("x-amz-server-side-encryption", ""),
    ("x-amz-server-side-encryption-customer-algorithm", ""),
    ("x-amz-tagging", ""),
    ("x-amz-website-redirect-location", ""),
    ("x-amz-write-offset-bytes", ""),
];

/// Error: a header asks for what s4 does not have.
pub fn refuse_unknown(headers: &HeaderMap) -> S3Result<()> {
    let asks = |(name, nothing): &&(&str, &str)| {
        headers.get(*name).is_some_and(|value| value.as_bytes() != nothing.as_bytes())
    };
    // Several clients send one of these with every put.
    if headers.get("x-amz-acl").is_some_and(|acl| acl != "private" && acl != "bucket-owner-full-control") {
        return Err(s3_error!(NotImplemented, "s4 has no access control lists"));
    }
    match REFUSED.iter().find(asks) {
        Some((name, _)) => Err(s3_error!(NotImplemented, "the header {name} is not served")),
        None => Ok(()),
    }
}

/// The metadata in the headers of a request.
pub fn metadata_of(headers: &HeaderMap) -> S3Result<Metadata> {
    metadata::of_headers(headers).map_err(|error| match error.kind() {
        ErrorKind::TooLarge => s3_error!(MetadataTooLarge, "{error}"),
        _ => s3_error!(InvalidArgument, "{error}"),
    })
}

/// The conditions of a write.
#[derive(Default)]
pub struct WriteConditions {
    pub if_match: Option<ETagCondition>,
    pub if_none_match: Option<ETagCondition>,
}

impl WriteConditions {
    /// Error: a condition does not hold for the object that exists, or for its absence.
    pub fn check(&self, existing: Option<&Shown>) -> S3Result<()> {
        match existing {
            Some(existing) => {
                let conditions = Conditions { if_match: self.if_match.clone(), ..Conditions::default() };
                conditions.check(existing)?;
                let excluded = Conditions { if_match: self.if_none_match.clone(), ..Conditions::default() };
                match self.if_none_match.is_some() && excluded.check(existing).is_ok() {
                    true => Err(s3_error!(PreconditionFailed, "the key exists")),
                    false => Ok(()),
                }
            }
            None if self.if_match.is_some() => Err(s3_error!(NoSuchKey, "no such key, and If-Match was asked for")),
            None => Ok(()),
        }
    }

    /// True if not even the same bytes may be there.
    fn exclude_any(&self) -> bool {
        self.if_none_match.is_some()
    }
}

fn taken(key: &Key) -> S3Error {
    s3_error!(PreconditionFailed, "{key}: the key exists with other bytes; a key is written once")
}

impl Door {
    pub async fn put_object(&self, req: S3Request<PutObjectInput>) -> S3Result<S3Response<PutObjectOutput>> {
        refuse_unknown(&req.headers)?;
        let input = req.input;
        let object = names::object(&input.bucket, &input.key)?;
        let metadata = metadata_of(&req.headers)?;
        let expected = Expected::of(&req.headers, req.trailing_headers)?;
        let upload = Upload { body: input.body, expected, fault: req.extensions.get::<BodyFault>().cloned() };
        let conditions = WriteConditions { if_match: input.if_match, if_none_match: input.if_none_match };
        let receipt = match object {
            Object::Key(key) => {
                let existing = self.before_write(&input.bucket, &key).await?;
                conditions.check(existing.as_ref())?;
                self.put_key(&key, upload, existing, (&conditions, metadata)).await?
            }
            Object::Dir(dir) => {
                self.require_bucket(&input.bucket).await?;
                self.put_dir(&dir, upload).await?
            }
        };
        let verified = receipt.verified;
        Ok(S3Response::new(PutObjectOutput {
            checksum_crc32: verified.checksum_crc32,
            checksum_crc32c: verified.checksum_crc32c,
            checksum_crc64nvme: verified.checksum_crc64nvme,
            checksum_sha1: verified.checksum_sha1,
            checksum_sha256: verified.checksum_sha256,
            e_tag: Some(etag(receipt.checksum.xxh3)),
            ..PutObjectOutput::default()
        }))
    }

    /// The key that is to be written, if it exists. Errors: no such bucket; the name is a directory.
    pub async fn before_write(&self, bucket: &str, key: &Key) -> S3Result<Option<Shown>> {
        match self.stat(key.as_str()).await? {
            Stat::Key(stat) => Ok(Some(Shown { checksum: stat.checksum, mtime: stat.mtime })),
            Stat::Dir { .. } => Err(is_dir(key)),
            Stat::Absent => self.require_bucket(bucket).await.map(|_| None),
        }
    }

    async fn put_key(
        &self,
        key: &Key,
        upload: Upload,
        existing: Option<Shown>,
        (conditions, metadata): (&WriteConditions, Metadata),
    ) -> S3Result<Receipt> {
        if let Some(existing) = existing {
            if upload.expected.len().is_some_and(|len| len != existing.checksum.len) {
                return Err(taken(key));
            }
            let receipt = reader::read_only(upload).await?;
            return if receipt.checksum == existing.checksum { Ok(receipt) } else { Err(taken(key)) };
        }
        let (client, name) = (self.client().clone(), key.to_string());
        let options = PutOptions { metadata, ..PutOptions::default() };
        let put = move |body| {
            let key = key.clone();
            async move { client.put_beside(&key, body, &name, options).await }
        };
        let (put, receipt) = reader::receive(upload, put).await?;
        match (put, receipt) {
            (Ok(_), Some(receipt)) => Ok(receipt),
            (Ok(_), None) => Err(s3_error!(InternalError, "{key}: published before its end")),
            (Err(error), receipt) if error.kind() == ErrorKind::AlreadyExists => {
                let sent = receipt.as_ref().map(|receipt| receipt.checksum);
                match self.is_same(key, sent).await? && !conditions.exclude_any() {
                    true => receipt.ok_or_else(|| taken(key)),
                    false => Err(taken(key)),
                }
            }
            (Err(error), _) => Err(failure::of(&error)),
        }
    }

    /// True if `key` exists with this checksum. Error: it is a directory.
    pub async fn is_same(&self, key: &Key, checksum: Option<Checksum>) -> S3Result<bool> {
        match self.stat(key.as_str()).await? {
            Stat::Key(stat) => Ok(Some(stat.checksum) == checksum),
            Stat::Dir { .. } => Err(is_dir(key)),
            Stat::Absent => Ok(false),
        }
    }

    /// Makes a directory, from what clients call a directory marker.
    async fn put_dir(&self, dir: &Dir, upload: Upload) -> S3Result<Receipt> {
        let receipt = reader::read_only(upload).await?;
        if receipt.checksum.len > 0 {
            return Err(s3_error!(
                InvalidArgument,
                "'{dir}': a name that ends in '/' is a directory, and has no bytes"
            ));
        }
        match self.client().make_dir(dir, Change::default()).await {
            Err(error) if error.kind() == ErrorKind::AlreadyExists => match self.dir_time(dir).await? {
                Some(_) => Ok(receipt),
                None => {
                    Err(s3_error!(InvalidArgument, "'{dir}': it is a key; a name is a key or a directory, never both"))
                }
            },
            made => made.or_failure().map(|()| receipt),
        }
    }
}

fn is_dir(key: &Key) -> S3Error {
    s3_error!(InvalidArgument, "'{key}': it is a directory; a name is a key or a directory, never both")
}
