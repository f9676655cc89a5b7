//! `--exclude GLOB`: the files and keys that a copy skips.

use glob::MatchOptions;
use s4::error::{Error, Result};

/// No wildcard matches a `/`, except `**` as a whole part.
const OPTIONS: MatchOptions =
    MatchOptions { case_sensitive: true, require_literal_separator: true, require_literal_leading_dot: false };

/// The patterns. One with a `/` is compared with paths below the source, any other with basenames.
#[derive(Debug, Clone, Default)]
pub struct Exclude(Vec<glob::Pattern>);

impl Exclude {
    pub fn parse(globs: &[String]) -> Result<Self> {
        let parse = |text: &String| {
            let below = text.trim_start_matches('/');
            // A pattern that begins with a slash is compared with paths.
            let anchored =
                if below.len() < text.len() && !below.contains('/') { format!("./{below}") } else { below.to_owned() };
            glob::Pattern::new(&anchored).map_err(|e| Error::usage(format!("--exclude '{text}': {}", e.msg)))
        };
        globs.iter().map(parse).collect::<Result<_>>().map(Self)
    }

    /// True if a pattern matches the file or directory at `below`, a path below the source.
    pub fn matches(&self, below: &str) -> bool {
        let basename = below.rsplit_once('/').map_or(below, |(_, name)| name);
        self.0.iter().any(|glob| match (glob.as_str().strip_prefix("./"), glob.as_str().contains('/')) {
            (Some(_), _) => glob.matches_with(&format!("./{below}"), OPTIONS),
            (None, true) => glob.matches_with(below, OPTIONS),
            (None, false) => glob.matches_with(basename, OPTIONS),
        })
    }

    /// True if a pattern matches `below` or a directory that contains it.
    pub fn leaves_out(&self, below: &str) -> bool {
        let ends = below.match_indices('/').map(|(at, _)| at).chain([below.len()]);
        !self.0.is_empty() && ends.into_iter().any(|end| self.matches(&below[..end]))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn leaves_out(glob: &str, below: &str) -> bool {
        Exclude::parse(&[glob.to_owned()]).unwrap().leaves_out(below)
    }

    #[test]
    fn a_glob_without_a_slash_is_for_basenames() {
        assert!(leaves_out("*.tmp", "a/b/x.tmp") && leaves_out("*.tmp", "x.tmp"));
        assert!(!leaves_out("*.tmp", "a/x.tmp.csv"));
        assert!(leaves_out(".git", "a/.git/config"), "a directory takes all in it along");
        assert!(leaves_out("[a-c]?", "b1"));
    }

    #[test]
    fn a_glob_with_a_slash_is_for_paths_below_the_source() {
        assert!(leaves_out("a/*.tmp", "a/x.tmp"));
        assert!(!leaves_out("a/*.tmp", "a/b/x.tmp") && !leaves_out("a/*.tmp", "b/a/x.tmp"));
        assert!(leaves_out("a/**/*.tmp", "a/b/c/x.tmp"));
        assert!(leaves_out("a/b", "a/b/c"));
        assert!(leaves_out("/a", "a/x") && !leaves_out("/a", "b/a"));
    }

    #[test]
    fn a_bad_glob_is_an_error_and_no_glob_excludes_nothing() {
        assert!(Exclude::parse(&["a[".to_owned()]).unwrap_err().to_string().contains("a["));
        assert!(!Exclude::default().leaves_out("a"));
    }
}
