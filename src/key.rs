//! Names: buckets, keys, directories and prefixes. Each is validated once, when it is parsed into its type.

use crate::error::{Error, ErrorKind, Result};
use serde::{Deserialize, Serialize};
use std::fmt;

/// Limit of bytes of a part of a name: that of a file name on Linux.
pub const MAX_PART: usize = 255;
/// Limit of bytes of `bucket/key`.
pub const MAX_KEY: usize = 1024;
const SCHEME: &str = "s4://";

/// A key: `bucket/dir/name`, which satisfies every naming rule.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Key(String);

impl Key {
    /// Parses `bucket/dir/name`, without a scheme.
    pub fn parse(path: &str) -> Result<Self> {
        Self::checked(path).map_err(|rule| bad(path, rule))
    }

    /// Like [`parse`](Self::parse). The error is the rule that `path` breaks.
    pub fn checked(path: &str) -> std::result::Result<Self, &'static str> {
        check_path(path)?;
        match path.contains('/') {
            true => Ok(Self(path.to_owned())),
            false => Err("it names a bucket; a key is s4://bucket/key"),
        }
    }

    /// Parses `s4://bucket/dir/name`, as typed by a user.
    pub fn parse_url(url: &str) -> Result<Self> {
        match strip_scheme(url)? {
            dir if dir.len() > 1 && dir.ends_with('/') => {
                Err(bad(dir, "it is a directory, and one key is wanted; cp, ls and rm take directories with -r"))
            }
            path => Self::parse(path),
        }
    }

    /// `bucket/dir/name`.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    pub fn basename(&self) -> &str {
        self.0.rsplit_once('/').map_or(&*self.0, |(_, name)| name)
    }

    /// The `bucket/dir` that contains it.
    pub fn parent(&self) -> &str {
        self.0.rsplit_once('/').map_or("", |(parent, _)| parent)
    }

    /// The name by which an n:1 map groups: the number before `_` as written, otherwise the whole basename.
    pub fn merge_name(&self) -> &str {
        let name = self.basename();
        match split_number(name) {
            Some((number, _)) => number,
            None => name,
        }
    }

    /// The part of the basename after the merge name: `_suffix`, or nothing.
    pub fn merge_suffix(&self) -> &str {
        &self.basename()[self.merge_name().len()..]
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{SCHEME}{}", self.0)
    }
}

impl TryFrom<String> for Key {
    type Error = Error;
    fn try_from(path: String) -> Result<Self> {
        Self::parse(&path)
    }
}

impl From<Key> for String {
    fn from(key: Key) -> Self {
        key.0
    }
}

/// A directory, `bucket` or `bucket/dir`, stored without a trailing slash.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Dir(String);

impl Dir {
    /// Parses `s4://bucket/dir/`; the trailing slash may be left out.
    pub fn parse_url(url: &str) -> Result<Self> {
        Self::parse(strip_scheme(url)?)
    }

    fn parse(path: &str) -> Result<Self> {
        let trimmed = path.strip_suffix('/').unwrap_or(path);
        check_path(trimmed).map_err(|rule| bad(path, rule))?;
        Ok(Self(trimmed.to_owned()))
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// True if both are the same directory, or one contains the other.
    pub fn overlaps(&self, other: &Self) -> bool {
        let holds = |outer: &Self, inner: &Self| format!("{}/", inner.0).starts_with(&format!("{}/", outer.0));
        holds(self, other) || holds(other, self)
    }

    /// The key at `path` below this directory.
    pub fn join(&self, path: &str) -> Result<Key> {
        Key::parse(&format!("{}/{path}", self.0))
    }

    /// Like [`join`](Self::join). The error is the rule that the key breaks.
    pub fn join_checked(&self, path: &str) -> std::result::Result<Key, &'static str> {
        Key::checked(&format!("{}/{path}", self.0))
    }
}

impl fmt::Display for Dir {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{SCHEME}{}/", self.0)
    }
}

impl TryFrom<String> for Dir {
    type Error = Error;
    fn try_from(path: String) -> Result<Self> {
        Self::parse(&path)
    }
}

impl From<Dir> for String {
    fn from(dir: Dir) -> Self {
        dir.0
    }
}

/// A prefix of `bucket/key`; empty means everything. It may end anywhere in a name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Prefix(String);

impl Prefix {
    pub fn parse_url(url: &str) -> Result<Self> {
        Self::parse(strip_scheme(url)?)
    }

    pub fn parse(path: &str) -> Result<Self> {
        let check = || {
            if let Some((parents, last)) = path.rsplit_once('/') {
                check_path(parents)?;
                check_characters(last)?;
            } else if !path.is_empty() {
                check_bucket(path)?;
                check_characters(path)?;
            }
            check_length(path)
        };
        check().map_err(|rule| bad(path, rule))?;
        Ok(Self(path.to_owned()))
    }

    /// The prefix of everything below `dir`.
    pub fn below(dir: &Dir) -> Self {
        Self(format!("{}/", dir.0))
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The directory that contains every match (without a slash, empty for the root), and the prefix of the names in
    /// it.
    pub fn split(&self) -> (&str, &str) {
        self.0.rsplit_once('/').unwrap_or(("", &self.0))
    }
}

impl fmt::Display for Prefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{SCHEME}{}", self.0)
    }
}

/// True if `text` means a name in the cluster, not a local path.
pub fn is_url(text: &str) -> bool {
    text.starts_with(SCHEME)
}

/// `bucket/…` of `s4://bucket/…`.
pub fn strip_scheme(url: &str) -> Result<&str> {
    url.strip_prefix(SCHEME).ok_or_else(|| {
        let error = bad_as_typed(url, "a name in the cluster begins with s4://");
        meant(url).map_or(error.clone(), |meant| error.with_more(&meant))
    })
}

/// Splits a basename into its leading number and the rest, if the part before the first `_` is all ASCII digits.
pub fn split_number(basename: &str) -> Option<(&str, &str)> {
    let end = basename.find('_').unwrap_or(basename.len());
    let (head, rest) = basename.split_at(end);
    (!head.is_empty() && head.bytes().all(|b| b.is_ascii_digit())).then_some((head, rest))
}

/// The result of a check. The error is the rule that the name breaks.
type Checked = std::result::Result<(), &'static str>;

fn check_path(path: &str) -> Checked {
    check_length(path)?;
    check_bucket(path)?;
    path.split('/').try_for_each(check_part)
}

fn check_bucket(path: &str) -> Checked {
    match path.starts_with(['.', '_']) {
        true => Err("a bucket does not begin with '.' or '_'"),
        false => Ok(()),
    }
}

fn check_part(part: &str) -> Checked {
    match part {
        "" => Err("no part of a name is empty"),
        "." | ".." => Err("no part of a name is '.' or '..'"),
        part => check_characters(part),
    }
}

fn check_characters(part: &str) -> Checked {
    if part.len() > MAX_PART {
        return Err("a part of a name is at most 255 bytes");
    }
    match part.chars().any(|c| c.is_whitespace() || c.is_control()) {
        true => Err("a name has no whitespace or control characters"),
        false => Ok(()),
    }
}

fn check_length(path: &str) -> Checked {
    match path.len() > MAX_KEY {
        true => Err("bucket and key together are at most 1024 bytes"),
        false => Ok(()),
    }
}

fn bad(path: &str, rule: &str) -> Error {
    let error = bad_as_typed(&format!("{SCHEME}{path}"), rule);
    if path.is_empty() { error.with_more("name a bucket, as in s4://bucket/key") } else { error }
}

/// The name that may have been meant, if the scheme is missing.
fn meant(url: &str) -> Option<String> {
    if url.starts_with('/') || url.starts_with('.') {
        return Some("this is a local path".to_owned());
    }
    let lower = url.to_ascii_lowercase();
    if lower.contains("://") && !lower.starts_with(SCHEME) {
        return Some("another store's keys are copied in first".to_owned());
    }
    let path = lower.strip_prefix("s4:").map_or(url, |rest| url[url.len() - rest.len()..].trim_start_matches('/'));
    let name = path.strip_suffix('/').unwrap_or(path);
    check_path(name).is_ok().then(|| format!("did you mean {SCHEME}{path}?"))
}

fn bad_as_typed(shown: &str, rule: &str) -> Error {
    let shown: String = shown.escape_debug().collect();
    Error::new(ErrorKind::BadName, format!("'{shown}': {rule}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_text_that_is_a_key_keeps_every_rule(text in "(s4://)?[ab12_]{0,3}(/[ab12_. é]{0,4}){0,3}") {
            if let Ok(key) = Key::parse_url(&text) {
                let parts: Vec<&str> = key.as_str().split('/').collect();
                prop_assert!(parts.len() >= 2 && parts.iter().all(|part| !matches!(*part, "" | "." | "..")));
                prop_assert!(!key.as_str().contains(char::is_whitespace) && !key.as_str().starts_with(['.', '_']));
                prop_assert_eq!(key.to_string(), &*text);
                prop_assert_eq!(format!("{}/{}", key.parent(), key.basename()), key.as_str());
                prop_assert_eq!(format!("{}{}", key.merge_name(), key.merge_suffix()), key.basename());
                prop_assert_eq!(Dir::parse_url(&format!("s4://{}", key.parent())).unwrap().join(key.basename()).unwrap(), key);
            }
        }

        #[test]
        fn any_text_is_a_name_or_an_error_of_one_line(text in any::<String>()) {
            let errors = [Key::parse(&text).err(), Dir::try_from(text.clone()).err(), Prefix::parse(&text).err()];
            for error in errors.into_iter().flatten() {
                prop_assert!(!error.to_string().contains(char::is_control), "{error:?}");
            }
        }

        #[test]
        fn every_beginning_of_a_key_is_a_prefix(key in "[ab]{1,3}(/[ab.]{0,2}é){1,3}", end in 0_usize..20) {
            prop_assert!(Key::parse(&key).is_ok());
            let end = (0..=end.min(key.len())).rev().find(|&end| key.is_char_boundary(end)).unwrap();
            let prefix = Prefix::parse(&key[..end]).unwrap();
            let (dir, start) = prefix.split();
            let slash = if key[..end].contains('/') { "/" } else { "" };
            prop_assert_eq!([dir, slash, start].concat(), &key[..end]);
        }
    }

    #[test]
    fn merge_name_is_the_number_as_written_else_the_basename() {
        let of = |path| {
            let key = Key::parse(path).unwrap();
            (key.merge_name().to_owned(), key.merge_suffix().to_owned())
        };
        assert_eq!(of("b/002_machine2"), ("002".into(), "_machine2".into()));
        assert_eq!(of("b/d/002"), ("002".into(), "".into()));
        assert_eq!(of("b/origin_EWR_000"), ("origin_EWR_000".into(), "".into()));
        assert_eq!(of("b/_x"), ("_x".into(), "".into()));
        assert_eq!(of("b/٣_x"), ("٣_x".into(), "".into()));
    }

    #[test]
    fn a_prefix_may_end_anywhere() {
        let split = |text| {
            let prefix = Prefix::parse_url(text).unwrap();
            let (dir, start) = prefix.split();
            (dir.to_owned(), start.to_owned())
        };
        assert_eq!(split("s4://"), ("".into(), "".into()));
        assert_eq!(split("s4://ste"), ("".into(), "ste".into()));
        assert_eq!(split("s4://b/"), ("b".into(), "".into()));
        assert_eq!(split("s4://b/d/x"), ("b/d".into(), "x".into()));
        assert!(Prefix::parse_url("s4://b/../x").is_err());
        assert!(Prefix::parse_url("s4://b//x").is_err());
    }
}
