//! Buckets: directories in the root of the cluster.

use super::attributes::time;
use super::door::Door;
use super::failure::{self, OrFailure};
use super::names;
use s3s::dto::{
    Bucket, CreateBucketInput, CreateBucketOutput, DeleteBucketInput, DeleteBucketOutput, HeadBucketInput,
    HeadBucketOutput, ListBucketsInput, ListBucketsOutput, Owner,
};
use s3s::{S3Request, S3Response, S3Result, s3_error};
use s4::error::ErrorKind;
use s4::key::Dir;
use s4::protocol::{Change, Entry};

/// The region that is shown. Signatures of every region are accepted.
const REGION: &str = "us-east-1";
/// Directories without keys that the removal of a bucket removes.
const MAX_DIRS: usize = 10_000;

pub fn owner() -> Owner {
    Owner { display_name: Some("s4".to_owned()), id: Some("s4".to_owned()) }
}

impl Door {
    pub async fn list_buckets(&self, req: S3Request<ListBucketsInput>) -> S3Result<S3Response<ListBucketsOutput>> {
        let prefix = req.input.prefix.unwrap_or_default();
        let after = req.input.continuation_token.unwrap_or_default();
        let most = req.input.max_buckets.map_or(usize::MAX, |most| most.max(1) as usize);
        let mut listing = self.client().list_dir("").await.or_failure()?;
        let (mut buckets, mut next) = (Vec::new(), None);
        while let Some(entry) = listing.next().await.or_failure()? {
            let Entry::Dir { path, stat } = entry else { continue };
            let name = path.trim_end_matches('/');
            if !name.starts_with(&prefix) || name <= after.as_str() {
                continue;
            }
            if buckets.len() == most {
                next = buckets.last().and_then(|last: &Bucket| last.name.clone());
                break;
            }
            buckets.push(Bucket {
                creation_date: Some(time(stat.map_or(0, |(mtime, _)| mtime))),
                name: Some(name.to_owned()),
                ..Bucket::default()
            });
        }
        Ok(S3Response::new(ListBucketsOutput {
            buckets: Some(buckets),
            continuation_token: next,
            owner: Some(owner()),
            prefix: Some(prefix).filter(|prefix| !prefix.is_empty()),
        }))
    }

    /// Creating a bucket that exists succeeds: it is the caller's, as everything is.
    pub async fn create_bucket(&self, req: S3Request<CreateBucketInput>) -> S3Result<S3Response<CreateBucketOutput>> {
        let input = req.input;
        if input.object_lock_enabled_for_bucket == Some(true) {
            return Err(s3_error!(NotImplemented, "objects cannot be locked"));
        }
        let dir = names::bucket(&input.bucket)?;
        match self.client().make_dir(&dir, Change::default()).await {
            Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
            made => made.or_failure()?,
        }
        Ok(S3Response::new(CreateBucketOutput { location: Some(format!("/{}", input.bucket)) }))
    }

    pub async fn head_bucket(&self, req: S3Request<HeadBucketInput>) -> S3Result<S3Response<HeadBucketOutput>> {
        self.require_bucket(&req.input.bucket).await?;
        Ok(S3Response::new(HeadBucketOutput { bucket_region: Some(REGION.to_owned()), ..HeadBucketOutput::default() }))
    }

    /// A bucket without keys is empty for S3, so its directories are removed with it.
    pub async fn delete_bucket(&self, req: S3Request<DeleteBucketInput>) -> S3Result<S3Response<DeleteBucketOutput>> {
        let dir = self.require_bucket(&req.input.bucket).await?;
        let mut removed = self.client().remove_dir(&dir).await;
        if removed.as_ref().is_err_and(|error| error.kind() == ErrorKind::NotEmpty) {
            self.remove_empty_dirs(&dir).await?;
            removed = self.client().remove_dir(&dir).await;
        }
        match removed {
            // It vanished with its last directory.
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            removed => removed.or_failure()?,
        }
        Ok(S3Response::with_status(DeleteBucketOutput {}, hyper::StatusCode::NO_CONTENT))
    }

    /// Removes the directories in `bucket`, which has no key. Error: it has one.
    async fn remove_empty_dirs(&self, bucket: &Dir) -> S3Result<()> {
        let mut dirs = vec![bucket.as_str().to_owned()];
        let mut at = 0;
        while at < dirs.len() {
            let mut listing = self.client().list_dir(&dirs[at]).await.or_failure()?;
            while let Some(entry) = listing.next().await.or_failure()? {
                match entry {
                    Entry::Dir { path, .. } if dirs.len() < MAX_DIRS => {
                        dirs.push(path.trim_end_matches('/').to_owned())
                    }
                    Entry::Dir { .. } | Entry::Key { .. } => {
                        return Err(s3_error!(BucketNotEmpty, "the bucket has keys or too many directories"));
                    }
                }
            }
            at += 1;
        }
        // The deepest first.
        for dir in dirs.drain(1..).rev() {
            let dir = Dir::try_from(dir).or_failure()?;
            match self.client().remove_dir(&dir).await {
                Err(error) if error.kind() != ErrorKind::NotFound => return Err(failure::of(&error)),
                _ => {}
            }
        }
        Ok(())
    }
}
