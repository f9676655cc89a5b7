//! `--to-name`: the template for the names of a 1:1 map's outputs.

use serde::{Deserialize, Serialize};
use std::fmt;

/// Placeholders for parts of the input's path below INDIR. Longest first.
const MARKS: [(&str, Part); 4] = [
    ("{/.}", Part { basename: true, extension: false }),
    ("{/}", Part { basename: true, extension: true }),
    ("{.}", Part { basename: false, extension: false }),
    ("{}", Part { basename: false, extension: true }),
];

/// A part of a path: of the whole path or the basename alone, with or without the extension.
#[derive(Clone, Copy)]
struct Part {
    basename: bool,
    extension: bool,
}

impl Part {
    fn of(self, path: &str) -> &str {
        let name = path.rfind('/').map_or(0, |slash| slash + 1);
        let end = match path[name..].rfind('.') {
            // A leading dot begins no extension.
            Some(dot) if dot > 0 && !self.extension => name + dot,
            _ => path.len(),
        };
        &path[if self.basename { name } else { 0 }..end]
    }
}

/// A template for the name of an output below OUTDIR, with placeholders for parts of the input's path.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct NameTemplate(String);

/// Bytes of a template: no part of a key's path is longer.
const MAX_NAME: usize = 255;

impl NameTemplate {
    /// Errors: an unknown placeholder, or none, so that all outputs would have the same name.
    pub fn parse(text: &str) -> Result<Self, String> {
        // A job comes over the wire: what a name is expanded to stays small.
        if text.len() > MAX_NAME {
            return Err(format!("longer than {MAX_NAME} bytes, as no name of a key is"));
        }
        let (mut rest, mut found) = (text, false);
        while let Some(at) = rest.find('{') {
            rest = &rest[at..];
            let Some((mark, _)) = MARKS.iter().find(|(mark, _)| rest.starts_with(mark)) else {
                return Err(
                    "in braces stand {/} (basename), {/.} (without its extension), {} or {.} (path below INDIR)"
                        .to_owned(),
                );
            };
            (rest, found) = (&rest[mark.len()..], true);
        }
        match found {
            true => Ok(Self(text.to_owned())),
            false => Err("all outputs would have this name; {/} stands for the input's basename, {/.} for it without its extension".to_owned()),
        }
    }

    /// The name for the input whose path below INDIR is `path`.
    pub fn apply(&self, path: &str) -> String {
        let (mut name, mut rest) = (String::new(), self.0.as_str());
        while let Some(at) = rest.find('{') {
            name.push_str(&rest[..at]);
            rest = &rest[at..];
            let Some((mark, part)) = MARKS.iter().find(|(mark, _)| rest.starts_with(mark)) else {
                break;
            };
            name.push_str(part.of(path));
            rest = &rest[mark.len()..];
        }
        name + rest
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for NameTemplate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl TryFrom<String> for NameTemplate {
    type Error = String;
    fn try_from(text: String) -> Result<Self, String> {
        Self::parse(&text)
    }
}

impl From<NameTemplate> for String {
    fn from(template: NameTemplate) -> Self {
        template.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_template_that_no_name_is_as_long_as_is_refused() {
        assert!(NameTemplate::parse(&"{}".repeat(127)).is_ok());
        assert!(NameTemplate::parse(&"{}".repeat(128)).is_err());
    }

    #[test]
    fn each_mark_is_a_part_of_the_path() {
        for (template, path, name) in [
            ("{/}", "d/0_a.csv", "0_a.csv"),
            ("{/.}.txt", "d/0_a.csv", "0_a.txt"),
            ("{}.gz", "d/0_a.csv", "d/0_a.csv.gz"),
            ("{.}", "d.x/0_a.tar.gz", "d.x/0_a.tar"),
            ("{.}", "d.x/0_a", "d.x/0_a"),
            ("{/.}", ".hidden", ".hidden"),
            ("x/{/.}_{/}", "a.b", "x/a_a.b"),
        ] {
            assert_eq!(NameTemplate::parse(template).unwrap().apply(path), name, "{template} {path}");
        }
    }

    #[test]
    fn other_braces_and_a_fixed_name_are_refused() {
        for wrong in ["", "name", "{", "{x}", "{/}{//}", "a}b", "{{/}}"] {
            assert!(NameTemplate::parse(wrong).is_err(), "{wrong}");
        }
        assert!(serde_json::from_str::<NameTemplate>("\"{x}\"").is_err());
    }
}
