//! What S3 shows of a key besides its bytes: ETag and time; and the conditions of requests on them.

use crate::client::door_etag;
use hyper::HeaderMap;
use hyper::header::{ETAG, LAST_MODIFIED};
use s3s::dto::{ETag, ETagCondition, Timestamp, TimestampFormat};
use s3s::{S3Error, S3ErrorCode, S3Result, s3_error};
use s4::checksum::Checksum;
use std::time::{Duration, SystemTime};

/// The ETag of a key or part.
pub fn etag(xxh3: u64) -> ETag {
    ETag::Strong(door_etag(xxh3))
}

/// The inverse of [`etag`].
pub fn xxh3_of(etag: &ETag) -> Option<u64> {
    let digits = etag.value().strip_suffix("-1").filter(|digits| digits.len() == 16 && !digits.starts_with('+'))?;
    u64::from_str_radix(digits, 16).ok()
}

/// A time in nanoseconds since 1970, as whole seconds: HTTP dates have no fractions, and listings must agree.
pub fn time(nanoseconds: i64) -> Timestamp {
    let seconds = nanoseconds.div_euclid(1_000_000_000);
    let distance = Duration::from_secs(seconds.unsigned_abs());
    let time = if seconds < 0 { SystemTime::UNIX_EPOCH - distance } else { SystemTime::UNIX_EPOCH + distance };
    time.into()
}

/// The attributes of an object that exists.
#[derive(Clone, Copy)]
pub struct Shown {
    pub checksum: Checksum,
    /// Nanoseconds since 1970.
    pub mtime: i64,
}

impl Shown {
    /// An empty directory, as the object that clients call a directory marker.
    pub fn of_dir(mtime: i64) -> Self {
        Self { checksum: Checksum::of(&[]), mtime }
    }

    pub fn etag(&self) -> ETag {
        etag(self.checksum.xxh3)
    }

    pub fn time(&self) -> Timestamp {
        time(self.mtime)
    }

    fn is(&self, condition: &ETagCondition) -> bool {
        condition.as_etag().is_none_or(|asked| asked.weak_cmp(&self.etag()))
    }
}

/// The conditions of a request.
#[derive(Default)]
pub struct Conditions {
    pub if_match: Option<ETagCondition>,
    pub if_none_match: Option<ETagCondition>,
    pub if_modified_since: Option<Timestamp>,
    pub if_unmodified_since: Option<Timestamp>,
}

impl Conditions {
    /// Errors: precondition failed, or not modified, in the order of RFC 9110.
    pub fn check(&self, object: &Shown) -> S3Result<()> {
        let failed = || Err(s3_error!(PreconditionFailed, "a condition of the request does not hold"));
        match (&self.if_match, &self.if_unmodified_since) {
            (Some(condition), _) if !object.is(condition) => return failed(),
            (None, Some(since)) if object.time() > *since => return failed(),
            _ => {}
        }
        match (&self.if_none_match, &self.if_modified_since) {
            (Some(condition), _) if object.is(condition) => Err(not_modified(object)),
            (None, Some(since)) if object.time() <= *since => Err(not_modified(object)),
            _ => Ok(()),
        }
    }

    /// Like [`check`](Self::check) for the source of a copy, for which nothing is "not modified".
    pub fn check_source(&self, object: &Shown) -> S3Result<()> {
        self.check(object).map_err(|_| s3_error!(PreconditionFailed, "a condition on the source does not hold"))
    }
}

fn not_modified(object: &Shown) -> S3Error {
    let mut error = S3Error::new(S3ErrorCode::NotModified);
    let mut headers = HeaderMap::new();
    let mut time = Vec::new();
    if let (Ok(etag), Ok(())) =
        (object.etag().to_http_header(), object.time().format(TimestampFormat::HttpDate, &mut time))
        && let Ok(time) = time.try_into()
    {
        headers.insert(ETAG, etag);
        headers.insert(LAST_MODIFIED, time);
    }
    error.set_headers(headers);
    error
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_etag_is_no_md5_and_reads_as_written() {
        assert_eq!(etag(0xab).value(), "00000000000000ab-1");
        for xxh3 in [0, 0xab, u64::MAX] {
            assert_eq!(xxh3_of(&etag(xxh3)), Some(xxh3));
        }
        for other in ["", "ab-1", "00000000000000ab", "d41d8cd98f00b204e9800998ecf8427e", "+0000000000000ab-1"] {
            assert_eq!(xxh3_of(&ETag::Strong(other.to_owned())), None, "{other}");
        }
    }

    #[test]
    fn conditions_are_checked_in_the_order_of_the_standard() {
        let object = Shown { checksum: Checksum::of(b"x"), mtime: 10_500_000_000 };
        let (ours, other) = (ETagCondition::ETag(object.etag()), ETagCondition::ETag(etag(7)));
        let code = |conditions: Conditions| conditions.check(&object).err().map(|e| e.code().as_str().to_owned());
        let (before, at) = (Some(time(9_000_000_000)), Some(time(10_000_000_000)));
        assert_eq!(code(Conditions::default()), None);
        assert_eq!(
            code(Conditions { if_match: Some(other.clone()), ..Default::default() }).as_deref(),
            Some("PreconditionFailed")
        );
        // A match makes the date irrelevant.
        let matched =
            Conditions { if_match: Some(ours.clone()), if_unmodified_since: before.clone(), ..Default::default() };
        assert_eq!(code(matched), None);
        let changed = Conditions { if_unmodified_since: before.clone(), ..Default::default() };
        assert_eq!(code(changed).as_deref(), Some("PreconditionFailed"));
        assert_eq!(
            code(Conditions { if_none_match: Some(ours), ..Default::default() }).as_deref(),
            Some("NotModified")
        );
        let other_tag = Conditions { if_none_match: Some(other), if_modified_since: at.clone(), ..Default::default() };
        assert_eq!(code(other_tag), None);
        assert_eq!(code(Conditions { if_modified_since: at, ..Default::default() }).as_deref(), Some("NotModified"));
        assert_eq!(code(Conditions { if_modified_since: before, ..Default::default() }), None);
    }
}
