//! ListObjects of both versions, and ListObjectVersions. A page is a piece of the cluster's merged listing, which begins
//! after a name: the last one of the page before.

use super::attributes::{etag, time};
use super::buckets::owner;
use super::door::Door;
use super::scan::{Item, Query, Scan};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use s3s::dto::*;
use s3s::{S3Request, S3Response, S3Result, s3_error};

/// The most items of a page.
const MAX_LISTED: usize = 1000;
/// What `encoding-type=url` escapes: all but slashes and the unreserved characters of RFC 3986.
const ESCAPED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'.').remove(b'~').remove(b'/');

/// A page of a listing.
struct Page {
    items: Vec<Item>,
    /// The name after which the next page begins, if there is one.
    next: Option<String>,
    most: usize,
}

impl Door {
    async fn page(&self, query: Query, most: Option<i32>) -> S3Result<Page> {
        let most = match most.unwrap_or(MAX_LISTED as i32) {
            most if most < 0 => return Err(s3_error!(InvalidArgument, "max-keys is at least 0")),
            most => MAX_LISTED.min(most as usize),
        };
        self.require_bucket(&query.bucket).await?;
        let (mut items, mut next) = (Vec::new(), None);
        if most == 0 {
            return Ok(Page { items, next, most });
        }
        let mut scan = match self.pages.take(&query) {
            Some(scan) => scan,
            None => Scan::open(self.client(), query.clone()).await?,
        };
        while let Some(item) = scan.next().await? {
            if items.len() == most {
                next = items.last().map(|last: &Item| last.name().to_owned());
                scan.put_back(item);
                self.pages.keep(Query { after: next.clone(), ..query.clone() }, scan);
                break;
            }
            items.push(item);
        }
        Ok(Page { items, next, most })
    }

    pub async fn list_objects_v2(
        &self,
        req: S3Request<ListObjectsV2Input>,
    ) -> S3Result<S3Response<ListObjectsV2Output>> {
        let input = req.input;
        let query = Query {
            bucket: input.bucket.clone(),
            prefix: input.prefix.clone().unwrap_or_default(),
            delimiter: input.delimiter.clone().filter(|delimiter| !delimiter.is_empty()),
            after: input.continuation_token.clone().or(input.start_after.clone()).filter(|after| !after.is_empty()),
        };
        let page = self.page(query, input.max_keys).await?;
        let shown = Written::new(input.encoding_type.as_ref())?;
        let has_owner = input.fetch_owner == Some(true);
        let key_count = page.items.len() as i32;
        let (is_truncated, max_keys) = (page.next.is_some(), page.most as i32);
        let next_continuation_token = page.next.clone();
        let (contents, common_prefixes) = shown.items(page.items, has_owner);
        Ok(S3Response::new(ListObjectsV2Output {
            name: Some(input.bucket),
            prefix: Some(shown.text(input.prefix.unwrap_or_default())),
            max_keys: Some(max_keys),
            key_count: Some(key_count),
            continuation_token: input.continuation_token,
            is_truncated: Some(is_truncated),
            next_continuation_token,
            contents: Some(contents),
            common_prefixes: Some(common_prefixes),
            delimiter: input.delimiter.filter(|text| !text.is_empty()).map(|delimiter| shown.text(delimiter)),
            encoding_type: input.encoding_type,
            start_after: input.start_after.map(|after| shown.text(after)),
            request_charged: None,
        }))
    }

    pub async fn list_objects(&self, req: S3Request<ListObjectsInput>) -> S3Result<S3Response<ListObjectsOutput>> {
        let input = req.input;
        let query = Query {
            bucket: input.bucket.clone(),
            prefix: input.prefix.clone().unwrap_or_default(),
            delimiter: input.delimiter.clone().filter(|delimiter| !delimiter.is_empty()),
            after: input.marker.clone().filter(|marker| !marker.is_empty()),
        };
        let page = self.page(query, input.max_keys).await?;
        let shown = Written::new(input.encoding_type.as_ref())?;
        let (is_truncated, max_keys) = (page.next.is_some(), page.most as i32);
        let next_marker = page.next.clone().map(|next| shown.text(next));
        let (contents, common_prefixes) = shown.items(page.items, true);
        Ok(S3Response::new(ListObjectsOutput {
            name: Some(input.bucket),
            prefix: Some(shown.text(input.prefix.unwrap_or_default())),
            marker: Some(shown.text(input.marker.unwrap_or_default())),
            max_keys: Some(max_keys),
            is_truncated: Some(is_truncated),
            contents: Some(contents),
            common_prefixes: Some(common_prefixes),
            delimiter: input.delimiter.filter(|text| !text.is_empty()).map(|delimiter| shown.text(delimiter)),
            next_marker,
            encoding_type: input.encoding_type,
            request_charged: None,
        }))
    }

    /// Every object is the only version of its key.
    pub async fn list_object_versions(
        &self,
        req: S3Request<ListObjectVersionsInput>,
    ) -> S3Result<S3Response<ListObjectVersionsOutput>> {
        let input = req.input;
        let query = Query {
            bucket: input.bucket.clone(),
            prefix: input.prefix.clone().unwrap_or_default(),
            delimiter: input.delimiter.clone().filter(|delimiter| !delimiter.is_empty()),
            after: input.key_marker.clone().filter(|marker| !marker.is_empty()),
        };
        let page = self.page(query, input.max_keys).await?;
        let shown = Written::new(input.encoding_type.as_ref())?;
        let (is_truncated, max_keys) = (page.next.is_some(), page.most as i32);
        let next_key_marker = page.next.clone().map(|next| shown.text(next));
        let (contents, common_prefixes) = shown.items(page.items, true);
        let versions = contents.into_iter().map(|object| ObjectVersion {
            e_tag: object.e_tag,
            is_latest: Some(true),
            key: object.key,
            last_modified: object.last_modified,
            owner: object.owner,
            size: object.size,
            storage_class: Some("STANDARD".to_owned().into()),
            version_id: Some("null".to_owned()),
            ..ObjectVersion::default()
        });
        Ok(S3Response::new(ListObjectVersionsOutput {
            common_prefixes: Some(common_prefixes),
            delimiter: input.delimiter.filter(|text| !text.is_empty()).map(|delimiter| shown.text(delimiter)),
            encoding_type: input.encoding_type,
            is_truncated: Some(is_truncated),
            key_marker: Some(shown.text(input.key_marker.unwrap_or_default())),
            max_keys: Some(max_keys),
            name: Some(input.bucket),
            next_version_id_marker: next_key_marker.as_ref().map(|_| "null".to_owned()),
            next_key_marker,
            prefix: Some(shown.text(input.prefix.unwrap_or_default())),
            versions: Some(versions.collect()),
            ..ListObjectVersionsOutput::default()
        }))
    }
}

/// How names are written in an answer.
struct Written {
    is_escaped: bool,
}

impl Written {
    fn new(encoding: Option<&EncodingType>) -> S3Result<Self> {
        match encoding.map(EncodingType::as_str) {
            None => Ok(Self { is_escaped: false }),
            Some(EncodingType::URL) => Ok(Self { is_escaped: true }),
            Some(_) => Err(s3_error!(InvalidArgument, "the only encoding-type is url")),
        }
    }

    fn text(&self, text: String) -> String {
        if self.is_escaped { utf8_percent_encode(&text, ESCAPED).to_string() } else { text }
    }

    fn items(&self, items: Vec<Item>, has_owner: bool) -> (Vec<Object>, Vec<CommonPrefix>) {
        let (mut objects, mut prefixes) = (Vec::new(), Vec::new());
        for item in items {
            match item {
                Item::CommonPrefix(prefix) => prefixes.push(CommonPrefix { prefix: Some(self.text(prefix)) }),
                Item::Object { key, size, mtime, xxh3 } => objects.push(Object {
                    e_tag: Some(etag(xxh3)),
                    key: Some(self.text(key)),
                    last_modified: Some(time(mtime)),
                    owner: has_owner.then(owner),
                    size: Some(size as i64),
                    storage_class: Some("STANDARD".to_owned().into()),
                    ..Object::default()
                }),
            }
        }
        (objects, prefixes)
    }
}
