//! The names of the files. Each begins with the number of the bucket. In a cluster, this number modulo the number of
//! nodes is the node.

use crate::error::{Error, Result};
use crate::key::Key;

/// `{}` in a template.
const NUMBER: &str = "{}";

/// A template for names, as typed by users: `{}`, or `{}_text`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Names {
    /// The text after the number: empty, or `_` and more.
    suffix: String,
}

impl Names {
    pub fn parse(template: &str) -> Result<Self> {
        let wrong = |why: &str| Err(Error::usage(format!("--names {template}: {why}")));
        let Some(suffix) = template.strip_prefix(NUMBER) else {
            return wrong("a name begins with the bucket's number: write {} or {}_text");
        };
        if !suffix.is_empty() && !suffix.starts_with('_') {
            return wrong("the number alone chooses the node, and it ends at a _: write {} or {}_text");
        }
        if suffix.contains(['{', '}', '/']) {
            return wrong("after {} comes plain text without braces and slashes; the input's name is \"{}_$filename\"");
        }
        // The longest number of a bucket.
        Key::parse(&format!("bucket/00000{suffix}"))?;
        Ok(Self { suffix: suffix.to_owned() })
    }

    /// The name for a bucket. The number is padded to `width` digits.
    pub fn of(&self, bucket: usize, width: usize) -> String {
        format!("{bucket:0width$}{}", self.suffix)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::placement::node_of_basename;

    #[test]
    fn a_bucket_is_on_the_node_of_its_number() {
        for template in ["{}", "{}_part.csv", "{}_"] {
            let names = Names::parse(template).expect("a template");
            for (bucket, nodes) in [(0, 3), (7, 3), (95, 12)] {
                assert_eq!(node_of_basename(&names.of(bucket, 2), nodes), bucket % nodes);
            }
        }
    }

    #[test]
    fn a_template_that_would_hide_the_number_is_refused() {
        for template in ["", "part", "part_{}", "{}.csv", "{}x", "{}_a/b", "{}_{}", "{}_{filename}", "{}_a b"] {
            assert!(Names::parse(template).is_err(), "{template}");
        }
        assert!(Names::parse(&format!("{{}}_{}", "x".repeat(250))).is_err());
    }
}
