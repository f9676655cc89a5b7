//! Listings, page by page.

use super::failure::{Failure, Reason};
use super::request::{Ask, S3};
use super::url::S3Url;
use super::xml::{self, ListXml};
use hyper::Method;

/// Limit of bytes of a page. 1,000 keys of 1,024 bytes, each byte written as three, with room for the rest.
const MAX_PAGE: usize = 16 << 20;

/// A listed object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listed {
    pub key: String,
    pub etag: String,
    pub len: u64,
}

/// Up to 1,000 objects, in the order of their keys.
pub struct Page {
    pub objects: Vec<Listed>,
    /// What the next page is asked with; `None` after the last.
    pub next: Option<String>,
}

impl S3 {
    /// The page of the objects whose keys begin with `url.key` that `token` stands for, or the first.
    pub async fn list(&self, url: &S3Url, token: Option<&str>) -> Result<Page, Failure> {
        let mut query = vec![("list-type", "2"), ("encoding-type", "url")];
        if !url.key.is_empty() {
            query.push(("prefix", &url.key));
        }
        query.extend(token.map(|token| ("continuation-token", token)));
        let ask = Ask { method: Method::GET, bucket: &url.bucket, query, ..Ask::default() };
        // A page that was cut or garbled on the way is asked for again.
        self.retrying(|| async {
            let text = self.send(&ask).await?.body.read(MAX_PAGE).await?;
            let list: ListXml = xml::parse(&text)?;
            let encoding = list.encoding_type.as_deref();
            let object = |object: super::xml::ObjectXml| {
                Ok(Listed { key: xml::decoded(&object.key, encoding)?, etag: object.etag, len: object.size })
            };
            let objects = list.contents.into_iter().map(object).collect::<Result<_, Failure>>()?;
            match (list.is_truncated, list.next_continuation_token) {
                (true, None) => {
                    Err(Failure::new(Reason::Broken, "a page of the listing does not say where the next begins"))
                }
                (true, next) => Ok(Page { objects, next }),
                (false, _) => Ok(Page { objects, next: None }),
            }
        })
        .await
    }
}
