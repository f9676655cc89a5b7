//! The door: a method for each request of S3 that s4 can answer. What is not here, s3s answers with 501 NotImplemented.

use super::attributes::Shown;
use super::failure::OrFailure;
use super::names;
use super::pages::Pages;
use s3s::dto::*;
use s3s::{S3, S3Request, S3Response, S3Result};
use s4::client::Client;
use s4::key::{Dir, Key};
use s4::protocol::Stat;

/// Clones share their open listings.
#[derive(Clone)]
pub struct Door {
    client: Client,
    pub(super) pages: Pages,
}

impl Door {
    pub fn new(client: Client) -> Self {
        Self { client, pages: Pages::default() }
    }

    pub fn client(&self) -> &Client {
        &self.client
    }

    /// What `path` stands for.
    pub async fn stat(&self, path: &str) -> S3Result<Stat> {
        self.client.resolve(&Dir::try_from(path.to_owned()).or_failure()?).await.or_failure()
    }

    /// What S3 shows of a key; `None` if there is none.
    pub async fn key_stat(&self, key: &Key) -> S3Result<Option<Shown>> {
        Ok(match self.stat(key.as_str()).await? {
            Stat::Key(stat) => Some(Shown { checksum: stat.checksum, mtime: stat.mtime }),
            Stat::Dir { .. } | Stat::Absent => None,
        })
    }

    /// The time of a directory; `None` if there is none.
    pub async fn dir_time(&self, dir: &Dir) -> S3Result<Option<i64>> {
        Ok(match self.stat(dir.as_str()).await? {
            Stat::Dir { mtime, .. } => Some(mtime),
            Stat::Key(_) | Stat::Absent => None,
        })
    }

    /// Error: there is no such bucket.
    pub async fn require_bucket(&self, bucket: &str) -> S3Result<Dir> {
        let absent = || names::no_such_bucket(bucket);
        let dir = names::bucket(bucket).map_err(|_| absent())?;
        self.dir_time(&dir).await?.map(|_| dir).ok_or_else(absent)
    }
}

#[async_trait::async_trait]
impl S3 for Door {
    async fn list_buckets(&self, req: S3Request<ListBucketsInput>) -> S3Result<S3Response<ListBucketsOutput>> {
        self.list_buckets(req).await
    }

    async fn create_bucket(&self, req: S3Request<CreateBucketInput>) -> S3Result<S3Response<CreateBucketOutput>> {
        self.create_bucket(req).await
    }

    async fn head_bucket(&self, req: S3Request<HeadBucketInput>) -> S3Result<S3Response<HeadBucketOutput>> {
        self.head_bucket(req).await
    }

    async fn delete_bucket(&self, req: S3Request<DeleteBucketInput>) -> S3Result<S3Response<DeleteBucketOutput>> {
        self.delete_bucket(req).await
    }

    async fn get_bucket_location(
        &self,
        req: S3Request<GetBucketLocationInput>,
    ) -> S3Result<S3Response<GetBucketLocationOutput>> {
        self.require_bucket(&req.input.bucket).await?;
        Ok(S3Response::new(GetBucketLocationOutput::default()))
    }

    async fn get_bucket_versioning(
        &self,
        req: S3Request<GetBucketVersioningInput>,
    ) -> S3Result<S3Response<GetBucketVersioningOutput>> {
        self.require_bucket(&req.input.bucket).await?;
        Ok(S3Response::new(GetBucketVersioningOutput::default()))
    }

    async fn list_objects(&self, req: S3Request<ListObjectsInput>) -> S3Result<S3Response<ListObjectsOutput>> {
        self.list_objects(req).await
    }

    async fn list_objects_v2(&self, req: S3Request<ListObjectsV2Input>) -> S3Result<S3Response<ListObjectsV2Output>> {
        self.list_objects_v2(req).await
    }

    async fn list_object_versions(
        &self,
        req: S3Request<ListObjectVersionsInput>,
    ) -> S3Result<S3Response<ListObjectVersionsOutput>> {
        self.list_object_versions(req).await
    }

    async fn get_object(&self, req: S3Request<GetObjectInput>) -> S3Result<S3Response<GetObjectOutput>> {
        self.get_object(req).await
    }

    async fn head_object(&self, req: S3Request<HeadObjectInput>) -> S3Result<S3Response<HeadObjectOutput>> {
        self.head_object(req).await
    }

    async fn get_object_attributes(
        &self,
        req: S3Request<GetObjectAttributesInput>,
    ) -> S3Result<S3Response<GetObjectAttributesOutput>> {
        self.get_object_attributes(req).await
    }

    async fn put_object(&self, req: S3Request<PutObjectInput>) -> S3Result<S3Response<PutObjectOutput>> {
        self.put_object(req).await
    }

    async fn create_multipart_upload(
        &self,
        req: S3Request<CreateMultipartUploadInput>,
    ) -> S3Result<S3Response<CreateMultipartUploadOutput>> {
        self.create_multipart_upload(req).await
    }

    async fn upload_part(&self, req: S3Request<UploadPartInput>) -> S3Result<S3Response<UploadPartOutput>> {
        self.upload_part(req).await
    }

    async fn complete_multipart_upload(
        &self,
        req: S3Request<CompleteMultipartUploadInput>,
    ) -> S3Result<S3Response<CompleteMultipartUploadOutput>> {
        self.complete_multipart_upload(req).await
    }

    async fn abort_multipart_upload(
        &self,
        req: S3Request<AbortMultipartUploadInput>,
    ) -> S3Result<S3Response<AbortMultipartUploadOutput>> {
        self.abort_multipart_upload(req).await
    }

    async fn list_parts(&self, req: S3Request<ListPartsInput>) -> S3Result<S3Response<ListPartsOutput>> {
        self.list_parts(req).await
    }

    async fn list_multipart_uploads(
        &self,
        req: S3Request<ListMultipartUploadsInput>,
    ) -> S3Result<S3Response<ListMultipartUploadsOutput>> {
        self.list_multipart_uploads(req).await
    }

    async fn delete_object(&self, req: S3Request<DeleteObjectInput>) -> S3Result<S3Response<DeleteObjectOutput>> {
        self.delete_object(req).await
    }

    async fn delete_objects(&self, req: S3Request<DeleteObjectsInput>) -> S3Result<S3Response<DeleteObjectsOutput>> {
        self.delete_objects(req).await
    }
}
