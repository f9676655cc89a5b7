//! INDIR of a map: a directory whose parts may contain `*`, `?` and `[…]`.

use crate::error::{Error, ErrorKind, Result};
use crate::key::{Dir, Key, strip_scheme};
use serde::{Deserialize, Serialize};
use std::fmt;

/// A directory, or a pattern for directories and keys. No wildcard matches a `/`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Pattern {
    text: String,
    /// The directory above the first part with a wildcard; empty for the root.
    base: String,
    parts: Vec<glob::Pattern>,
}

impl Pattern {
    pub fn parse_url(url: &str) -> Result<Self> {
        Self::parse(strip_scheme(url)?)
    }

    fn parse(text: &str) -> Result<Self> {
        let dir = Dir::try_from(text.to_owned())?;
        let trimmed = dir.as_str();
        let all: Vec<&str> = dir.as_str().split('/').collect();
        let literal = all.iter().take_while(|part| !part.contains(['*', '?', '['])).count();
        let parts = all[literal..].iter().map(|part| parse_part(part, trimmed)).collect::<Result<_>>()?;
        Ok(Self { text: trimmed.to_owned(), base: all[..literal].join("/"), parts })
    }

    /// The directory to list from, as `bucket/dir`; empty for the root.
    pub fn base(&self) -> &str {
        &self.base
    }

    /// False only if no key below directory `path` (as `bucket/dir`, at or below the base) can match.
    pub fn may_hold(&self, path: &str) -> bool {
        let below = self.strip_base(path).unwrap_or("");
        below.is_empty() || below.split('/').zip(&self.parts).all(|(name, part)| part.matches(name))
    }

    /// True if `key`, or a directory that contains it, matches.
    pub fn matches(&self, key: &Key) -> bool {
        let Some(below) = self.strip_base(key.as_str()) else {
            return false;
        };
        let names: Vec<&str> = below.split('/').collect();
        names.len() >= self.parts.len() && names.iter().zip(&self.parts).all(|(name, part)| part.matches(name))
    }

    /// True if keys below `dir` could match, or if `dir` is inside a directory that contains matching keys.
    pub fn overlaps(&self, dir: &Dir) -> bool {
        let literal = self.base.split('/').filter(|part| !part.is_empty()).count();
        let mut parts = dir.as_str().split('/').enumerate();
        let base: Vec<&str> = self.base.split('/').collect();
        parts.all(|(at, name)| match at < literal {
            true => base[at] == name,
            false => self.parts.get(at - literal).is_none_or(|part| part.matches(name)),
        })
    }

    /// The path of a matching `key`, relative to the directory above the first part with a wildcard.
    pub fn below<'k>(&self, key: &'k Key) -> &'k str {
        self.strip_base(key.as_str()).unwrap_or(key.as_str())
    }

    fn strip_base<'k>(&self, path: &'k str) -> Option<&'k str> {
        match self.base.is_empty() {
            true => Some(path),
            false => path.strip_prefix(&self.base)?.strip_prefix('/'),
        }
    }
}

fn parse_part(part: &str, whole: &str) -> Result<glob::Pattern> {
    let refuse = |why: &str| Error::new(ErrorKind::BadName, format!("'s4://{whole}': pattern '{part}': {why}"));
    if part.contains("**") {
        return Err(refuse("'**' has no meaning, INDIR is listed recursively"));
    }
    glob::Pattern::new(part).map_err(|e| refuse(e.msg))
}

impl fmt::Display for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let end = if self.text.contains(['*', '?', '[']) { "" } else { "/" };
        write!(f, "s4://{}{end}", self.text)
    }
}

impl TryFrom<String> for Pattern {
    type Error = Error;
    fn try_from(text: String) -> Result<Self> {
        Self::parse(&text)
    }
}

impl From<Pattern> for String {
    fn from(pattern: Pattern) -> Self {
        pattern.text
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn what_matches_is_listed_and_overlaps(pattern in "[ab*?]{1,3}(/[ab*?]{1,2}|/\\[[!ab]{1,3}\\]){0,3}", key in "[ab]{1,2}(/[ab]{1,2}){1,4}") {
            let Ok(pattern) = Pattern::try_from(pattern) else { return Ok(()) };
            let key = Key::parse(&key).unwrap();
            let parent = Dir::try_from(key.parent().to_owned()).unwrap();
            if pattern.matches(&key) {
                prop_assert!(pattern.may_hold(parent.as_str()));
                prop_assert!(pattern.overlaps(&parent));
                prop_assert!(key.as_str().ends_with(pattern.below(&key)));
            }
            let literal = Pattern::try_from(key.parent().to_owned()).unwrap();
            prop_assert!(literal.matches(&key) && literal.base() == key.parent());
        }

        #[test]
        fn any_text_is_a_pattern_that_reads_as_written_or_an_error(text in "[ab*?/\\[\\]!-]{0,12}|\\PC{0,8}") {
            if let Ok(pattern) = Pattern::try_from(text) {
                prop_assert_eq!(&Pattern::try_from(String::from(pattern.clone())).unwrap(), &pattern);
                prop_assert_eq!(&Pattern::parse_url(&pattern.to_string()).unwrap(), &pattern);
            }
        }
    }

    fn matches(pattern: &str, key: &str) -> bool {
        let pattern = Pattern::parse_url(pattern).unwrap();
        let key = Key::parse(key).unwrap();
        let parent = key.as_str().rsplit_once('/').unwrap().0;
        let matched = pattern.matches(&key);
        assert!(!matched || pattern.may_hold(parent), "{pattern} prunes {parent}");
        matched
    }

    #[test]
    fn a_star_never_crosses_a_slash() {
        assert!(matches("s4://cols/*/*_4", "cols/in/x_4"));
        assert!(!matches("s4://cols/*/*_4", "cols/x_4"));
        assert!(!matches("s4://cols/*_4", "cols/in/x_4"));
        assert!(matches("s4://cols/*", "cols/in/x_4"), "a directory matches with all below it");
        assert!(matches("s4://c?ls/[ab]", "cols/a/x"));
        assert!(!matches("s4://c?ls/[!ab]", "cols/a/x"));
    }

    #[test]
    fn a_plain_directory_is_no_string_prefix() {
        assert!(matches("s4://in/a", "in/a/x"));
        assert!(matches("s4://in/a/", "in/a/b/x"));
        assert!(!matches("s4://in/a", "in/ab/x"));
    }

    #[test]
    fn a_directory_overlaps_if_it_is_in_a_match_or_may_hold_one() {
        let overlaps = |pattern: &str, dir: &str| {
            Pattern::parse_url(pattern).unwrap().overlaps(&Dir::try_from(dir.to_owned()).unwrap())
        };
        for (pattern, dir) in [
            ("s4://in", "in"),
            ("s4://in/a", "in"),
            ("s4://in", "in/a/b"),
            ("s4://in/*", "in/out"),
            ("s4://*/x", "out"),
            ("s4://cols/*/*_4", "cols/a/x_4/b"),
            ("s4://cols/*/*_4", "cols/a"),
        ] {
            assert!(overlaps(pattern, dir), "{pattern} {dir}");
        }
        for (pattern, dir) in [
            ("s4://in", "inner"),
            ("s4://in/a", "in/b"),
            ("s4://cols/*_4", "cols/out"),
            ("s4://in/*", "out"),
            ("s4://*/x", "out/y"),
        ] {
            assert!(!overlaps(pattern, dir), "{pattern} {dir}");
        }
    }

    #[test]
    fn outputs_are_named_below_the_first_pattern_part() {
        let below =
            |pattern: &str, key: &str| Pattern::parse_url(pattern).unwrap().below(&Key::parse(key).unwrap()).to_owned();
        assert_eq!(below("s4://in/d", "in/d/x/y"), "x/y");
        assert_eq!(below("s4://cols/*/*_4", "cols/a/x_4"), "a/x_4");
        assert_eq!(below("s4://*/x", "in/x/y"), "in/x/y");
    }
}
