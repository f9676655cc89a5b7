//! Uploads in parts. The server joins them when it is told their checksums and the whole's, and publishes them as one
//! object; until then nobody sees any of them.

use super::checksum::{Sent, crc64nvme, crc64nvme_text, md5, md5_text};
use super::failure::{Failure, Reason};
use super::object::{MAX_SHORT, NewObject, conditional, described};
use super::request::{Ask, S3};
use super::url::S3Url;
use super::xml::{self, CreatedXml, PartsXml, UploadsXml};
use bytes::Bytes;
use hyper::Method;
use hyper::header::ETAG;
use std::sync::atomic::{AtomicBool, Ordering};

/// Limit of bytes of a page of parts or uploads.
const MAX_PAGE: usize = 16 << 20;
/// Limit of parts of an object.
pub const MAX_PARTS: u64 = 10_000;

/// An upload that was begun and neither completed nor aborted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unfinished {
    pub key: String,
    pub id: String,
}

/// A part that the server has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Part {
    pub number: u32,
    /// As the server writes it.
    pub etag: String,
    pub len: u64,
}

/// A part whose bytes were sent, or found to be there.
#[derive(Debug, Clone)]
pub struct CompletedPart {
    pub part: Part,
    pub crc64nvme: u64,
    md5: [u8; 16],
}

impl CompletedPart {
    /// The part that `bytes` make. Its ETag is the one of most servers, until the server has given it one.
    pub fn new(number: u32, bytes: &[u8]) -> Self {
        let md5 = md5(bytes);
        let etag = format!("\"{}\"", md5.iter().map(|byte| format!("{byte:02x}")).collect::<String>());
        let part = Part { number, etag, len: bytes.len() as u64 };
        Self { part, crc64nvme: crc64nvme(bytes), md5 }
    }

    /// What the parts are together.
    pub fn sum(parts: &[Self]) -> Sent {
        Sent::in_parts(parts.iter().map(|part| (part.part.len, part.crc64nvme, part.md5)))
    }
}

impl S3 {
    /// Begins an upload, and returns its id.
    pub async fn create_upload(&self, url: &S3Url, new: &NewObject) -> Result<String, Failure> {
        let ask = Ask {
            method: Method::POST,
            bucket: &url.bucket,
            key: &url.key,
            query: vec![("uploads", "")],
            ..Ask::default()
        };
        let ask = described(ask, new)?
            .with("x-amz-checksum-algorithm", "CRC64NVME")?
            .with("x-amz-checksum-type", "FULL_OBJECT")?;
        // An upload whose id was lost with the answer must not be left behind: it is the one without parts.
        let lost = AtomicBool::new(false);
        self.retrying(|| async {
            if lost.load(Ordering::Relaxed)
                && let Some(id) = self.empty_upload(url).await?
            {
                return Ok(id);
            }
            let created = self.create_once(&ask).await;
            let is_lost = created.as_ref().is_err_and(|failure| failure.reason == Reason::Broken);
            lost.fetch_or(is_lost, Ordering::Relaxed);
            created
        })
        .await
    }

    async fn create_once(&self, ask: &Ask<'_>) -> Result<String, Failure> {
        let text = self.send(ask).await?.body.read(MAX_SHORT).await?;
        let created: CreatedXml = xml::parse(&text)?;
        match created.upload_id.is_empty() {
            true => Err(Failure::new(Reason::Other, "the server begins no upload")),
            false => Ok(created.upload_id),
        }
    }

    /// An upload of this object that has no parts.
    async fn empty_upload(&self, url: &S3Url) -> Result<Option<String>, Failure> {
        for upload in self.unfinished(url, MAX_PARTS as usize).await? {
            if upload.key == url.key && self.parts(url, &upload.id).await?.is_empty() {
                return Ok(Some(upload.id));
            }
        }
        Ok(None)
    }

    /// Sends a part. The server refuses bytes that do not match the checksums beside them.
    pub async fn put_part(&self, url: &S3Url, id: &str, number: u32, bytes: Bytes) -> Result<CompletedPart, Failure> {
        let text = number.to_string();
        let query = vec![("partNumber", &*text), ("uploadId", id)];
        let mut part = CompletedPart::new(number, &bytes);
        let md5 = md5_text(part.md5);
        let ask = Ask { method: Method::PUT, bucket: &url.bucket, key: &url.key, query, body: bytes, ..Ask::default() };
        let ask = ask.with("x-amz-checksum-crc64nvme", &crc64nvme_text(part.crc64nvme))?.with("content-md5", &md5)?;
        let (headers, _) = self.ask(&ask, MAX_SHORT).await?;
        let etag = headers.get(ETAG).and_then(|etag| etag.to_str().ok());
        part.part.etag = etag.ok_or_else(|| Failure::new(Reason::Other, "the server gave a part no ETag"))?.to_owned();
        Ok(part)
    }

    /// Publishes the object that the parts are, in their order. An answer that was lost is found out by asking again: then
    /// the upload is gone and the object is there, which the caller must look at.
    pub async fn complete_upload(
        &self,
        url: &S3Url,
        id: &str,
        parts: &[CompletedPart],
        overwrite: bool,
    ) -> Result<(), Failure> {
        let mut body = String::from(r#"<CompleteMultipartUpload xmlns="http://s3.amazonaws.com/doc/2006-03-01/">"#);
        let sum = CompletedPart::sum(parts);
        for CompletedPart { part, crc64nvme, .. } in parts {
            body += &format!(
                "<Part><PartNumber>{}</PartNumber><ETag>{}</ETag><ChecksumCRC64NVME>{}</ChecksumCRC64NVME></Part>",
                part.number,
                xml::escaped(&part.etag),
                crc64nvme_text(*crc64nvme)
            );
        }
        body += "</CompleteMultipartUpload>";
        let query = vec![("uploadId", id)];
        let ask = Ask {
            method: Method::POST,
            bucket: &url.bucket,
            key: &url.key,
            query,
            body: body.into(),
            ..Ask::default()
        };
        let ask = ask
            .with("x-amz-checksum-crc64nvme", &crc64nvme_text(sum.crc64nvme))?
            .with("x-amz-checksum-type", "FULL_OBJECT")?
            .with("x-amz-mp-object-size", &sum.len.to_string())?;
        let ask = conditional(ask, overwrite)?;
        self.retrying(|| async {
            let text = self.send(&ask).await?.body.read(MAX_SHORT).await?;
            // The head of this answer is sent before the outcome is known.
            match xml::error(&text) {
                Some(error) => Err(Failure::of_answer(500, &error.code, &error.message)),
                None => Ok(()),
            }
        })
        .await
    }

    /// Aborts an upload; one that is gone already is no failure.
    pub async fn abort_upload(&self, url: &S3Url, id: &str) -> Result<(), Failure> {
        let query = vec![("uploadId", id)];
        let ask = Ask { method: Method::DELETE, bucket: &url.bucket, key: &url.key, query, ..Ask::default() };
        match self.ask(&ask, MAX_SHORT).await {
            Err(failure) if failure.reason != Reason::NotFound => Err(failure),
            _ => Ok(()),
        }
    }

    /// The uploads under way whose keys begin with `url.key`, at most `most` of them.
    pub async fn unfinished(&self, url: &S3Url, most: usize) -> Result<Vec<Unfinished>, Failure> {
        let (mut found, mut marker): (Vec<Unfinished>, Option<(String, String)>) = (Vec::new(), None);
        loop {
            let mut query = vec![("uploads", ""), ("encoding-type", "url")];
            if !url.key.is_empty() {
                query.push(("prefix", &url.key));
            }
            if let Some((key, id)) = &marker {
                query.extend([("key-marker", &**key), ("upload-id-marker", &**id)]);
            }
            let ask = Ask { method: Method::GET, bucket: &url.bucket, query, ..Ask::default() };
            let (_, text) = self.ask(&ask, MAX_PAGE).await?;
            let page: UploadsXml = xml::parse(&text)?;
            let encoding = page.encoding_type.as_deref();
            for upload in page.upload {
                found.push(Unfinished { key: xml::decoded(&upload.key, encoding)?, id: upload.upload_id });
            }
            let next = page.next_key_marker.zip(page.next_upload_id_marker).filter(|_| page.is_truncated);
            let next = next.map(|(key, id)| Ok((xml::decoded(&key, encoding)?, id))).transpose()?;
            if next.is_none() || next == marker || found.len() >= most {
                return Ok(found);
            }
            marker = next;
        }
    }

    /// The parts that an upload has so far, in their order.
    pub async fn parts(&self, url: &S3Url, id: &str) -> Result<Vec<Part>, Failure> {
        let (mut found, mut marker): (Vec<Part>, Option<String>) = (Vec::new(), None);
        loop {
            let mut query = vec![("uploadId", id)];
            query.extend(marker.as_deref().map(|marker| ("part-number-marker", marker)));
            let ask = Ask { method: Method::GET, bucket: &url.bucket, key: &url.key, query, ..Ask::default() };
            let (_, text) = self.ask(&ask, MAX_PAGE).await?;
            let page: PartsXml = xml::parse(&text)?;
            let parts = page.part.into_iter().filter(|part| part.part_number > 0);
            found.extend(parts.map(|part| Part { number: part.part_number, etag: part.etag, len: part.size }));
            let next = page.next_part_number_marker.filter(|_| page.is_truncated);
            if next.is_none() || next == marker || found.len() as u64 >= MAX_PARTS {
                return Ok(found);
            }
            marker = next;
        }
    }
}
