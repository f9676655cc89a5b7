//! A listing of S3 over the cluster's merged listing: what is asked for, and its items one by one.

use super::attributes::Shown;
use super::failure::OrFailure;
use s3s::S3Result;
use s4::client::{Client, ListOptions, Listing};
use s4::key::Prefix;
use s4::protocol::Entry;

/// What is listed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Query {
    pub bucket: String,
    pub prefix: String,
    pub delimiter: Option<String>,
    /// The listing begins after this name.
    pub after: Option<String>,
}

/// An item of a page.
pub enum Item {
    Object { key: String, size: u64, mtime: i64, xxh3: u64 },
    CommonPrefix(String),
}

impl Item {
    pub fn name(&self) -> &str {
        match self {
            Self::Object { key, .. } => key,
            Self::CommonPrefix(prefix) => prefix,
        }
    }
}

/// A listing of which some items were taken.
pub struct Scan {
    query: Query,
    /// `None` if no key can begin with the prefix.
    listing: Option<Listing>,
    /// The item that comes next, if it was read already.
    ahead: Option<Item>,
    last_prefix: Option<String>,
}

impl Scan {
    pub async fn open(client: &Client, query: Query) -> S3Result<Self> {
        let after = query.after.as_ref().map(|after| format!("{}/{after}", query.bucket));
        let options = ListOptions {
            recursive: query.delimiter.as_deref() != Some("/"),
            details: true,
            made: true,
            after: after.as_deref(),
        };
        let listing = match Prefix::parse(&format!("{}/{}", query.bucket, query.prefix)) {
            Ok(prefix) => Some(client.list_with(&prefix, options).await.or_failure()?),
            Err(_) => None,
        };
        Ok(Self { last_prefix: query.after.clone(), query, listing, ahead: None })
    }

    /// Makes `item` the next one.
    pub fn put_back(&mut self, item: Item) {
        self.ahead = Some(item);
    }

    /// The next item, in the order of names; `None` at the end.
    pub async fn next(&mut self) -> S3Result<Option<Item>> {
        if let Some(item) = self.ahead.take() {
            return Ok(Some(item));
        }
        let Some(listing) = &mut self.listing else { return Ok(None) };
        while let Some(entry) = listing.next().await.or_failure()? {
            let path = entry.path();
            let Some(key) = path.get(self.query.bucket.len() + 1..).map(str::to_owned) else { continue };
            // The bucket itself.
            if key.is_empty() {
                continue;
            }
            match (common_prefix(&self.query, &key), entry) {
                (Some(common), _) if self.last_prefix.as_ref() == Some(&common) => {}
                (Some(common), _) => {
                    self.last_prefix = Some(common.clone());
                    return Ok(Some(Item::CommonPrefix(common)));
                }
                (None, Entry::Key { size, mtime, detail, .. }) => {
                    let xxh3 = detail.map_or(0, |detail| detail.xxh3);
                    return Ok(Some(Item::Object { key, size, mtime, xxh3 }));
                }
                (None, Entry::Dir { stat, .. }) => {
                    let shown = Shown::of_dir(stat.map_or(0, |(mtime, _)| mtime));
                    return Ok(Some(Item::Object { key, size: 0, mtime: shown.mtime, xxh3: shown.checksum.xxh3 }));
                }
            }
        }
        self.listing = None;
        Ok(None)
    }
}

/// The common prefix of S3 that stands for a key; `None` if the key stands for itself.
fn common_prefix(query: &Query, key: &str) -> Option<String> {
    let delimiter = query.delimiter.as_deref()?;
    let rest = key.get(query.prefix.len()..)?;
    let end = rest.find(delimiter)? + delimiter.len();
    Some(key[..query.prefix.len() + end].to_owned())
}
