//! The URLs of requests: `https://BUCKET.s3.REGION.amazonaws.com/KEY` for AWS, `ENDPOINT/BUCKET/KEY` for all others, and for
//! buckets whose names a certificate of AWS does not cover.

use hyper::Uri;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};

/// All bytes but the unreserved ones of RFC 3986. A key is encoded byte for byte, so that `a//b`, `..` and `%2F` stay as
/// they are.
const RESERVED: AsciiSet = NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'.').remove(b'~');

/// The URI of `key` in `bucket`; of the bucket if the key is empty.
pub fn uri(
    endpoint: Option<&str>,
    region: &str,
    bucket: &str,
    key: &str,
    query: &[(&str, &str)],
) -> Result<Uri, hyper::http::uri::InvalidUri> {
    let encoded: Vec<String> = key.split('/').map(|part| utf8_percent_encode(part, &RESERVED).to_string()).collect();
    let path = encoded.join("/");
    let suffix = if region.starts_with("cn-") { "amazonaws.com.cn" } else { "amazonaws.com" };
    let base = match endpoint {
        Some(endpoint) => format!("{endpoint}/{bucket}"),
        None if bucket.contains('.') => format!("https://s3.{region}.{suffix}/{bucket}"),
        None => format!("https://{bucket}.s3.{region}.{suffix}"),
    };
    let pairs: Vec<String> = query
        .iter()
        .map(|(name, value)| match *value {
            // A subresource, which has no value.
            "" => (*name).to_owned(),
            value => format!("{name}={}", utf8_percent_encode(value, &RESERVED)),
        })
        .collect();
    let query = if pairs.is_empty() { String::new() } else { format!("?{}", pairs.join("&")) };
    format!("{base}/{path}{query}").parse()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_stays_as_it_is() {
        let of = |key| uri(Some("http://h:1"), "r", "b", key, &[]).unwrap().to_string();
        for (key, url) in [
            ("a//b", "http://h:1/b/a//b"),
            ("../x", "http://h:1/b/../x"),
            ("a b+c%2Fd/", "http://h:1/b/a%20b%2Bc%252Fd/"),
            ("é?#", "http://h:1/b/%C3%A9%3F%23"),
        ] {
            assert_eq!(of(key), url);
        }
    }

    #[test]
    fn buckets_of_aws_have_hosts_of_their_own() {
        let of =
            |region, bucket| uri(None, region, bucket, "k", &[("uploads", ""), ("prefix", "a/b")]).unwrap().to_string();
        assert_eq!(of("eu-west-1", "b"), "https://b.s3.eu-west-1.amazonaws.com/k?uploads&prefix=a%2Fb");
        assert_eq!(of("cn-north-1", "b.c"), "https://s3.cn-north-1.amazonaws.com.cn/b.c/k?uploads&prefix=a%2Fb");
    }
}
