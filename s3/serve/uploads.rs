//! Uploads in parts: the parts lie on the node of the key, which joins them.

use super::attributes::{etag, time, xxh3_of};
use super::buckets::owner;
use super::copy::{SpanReader, text};
use super::door::Door;
use super::edge::BodyFault;
use super::failure::{self, OrFailure};
use super::names::{self, Object};
use super::put::{WriteConditions, metadata_of, refuse_unknown};
use super::reader::{self, Expected, Upload};
use hyper::HeaderMap;
use hyper::StatusCode;
use s3s::dto::*;
use s3s::{S3Error, S3Request, S3Response, S3Result, s3_error};
use s4::error::{Error, ErrorKind};
use s4::key::{Key, Prefix as NamePrefix};
use s4::protocol::{Change, CompletedPart as Completed, PartNumber as Number, UploadId, UploadPart};
use std::ops::Range as Span;

/// The most uploads or parts of an answer.
const MAX_LISTED: usize = 1000;

/// The key and the id of an upload that a request names.
fn named(bucket: &str, key: &str, id: &str) -> S3Result<(Key, UploadId)> {
    let absent = || no_such_upload(id);
    match (names::existing(bucket, key), UploadId::try_from(id.to_owned())) {
        (Some(Object::Key(key)), Ok(id)) => Ok((key, id)),
        _ => Err(absent()),
    }
}

fn no_such_upload(id: &str) -> S3Error {
    s3_error!(NoSuchUpload, "{}: no such upload; it was completed or aborted, or never begun", id.escape_debug())
}

fn number(number: i32) -> S3Result<Number> {
    let number = u32::try_from(number).ok().and_then(|number| Number::try_from(number).ok());
    number.ok_or_else(|| s3_error!(InvalidArgument, "a part's number is from 1 to 10000"))
}

/// The bytes of a source of `len` bytes that a part is copied from. A part is never shorter than what was asked for.
fn copied_range(range: &str, len: u64) -> S3Result<Span<u64>> {
    match Range::parse(range) {
        Ok(Range::Int { first, last: Some(last) }) if last < len => Ok(first..last + 1),
        Ok(Range::Int { last: Some(_), .. }) => Err(s3_error!(InvalidRange, "the source has {len} bytes")),
        _ => Err(s3_error!(InvalidArgument, "a range to copy is bytes=FIRST-LAST")),
    }
}

/// The error of S3 for an error of a request about an upload.
fn refusal(error: &Error, id: &str) -> S3Error {
    match error.kind() {
        ErrorKind::NotFound => no_such_upload(id),
        ErrorKind::BadRequest => s3_error!(InvalidPart, "{error}"),
        _ => failure::of(error),
    }
}

impl Door {
    pub async fn create_multipart_upload(
        &self,
        req: S3Request<CreateMultipartUploadInput>,
    ) -> S3Result<S3Response<CreateMultipartUploadOutput>> {
        refuse_unknown(&req.headers)?;
        let input = req.input;
        let Object::Key(key) = names::object(&input.bucket, &input.key)? else {
            return Err(s3_error!(InvalidArgument, "a directory has no parts"));
        };
        self.before_write(&input.bucket, &key).await?;
        let id = self.client().create_upload(&key, &metadata_of(&req.headers)?).await.or_failure()?;
        Ok(S3Response::new(CreateMultipartUploadOutput {
            bucket: Some(input.bucket),
            key: Some(input.key),
            upload_id: Some(id.to_string()),
            checksum_algorithm: input.checksum_algorithm,
            checksum_type: input.checksum_type,
            ..CreateMultipartUploadOutput::default()
        }))
    }

    pub async fn upload_part(&self, req: S3Request<UploadPartInput>) -> S3Result<S3Response<UploadPartOutput>> {
        refuse_unknown(&req.headers)?;
        let input = req.input;
        let (key, id) = named(&input.bucket, &input.key, &input.upload_id)?;
        let part = UploadPart { upload: id, number: number(input.part_number)? };
        let expected = Expected::of(&req.headers, req.trailing_headers)?;
        let upload = Upload { body: input.body, expected, fault: req.extensions.get::<BodyFault>().cloned() };
        let (client, name) = (self.client().clone(), key.to_string());
        let put = move |body| async move { client.put_part(&key, part, body, &name).await };
        let (put, receipt) = reader::receive(upload, put).await?;
        let made = put.map_err(|error| refusal(&error, &input.upload_id))?;
        let verified = receipt.map(|receipt| receipt.verified).unwrap_or_default();
        Ok(S3Response::new(UploadPartOutput {
            checksum_crc32: verified.checksum_crc32,
            checksum_crc32c: verified.checksum_crc32c,
            checksum_crc64nvme: verified.checksum_crc64nvme,
            checksum_sha1: verified.checksum_sha1,
            checksum_sha256: verified.checksum_sha256,
            e_tag: Some(etag(made.xxh3)),
            ..UploadPartOutput::default()
        }))
    }

    /// A part whose bytes are those of a key, or of a range of it.
    pub async fn copy_part(
        &self,
        (bucket, key): (&str, &str),
        (id, part): (&str, i32),
        headers: &HeaderMap,
    ) -> S3Result<CopyPartResult> {
        let (key, upload) = named(bucket, key, id)?;
        let (from, source) = self.copy_source(headers).await?;
        let checksum = source.shown.checksum;
        let range: Span<u64> = match text(headers, "x-amz-copy-source-range") {
            None => 0..checksum.len,
            Some(range) => copied_range(range, checksum.len)?,
        };
        let span = self.client().get_span(&from, checksum, range).await.or_failure()?;
        let part = UploadPart { upload, number: number(part)? };
        let put = self.client().put_part(&key, part, SpanReader::new(span), &from.to_string()).await;
        let made = put.map_err(|error| refusal(&error, id))?;
        Ok(CopyPartResult {
            e_tag: Some(etag(made.xxh3)),
            last_modified: Some(source.shown.time()),
            ..CopyPartResult::default()
        })
    }

    pub async fn complete_multipart_upload(
        &self,
        req: S3Request<CompleteMultipartUploadInput>,
    ) -> S3Result<S3Response<CompleteMultipartUploadOutput>> {
        let input = req.input;
        let (key, id) = named(&input.bucket, &input.key, &input.upload_id)?;
        let listed = input.multipart_upload.and_then(|upload| upload.parts).unwrap_or_default();
        if listed.is_empty() {
            return Err(s3_error!(MalformedXML, "an upload has at least one part"));
        }
        let mut parts: Vec<Completed> = Vec::with_capacity(listed.len());
        for part in listed {
            let number = number(part.part_number.unwrap_or(0))?;
            if parts.last().is_some_and(|last| last.number >= number) {
                return Err(s3_error!(InvalidPartOrder, "the parts are not in the order of their numbers"));
            }
            let xxh3 = part.e_tag.as_ref().and_then(xxh3_of);
            let xxh3 = xxh3.ok_or_else(|| s3_error!(InvalidPart, "part {number}: no part has this ETag"))?;
            parts.push(Completed { number, xxh3 });
        }
        if input.if_match.is_some() || input.if_none_match.is_some() {
            let existing = self.before_write(&input.bucket, &key).await?;
            WriteConditions { if_match: input.if_match, if_none_match: input.if_none_match }
                .check(existing.as_ref())?;
        }
        let made = self.client().complete_upload(&key, &id, &parts, Change::default()).await;
        let made = made.map_err(|error| refusal(&error, &input.upload_id))?;
        Ok(S3Response::new(CompleteMultipartUploadOutput {
            location: Some(format!("/{}/{}", input.bucket, input.key)),
            bucket: Some(input.bucket),
            key: Some(input.key),
            e_tag: Some(etag(made.xxh3)),
            ..CompleteMultipartUploadOutput::default()
        }))
    }

    pub async fn abort_multipart_upload(
        &self,
        req: S3Request<AbortMultipartUploadInput>,
    ) -> S3Result<S3Response<AbortMultipartUploadOutput>> {
        let input = req.input;
        let (key, id) = named(&input.bucket, &input.key, &input.upload_id)?;
        self.client().abort_upload(&key, &id).await.map_err(|error| refusal(&error, &input.upload_id))?;
        Ok(S3Response::with_status(AbortMultipartUploadOutput::default(), StatusCode::NO_CONTENT))
    }

    pub async fn list_parts(&self, req: S3Request<ListPartsInput>) -> S3Result<S3Response<ListPartsOutput>> {
        let input = req.input;
        let (key, id) = named(&input.bucket, &input.key, &input.upload_id)?;
        let after = input.part_number_marker.map_or(0, |after| u32::try_from(after).unwrap_or(0));
        let listed = self.client().list_parts(&key, &id, after).await;
        let mut listed = listed.map_err(|error| refusal(&error, &input.upload_id))?;
        let most = input.max_parts.map_or(MAX_LISTED, |most| MAX_LISTED.min(usize::try_from(most).unwrap_or(0)));
        let is_truncated = listed.more || listed.parts.len() > most;
        listed.parts.truncate(most);
        let parts: Vec<Part> = listed
            .parts
            .iter()
            .map(|part| Part {
                e_tag: Some(etag(part.checksum.xxh3)),
                last_modified: Some(time(part.mtime)),
                part_number: Some(part.number.get() as i32),
                size: Some(part.checksum.len as i64),
                ..Part::default()
            })
            .collect();
        Ok(S3Response::new(ListPartsOutput {
            bucket: Some(input.bucket),
            is_truncated: Some(is_truncated),
            key: Some(input.key),
            max_parts: Some(most as i32),
            next_part_number_marker: parts.last().filter(|_| is_truncated).and_then(|last| last.part_number),
            owner: Some(owner()),
            part_number_marker: input.part_number_marker,
            parts: Some(parts),
            storage_class: Some("STANDARD".to_owned().into()),
            upload_id: Some(input.upload_id),
            ..ListPartsOutput::default()
        }))
    }

    pub async fn list_multipart_uploads(
        &self,
        req: S3Request<ListMultipartUploadsInput>,
    ) -> S3Result<S3Response<ListMultipartUploadsOutput>> {
        let input = req.input;
        self.require_bucket(&input.bucket).await?;
        if input.delimiter.as_ref().is_some_and(|delimiter| !delimiter.is_empty()) {
            return Err(s3_error!(NotImplemented, "uploads are listed without a delimiter"));
        }
        let most = input.max_uploads.map_or(MAX_LISTED, |most| MAX_LISTED.min(usize::try_from(most).unwrap_or(0)));
        let prefix = NamePrefix::parse(&format!("{}/{}", input.bucket, input.prefix.clone().unwrap_or_default()));
        let key_marker = input.key_marker.clone().filter(|marker| !marker.is_empty());
        let mut after = key_marker.map(|marker| {
            // Without an id, all uploads of the key are skipped: every id is before this one.
            let id = input.upload_id_marker.clone().filter(|id| !id.is_empty()).unwrap_or("g".to_owned());
            (format!("{}/{marker}", input.bucket), id)
        });
        let (mut uploads, mut is_truncated) = (Vec::new(), false);
        while let Ok(prefix) = &prefix {
            let from = after.as_ref().map(|(key, id)| (key.as_str(), id.as_str()));
            let page = self.client().list_uploads(prefix, from).await.or_failure()?;
            after = page.uploads.last().map(|last| (last.key.as_str().to_owned(), last.id.to_string()));
            uploads.extend(page.uploads);
            is_truncated = page.more || uploads.len() > most;
            if !page.more || uploads.len() >= most {
                break;
            }
        }
        uploads.truncate(most);
        let uploads: Vec<MultipartUpload> = uploads
            .into_iter()
            .map(|upload| MultipartUpload {
                initiated: Some(time(upload.created.saturating_mul(1_000_000))),
                key: upload.key.as_str().strip_prefix(&format!("{}/", input.bucket)).map(str::to_owned),
                owner: Some(owner()),
                storage_class: Some("STANDARD".to_owned().into()),
                upload_id: Some(upload.id.to_string()),
                ..MultipartUpload::default()
            })
            .collect();
        let last = uploads.last().filter(|_| is_truncated);
        Ok(S3Response::new(ListMultipartUploadsOutput {
            bucket: Some(input.bucket),
            is_truncated: Some(is_truncated),
            key_marker: input.key_marker,
            max_uploads: Some(most as i32),
            next_key_marker: last.and_then(|last| last.key.clone()),
            next_upload_id_marker: last.and_then(|last| last.upload_id.clone()),
            prefix: input.prefix,
            upload_id_marker: input.upload_id_marker,
            uploads: Some(uploads),
            ..ListMultipartUploadsOutput::default()
        }))
    }
}
