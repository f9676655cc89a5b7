//! CopyObject and UploadPartCopy: the bytes pass through the door, verified on both ways.
//!
//! s3s refuses sources in buckets with names that Amazon does not allow (`in` is too short), so copies come by a route
//! of their own: s3s verifies the signature, and the headers are parsed here.

use super::attributes::{Conditions, Shown};
use super::door::Door;
use super::failure::{self, OrFailure};
use super::get::Found;
use super::names::{self, Object};
use super::put::{metadata_of, refuse_unknown};
use bytes::{Buf, Bytes};
use hyper::header::{CONTENT_TYPE, HeaderMap, HeaderValue};
use hyper::http::Extensions;
use hyper::{Method, Uri};
use percent_encoding::percent_decode_str;
use s3s::dto::{CopyObjectResult, ETagCondition, Timestamp, TimestampFormat};
use s3s::route::S3Route;
use s3s::xml::{self, Serialize};
use s3s::{Body, S3Error, S3Request, S3Response, S3Result, s3_error};
use s4::client::{PutOptions, Span};
use s4::error::ErrorKind;
use s4::key::Key;
use s4::protocol::Metadata;
use std::io::Read;
use std::str::FromStr;

/// The header that makes a put a copy.
const SOURCE: &str = "x-amz-copy-source";
/// Bytes that are read of the source at a time.
const PIECE: usize = 128 * 1024;

/// The route of copies.
pub struct Copies(pub Door);

#[async_trait::async_trait]
impl S3Route for Copies {
    fn is_match(&self, method: &Method, _: &Uri, headers: &HeaderMap, _: &mut Extensions) -> bool {
        method == Method::PUT && headers.contains_key(SOURCE)
    }

    async fn call(&self, req: S3Request<Body>) -> S3Result<S3Response<Body>> {
        let (bucket, key) = split(req.uri.path())?;
        let field = |name: &str| {
            let fields = req.uri.query().unwrap_or_default().split('&').filter_map(|field| field.split_once('='));
            fields.into_iter().find(|(other, _)| *other == name).map(|(_, value)| value)
        };
        let xml = match (field("uploadId"), field("partNumber").map(str::parse::<i32>)) {
            (None, _) => written(&self.0.copy_object(&bucket, &key, &req.headers).await?)?,
            (Some(id), Some(Ok(part))) => written(&self.0.copy_part((&bucket, &key), (id, part), &req.headers).await?)?,
            (Some(_), _) => return Err(s3_error!(InvalidArgument, "a part has a number")),
        };
        let mut response = S3Response::new(Body::from(xml));
        response.headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/xml"));
        Ok(response)
    }
}

/// A result as XML.
fn written(result: &impl Serialize) -> S3Result<Vec<u8>> {
    let mut xml = Vec::new();
    let mut serializer = xml::Serializer::new(&mut xml);
    let written = serializer.decl().and_then(|()| result.serialize(&mut serializer));
    written.map(|()| xml).map_err(S3Error::internal_error)
}

/// The text of a header.
pub fn text<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    headers.get(name)?.to_str().ok()
}

/// A header of conditions, parsed.
fn condition<T, E>(headers: &HeaderMap, name: &str, parse: impl Fn(&str) -> Result<T, E>) -> S3Result<Option<T>> {
    let refused = |_| s3_error!(InvalidArgument, "the header {name} is malformed");
    text(headers, name).map(|text| parse(text).map_err(refused)).transpose()
}

fn decoded(text: &str) -> S3Result<String> {
    let decoded = percent_decode_str(text).decode_utf8();
    decoded.map(Into::into).map_err(|_| s3_error!(InvalidArgument, "a name is not UTF-8"))
}

/// Bucket and key of a path, decoded.
fn split(path: &str) -> S3Result<(String, String)> {
    let path = decoded(path)?;
    let path = path.strip_prefix('/').unwrap_or(&path);
    let refused = || s3_error!(InvalidArgument, "a copy needs a bucket and a key");
    path.split_once('/').map(|(bucket, key)| (bucket.to_owned(), key.to_owned())).ok_or_else(refused)
}

impl Door {
    async fn copy_object(&self, bucket: &str, key: &str, headers: &HeaderMap) -> S3Result<CopyObjectResult> {
        refuse_unknown(headers)?;
        let Object::Key(to) = names::object(bucket, key)? else {
            return Err(s3_error!(NotImplemented, "a copy makes a key, not a directory"));
        };
        let (from, source) = self.copy_source(headers).await?;
        let replaces = text(headers, "x-amz-metadata-directive") == Some("REPLACE");
        if from == to {
            return Err(match replaces {
                true => s3_error!(PreconditionFailed, "{to}: a key is written once, its metadata too"),
                false => s3_error!(InvalidRequest, "{to}: a copy to itself changes nothing"),
            });
        }
        let metadata = if replaces { metadata_of(headers)? } else { source.metadata };
        let (source, existing) = (source.shown, self.before_write(bucket, &to).await?);
        let made = match existing {
            Some(existing) if existing.checksum == source.checksum => existing,
            Some(_) => return Err(s3_error!(PreconditionFailed, "{to}: the key exists with other bytes")),
            None => self.copy_key(&from, source, &to, metadata).await?,
        };
        Ok(CopyObjectResult {
            e_tag: Some(made.etag()),
            last_modified: Some(made.time()),
            ..CopyObjectResult::default()
        })
    }

    /// The key that a request copies from. Errors: the conditions on it do not hold.
    pub async fn copy_source(&self, headers: &HeaderMap) -> S3Result<(Key, Found)> {
        let source = text(headers, SOURCE).unwrap_or_default();
        let (path, version) = match source.split_once("?versionId=") {
            Some((path, version)) => (path, Some(decoded(version)?)),
            None => (source, None),
        };
        let (bucket, key) = split(path)?;
        let found = self.find(&bucket, &key, version.as_deref()).await?;
        let date = |text: &str| Timestamp::parse(TimestampFormat::HttpDate, text);
        let conditions = Conditions {
            if_match: condition(headers, "x-amz-copy-source-if-match", ETagCondition::from_str)?,
            if_none_match: condition(headers, "x-amz-copy-source-if-none-match", ETagCondition::from_str)?,
            if_modified_since: condition(headers, "x-amz-copy-source-if-modified-since", date)?,
            if_unmodified_since: condition(headers, "x-amz-copy-source-if-unmodified-since", date)?,
        };
        conditions.check_source(&found.shown)?;
        match found.key.clone() {
            Some(key) => Ok((key, found)),
            None => Err(s3_error!(NotImplemented, "a directory is not copied; its keys are")),
        }
    }

    async fn copy_key(&self, from: &Key, source: Shown, to: &Key, metadata: Metadata) -> S3Result<Shown> {
        let span = self.client().get_span(from, source.checksum, 0..source.checksum.len).await.or_failure()?;
        let options = PutOptions { metadata, ..PutOptions::default() };
        let put = self.client().put_beside(to, SpanReader::new(span), &from.to_string(), options).await;
        match put {
            Err(error) if error.kind() == ErrorKind::AlreadyExists => {
                if !self.is_same(to, Some(source.checksum)).await? {
                    return Err(failure::of(&error));
                }
            }
            put => drop(put.or_failure()?),
        }
        self.key_stat(to).await?.ok_or_else(|| names::no_such_key(to.parent(), to.basename()))
    }
}

/// Reads a span of a key. Blocks.
pub struct SpanReader {
    span: Span,
    current: Bytes,
}

impl SpanReader {
    pub fn new(span: Span) -> Self {
        Self { span, current: Bytes::new() }
    }
}

impl Read for SpanReader {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        if self.current.is_empty() {
            self.current = self.span.next_block(PIECE).map_err(std::io::Error::other)?.unwrap_or_default();
        }
        let n = self.current.len().min(buffer.len());
        self.current.copy_to_slice(&mut buffer[..n]);
        Ok(n)
    }
}
