//! `s3://bucket/key`.

use s4::error::{Error, Result};
use std::fmt;

/// Limit of bytes of a key, as S3 has it.
const MAX_KEY: usize = 1024;

/// A bucket, and a key or a prefix of keys in it, which may be empty. A key is any text: S3 knows no directories.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct S3Url {
    pub bucket: String,
    pub key: String,
}

impl S3Url {
    /// Errors: the text does not begin with `s3://`, or no bucket or key can have such a name.
    pub fn parse(text: &str) -> Result<Self> {
        let refused = |why: &str| Error::usage(format!("{}: {why}", text.escape_debug()));
        let rest = text.strip_prefix("s3://").ok_or_else(|| refused("an S3 URL is s3://BUCKET/KEY"))?;
        let (bucket, key) = rest.split_once('/').unwrap_or((rest, ""));
        let plain = |b: u8| b.is_ascii_alphanumeric() || b"-._".contains(&b);
        if bucket.is_empty() || bucket.len() > 255 || !bucket.bytes().all(plain) {
            return Err(refused("a bucket of S3 has letters, digits, '-', '.' and '_'"));
        }
        match key.len() > MAX_KEY {
            true => Err(refused("a key of S3 has at most 1024 bytes")),
            false => Ok(Self { bucket: bucket.to_owned(), key: key.to_owned() }),
        }
    }

    /// The same for one object. Errors: the URL names no key.
    pub fn parse_object(text: &str) -> Result<Self> {
        let url = Self::parse(text)?;
        match url.key.is_empty() {
            true => Err(Error::usage(format!("{url}: names a bucket, and no object in it"))),
            false => Ok(url),
        }
    }
}

impl fmt::Display for S3Url {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "s3://{}/{}", self.bucket, self.key.escape_debug())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_any_text_behind_the_first_slash() {
        for (text, bucket, key) in [
            ("s3://b/a//b", "b", "a//b"),
            ("s3://b", "b", ""),
            ("s3://b/", "b", ""),
            ("s3://b/../x y%2F", "b", "../x y%2F"),
        ] {
            let url = S3Url::parse(text).unwrap();
            assert_eq!((&*url.bucket, &*url.key), (bucket, key));
        }
        for text in ["s4://b/k", "s3://", "s3:///k", "s3://b c/k", "s3://b\n/k", "/tmp/x"] {
            assert!(S3Url::parse(text).is_err(), "{text}");
        }
        assert!(S3Url::parse_object("s3://b/").is_err());
    }
}
