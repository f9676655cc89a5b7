//! Buckets and keys of S3 as names of the cluster. A key that ends in `/` stands for a directory.

use s3s::validation::NameValidation;
use s3s::{S3Error, S3Result, s3_error};
use s4::key::{Dir, Key};

/// s3s would refuse buckets that Amazon refuses. The cluster's own rule decides.
pub struct AnyBucket;

impl NameValidation for AnyBucket {
    fn validate_bucket_name(&self, name: &str) -> bool {
        !name.is_empty()
    }
}

/// What a key of S3 stands for.
pub enum Object {
    Key(Key),
    Dir(Dir),
}

/// The directory of a bucket. Error: no bucket can have this name.
pub fn bucket(name: &str) -> S3Result<Dir> {
    // A slash would make it a directory in a bucket.
    let parsed = if name.contains('/') { None } else { Some(Dir::try_from(name.to_owned())) };
    match parsed {
        Some(Ok(dir)) => Ok(dir),
        Some(Err(error)) => Err(s3_error!(InvalidBucketName, "{error}")),
        None => Err(s3_error!(InvalidBucketName, "a bucket has no '/'")),
    }
}

/// The name of an object that is to be made. Error: no key can have this name; it says the rule.
pub fn object(bucket: &str, key: &str) -> S3Result<Object> {
    self::bucket(bucket)?;
    let refused = |error: s4::error::Error| s3_error!(InvalidArgument, "{error}");
    let path = format!("{bucket}/{key}");
    match path.strip_suffix('/') {
        // `Dir` would accept the slash, and one more would be dropped in silence.
        Some(dir) if dir.ends_with('/') => Err(s3_error!(InvalidArgument, "'s4://{path}': no part of a name is empty")),
        Some(dir) => Dir::try_from(dir.to_owned()).map(Object::Dir).map_err(refused),
        None => Key::parse(&path).map(Object::Key).map_err(refused),
    }
}

/// The name of an object that may exist; `None` if nothing can have this name.
pub fn existing(bucket: &str, key: &str) -> Option<Object> {
    object(bucket, key).ok()
}

pub fn no_such_key(bucket: &str, key: &str) -> S3Error {
    s3_error!(NoSuchKey, "s4://{}/{}: no such key", bucket.escape_debug(), key.escape_debug())
}

pub fn no_such_bucket(bucket: &str) -> S3Error {
    s3_error!(NoSuchBucket, "s4://{}: no such bucket", bucket.escape_debug())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_objects_keep_every_rule_of_keys() {
        assert!(matches!(object("b", "d/k"), Ok(Object::Key(key)) if key.as_str() == "b/d/k"));
        assert!(matches!(object("b", "d/"), Ok(Object::Dir(dir)) if dir.as_str() == "b/d"));
        for key in ["a//b", "../x", "./x", "a b", "d//", "/", "/a", "\u{1}", &"x".repeat(256)] {
            let refused = object("b", key).err().unwrap_or_else(|| panic!("{key}"));
            assert_eq!(refused.code().as_str(), "InvalidArgument", "{key}");
        }
        assert_eq!(object(".b", "k").err().map(|e| e.code().as_str().to_owned()).as_deref(), Some("InvalidBucketName"));
    }
}
