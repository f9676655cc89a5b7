//! DeleteObject and DeleteObjects. Deleting what does not exist succeeds, as the protocol has it.

use super::attributes::{Conditions, Shown};
use super::door::Door;
use super::failure;
use super::get::check_version;
use super::names::{self, Object};
use futures::StreamExt;
use hyper::StatusCode;
use s3s::dto::{
    DeleteObjectInput, DeleteObjectOutput, DeleteObjectsInput, DeleteObjectsOutput, DeletedObject, ETagCondition,
    Error, ObjectIdentifier, Timestamp,
};
use s3s::{S3ErrorCode, S3Request, S3Response, S3Result, s3_error};
use s4::error::ErrorKind;

/// The most keys of a request.
const MAX_DELETED: usize = 1000;
/// Keys that are deleted at a time.
const AT_ONCE: usize = 16;

/// The conditions of a delete.
struct Only {
    etag: Option<ETagCondition>,
    size: Option<i64>,
    time: Option<Timestamp>,
}

impl Only {
    fn is_something(&self) -> bool {
        self.etag.is_some() || self.size.is_some() || self.time.is_some()
    }

    fn check(&self, found: &Shown) -> S3Result<()> {
        Conditions { if_match: self.etag.clone(), ..Conditions::default() }.check(found)?;
        let is_other_size = self.size.is_some_and(|size| u64::try_from(size) != Ok(found.checksum.len));
        match is_other_size || self.time.as_ref().is_some_and(|time| *time != found.time()) {
            true => Err(s3_error!(PreconditionFailed, "the object has another size or time")),
            false => Ok(()),
        }
    }
}

impl Door {
    pub async fn delete_object(&self, req: S3Request<DeleteObjectInput>) -> S3Result<S3Response<DeleteObjectOutput>> {
        let input = req.input;
        self.require_bucket(&input.bucket).await?;
        let only = Only { etag: input.if_match, size: input.if_match_size, time: input.if_match_last_modified_time };
        self.delete(&input.bucket, &input.key, input.version_id.as_deref(), only).await?;
        Ok(S3Response::with_status(DeleteObjectOutput::default(), StatusCode::NO_CONTENT))
    }

    pub async fn delete_objects(
        &self,
        req: S3Request<DeleteObjectsInput>,
    ) -> S3Result<S3Response<DeleteObjectsOutput>> {
        let input = req.input;
        if input.delete.objects.len() > MAX_DELETED {
            return Err(s3_error!(MalformedXML, "a request deletes at most {MAX_DELETED} keys"));
        }
        self.require_bucket(&input.bucket).await?;
        let is_quiet = input.delete.quiet.unwrap_or(false);
        let (door, bucket) = (self, &input.bucket);
        let deletes = input.delete.objects.into_iter().map(|object| async move {
            let ObjectIdentifier { key, version_id, e_tag, size, last_modified_time: time } = object;
            let only = Only { etag: e_tag.map(ETagCondition::ETag), size, time };
            let deleted = door.delete(bucket, &key, version_id.as_deref(), only).await;
            (key, version_id, deleted)
        });
        // In the order of the request, which some clients expect.
        let mut deletes = futures::stream::iter(deletes).buffered(AT_ONCE);
        let (mut deleted, mut errors) = (Vec::new(), Vec::new());
        while let Some((key, version_id, result)) = deletes.next().await {
            match result {
                Ok(()) if is_quiet => {}
                Ok(()) => deleted.push(DeletedObject { key: Some(key), version_id, ..DeletedObject::default() }),
                Err(error) => errors.push(Error {
                    code: Some(error.code().as_str().to_owned()),
                    key: Some(key),
                    message: error.message().map(str::to_owned),
                    version_id,
                }),
            }
        }
        Ok(S3Response::new(DeleteObjectsOutput {
            deleted: Some(deleted),
            errors: Some(errors),
            ..DeleteObjectsOutput::default()
        }))
    }

    async fn delete(&self, bucket: &str, key: &str, version: Option<&str>, only: Only) -> S3Result<()> {
        check_version(version)?;
        if only.is_something() {
            match self.find(bucket, key, None).await {
                Ok(found) => only.check(&found.shown)?,
                Err(error) if *error.code() == S3ErrorCode::NoSuchKey => return Ok(()),
                Err(error) => return Err(error),
            }
        }
        let deleted = match names::existing(bucket, key) {
            None => return Ok(()),
            Some(Object::Key(key)) => self.client().delete(&key).await,
            // Only the marker is deleted, without which the directory is there as long as keys are.
            Some(Object::Dir(dir)) => self.client().release_dir(&dir).await,
        };
        match deleted {
            Err(error) if error.kind() != ErrorKind::NotFound => Err(failure::of(&error)),
            _ => Ok(()),
        }
    }
}
