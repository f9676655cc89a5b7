//! The metadata of a key as S3 has it: a content type, a few other headers of HTTP, and `x-amz-meta-*`. The cluster
//! keeps a content type, and names with values; the other headers are kept under names that begin with [`PLAIN`].

use hyper::header::{CONTENT_TYPE, HeaderMap};
use s4::error::{Error, ErrorKind, Result};
use s4::protocol::Metadata;
use std::collections::BTreeMap;

/// The headers that are kept besides the content type.
pub const HEADERS: [&str; 5] =
    ["cache-control", "content-disposition", "content-encoding", "content-language", "expires"];
/// Begins the name under which such a header is kept. The names of users seldom begin so.
const PLAIN: &str = "--";
const USER: &str = "x-amz-meta-";

/// The metadata in the headers of a request or response.
pub fn of_headers(headers: &HeaderMap) -> Result<Metadata> {
    let content_type = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).map(str::trim);
    Metadata::new(content_type.filter(|text| !text.is_empty()).map(str::to_owned), kept(headers)?, None)
}

/// The headers besides the content type, by the names under which they are kept. Errors: a value is not UTF-8.
pub fn kept(headers: &HeaderMap) -> Result<BTreeMap<String, String>> {
    let mut all = BTreeMap::new();
    for (name, value) in headers {
        let name = name.as_str();
        let kept = match name.strip_prefix(USER) {
            Some(user) if !user.is_empty() => user.to_owned(),
            None if HEADERS.contains(&name) => format!("{PLAIN}{name}"),
            _ => continue,
        };
        let refused = |_| Error::new(ErrorKind::BadRequest, format!("the header {name} is not UTF-8"));
        let text = std::str::from_utf8(value.as_bytes()).map_err(refused)?.trim();
        let text = if name == "content-encoding" { of_content(text) } else { text.to_owned() };
        if !text.is_empty() || name.starts_with(USER) {
            all.insert(kept, text);
        }
    }
    Ok(all)
}

/// The encodings of the content itself: aws-chunked is one of the transfer, and was taken off.
fn of_content(encodings: &str) -> String {
    let kept: Vec<&str> = encodings.split(',').map(str::trim).filter(|one| *one != "aws-chunked").collect();
    kept.join(",")
}

/// A header of [`HEADERS`], as it is kept.
pub fn header<'a>(metadata: &'a Metadata, name: &str) -> Option<&'a str> {
    metadata.user().get(&format!("{PLAIN}{name}")).map(String::as_str)
}

/// The header for what is kept under `name`.
pub fn header_name(name: &str) -> String {
    match name.strip_prefix(PLAIN).filter(|plain| HEADERS.contains(plain)) {
        Some(plain) => plain.to_owned(),
        None => format!("{USER}{name}"),
    }
}

/// The user's names, without `x-amz-meta-`, and their values.
pub fn user(metadata: &Metadata) -> impl Iterator<Item = (&String, &String)> {
    metadata.user().iter().filter(|(name, _)| !name.strip_prefix(PLAIN).is_some_and(|name| HEADERS.contains(&name)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use hyper::header::{HeaderName, HeaderValue};

    #[test]
    fn headers_are_kept_and_aws_chunked_is_not() {
        let of = |pairs: &[(&'static str, &'static str)]| {
            let pair = |&(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value));
            of_headers(&pairs.iter().map(pair).collect()).expect("metadata")
        };
        let kept = of(&[
            ("content-type", "text/csv"),
            ("x-amz-meta-a", "1"),
            ("x-amz-meta-cache-control", "mine"),
            ("cache-control", "no-store"),
            ("content-encoding", "gzip, aws-chunked"),
            ("x-amz-date", "x"),
        ]);
        assert_eq!(kept.content_type(), Some("text/csv"));
        assert_eq!(
            (header(&kept, "cache-control"), header(&kept, "content-encoding")),
            (Some("no-store"), Some("gzip"))
        );
        let user: Vec<_> = user(&kept).map(|(name, value)| (name.as_str(), value.as_str())).collect();
        assert_eq!(user, [("a", "1"), ("cache-control", "mine")]);
        assert!(of(&[("content-encoding", "aws-chunked")]).is_empty());
        let empty = of(&[("x-amz-meta-empty", ""), ("cache-control", "")]);
        assert_eq!(empty.user().iter().collect::<Vec<_>>(), [(&"empty".to_owned(), &String::new())]);
        let latin = HeaderMap::from_iter([(
            HeaderName::from_static("x-amz-meta-a"),
            HeaderValue::from_bytes(b"caf\xe9").expect("a header"),
        )]);
        assert!(super::kept(&latin).is_err(), "it is not dropped without a word");
    }
}
