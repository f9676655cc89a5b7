//! Listings, page by page.

use super::failure::Failure;
use super::page::Page;
use super::request::{Ask, S3};
use super::url::S3Url;
use hyper::Method;

/// Limit of bytes of a page. 1,000 keys of 1,024 bytes, each byte written as three, with room for the rest.
const MAX_PAGE: usize = 16 << 20;

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
        self.retrying(|| async { Page::parse(&self.send(&ask).await?.body.read(MAX_PAGE).await?) }).await
    }
}
