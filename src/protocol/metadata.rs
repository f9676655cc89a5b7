//! What is kept with a key besides its bytes, mode and time: its content type, names and values of its user, and the
//! object that it was copied from. s4 itself does not use it. It is stored as JSON, sent as JSON, and shown as headers
//! to those who read a key over HTTP. Every value fits into a header, and all together into [`MAX_METADATA`] bytes.

use crate::bounds::one_line;
use crate::error::{Error, ErrorKind, Result};
use hyper::header::{CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// The most bytes of a key's metadata, as JSON. With it, the checksums of a key's parts still fit beside it on ext4,
/// which has one block of 4 KiB for all attributes of a file.
pub const MAX_METADATA: usize = 2048;

/// Begins the name of a header with a value of the user.
const USER_HEADER: &str = "s4-meta-";
/// The header of the object that a key was copied from: its ETag, a space, and its length.
const SOURCE_HEADER: &str = "s4-source";

/// The metadata of a key. The default has nothing, and is not stored.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Fields", into = "Fields")]
pub struct Metadata(Fields);

/// The object that a key was copied from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SourceObject {
    pub etag: String,
    pub len: u64,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Fields {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    content_type: Option<String>,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    user: BTreeMap<String, String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    source: Option<SourceObject>,
}

impl Metadata {
    /// `user`: names in lower case, as headers have them after a prefix, and their values. Errors: a name or value that
    /// no header can have, or more than [`MAX_METADATA`] bytes.
    pub fn new(
        content_type: Option<String>,
        user: BTreeMap<String, String>,
        source: Option<SourceObject>,
    ) -> Result<Self> {
        Self::try_from(Fields { content_type, user, source })
    }

    pub fn content_type(&self) -> Option<&str> {
        self.0.content_type.as_deref()
    }

    /// The user's values by their names.
    pub fn user(&self) -> &BTreeMap<String, String> {
        &self.0.user
    }

    /// The object that the key was copied from.
    pub fn source(&self) -> Option<&SourceObject> {
        self.0.source.as_ref()
    }

    pub fn is_empty(&self) -> bool {
        self.0 == Fields::default()
    }

    /// As JSON, with its fields in a fixed order.
    pub fn encode(&self) -> String {
        self.0.encode()
    }

    pub fn decode(json: &[u8]) -> Result<Self> {
        let refused = |why: String| Error::new(ErrorKind::BadRequest, one_line(format!("malformed metadata: {why}")));
        serde_json::from_slice(json).map_err(|e| refused(e.to_string()))
    }

    /// The metadata in the headers of a put.
    pub fn from_headers(headers: &HeaderMap) -> Result<Self> {
        let mut fields = Fields::default();
        for (name, value) in headers {
            let name = name.as_str();
            let user = name.strip_prefix(USER_HEADER);
            if user.is_none() && name != SOURCE_HEADER && name != CONTENT_TYPE {
                continue;
            }
            let text = std::str::from_utf8(value.as_bytes()).map_err(|_| refused(&format!("{name} is not UTF-8")))?;
            match user {
                // As HTTP combines headers of one name.
                Some(user) => match fields.user.get_mut(user) {
                    Some(values) => *values = format!("{values}, {text}"),
                    None => _ = fields.user.insert(user.to_owned(), text.to_owned()),
                },
                None if name == CONTENT_TYPE => fields.content_type = Some(text.to_owned()),
                None => fields.source = Some(source_of(text)?),
            }
        }
        Self::try_from(fields)
    }

    /// Adds it to headers, which may have another content type.
    pub fn add_to(&self, headers: &mut HeaderMap) {
        let mut add = |name: HeaderName, text: &str| {
            // What was checked is always a valid value.
            HeaderValue::from_bytes(text.as_bytes()).ok().and_then(|value| headers.insert(name, value))
        };
        self.content_type().and_then(|text| add(CONTENT_TYPE, text));
        for (name, text) in self.user() {
            HeaderName::try_from(format!("{USER_HEADER}{name}")).ok().and_then(|name| add(name, text));
        }
        if let Some(SourceObject { etag, len }) = self.source() {
            add(HeaderName::from_static(SOURCE_HEADER), &format!("{etag} {len}"));
        }
    }
}

impl Fields {
    fn encode(&self) -> String {
        serde_json::to_string(self).expect("texts and numbers are plain JSON")
    }

    fn check(&self) -> Result<()> {
        for name in self.user.keys() {
            // A valid name of a header is short and in ASCII.
            let is_name = HeaderName::try_from(format!("{USER_HEADER}{name}")).is_ok() && !name.is_empty();
            if !is_name || name.contains(|c: char| c.is_ascii_uppercase()) {
                return Err(refused(&format!("'{}' is no name of a header in lower case", name.escape_debug())));
            }
        }
        let etag = self.source.iter().map(|source| ("the source's ETag", &source.etag));
        let content_type = self.content_type.iter().map(|text| ("the content type", text));
        let values = self.user.iter().map(|(name, text)| (name.as_str(), text));
        if let Some((name, _)) = etag.chain(content_type).chain(values).find(|(_, text)| !is_value(text)) {
            return Err(refused(&format!("{name} has a control character, or begins or ends with a space")));
        }
        match self.encode().len() {
            ..=MAX_METADATA => Ok(()),
            len => Err(Error::new(
                ErrorKind::TooLarge,
                format!("the metadata of a key has at most {MAX_METADATA} bytes of JSON, not {len}"),
            )),
        }
    }
}

impl TryFrom<Fields> for Metadata {
    type Error = Error;

    fn try_from(fields: Fields) -> Result<Self> {
        fields.check().map(|()| Self(fields))
    }
}

impl From<Metadata> for Fields {
    fn from(metadata: Metadata) -> Self {
        metadata.0
    }
}

/// True for a text that a header can have, and that is the same after it was sent as one.
fn is_value(text: &str) -> bool {
    // Only these are trimmed: other spaces are characters like any other to HTTP.
    !text.starts_with(' ') && !text.ends_with(' ') && !text.bytes().any(|byte| byte < b' ' || byte == 0x7f)
}

fn source_of(text: &str) -> Result<SourceObject> {
    let parsed = text.rsplit_once(' ').and_then(|(etag, len)| Some((etag, len.parse().ok()?)));
    parsed
        .map(|(etag, len)| SourceObject { etag: etag.to_owned(), len })
        .ok_or_else(|| refused(&format!("{SOURCE_HEADER} is not an ETag, a space and a length")))
}

fn refused(why: &str) -> Error {
    Error::new(ErrorKind::BadRequest, format!("metadata: {why}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn fields() -> impl Strategy<Value = Fields> {
        let text = "[ -~\\PC]{0,12}";
        let source = (text, any::<u64>()).prop_map(|(etag, len)| SourceObject { etag, len });
        let user = proptest::collection::btree_map("[a-z0-9._!-]{1,8}|[A-Za-z /\u{e4}]{0,4}", text, 0..4);
        let content_type = proptest::option::of(text);
        (content_type, user, proptest::option::of(source)).prop_map(|(content_type, user, source)| Fields {
            content_type,
            user,
            source,
        })
    }

    proptest! {
        #[test]
        fn metadata_is_the_same_after_json_and_after_headers(fields in fields()) {
            if let Ok(metadata) = Metadata::try_from(fields) {
                prop_assert_eq!(&Metadata::decode(metadata.encode().as_bytes()).unwrap(), &metadata);
                let mut headers = HeaderMap::new();
                metadata.add_to(&mut headers);
                prop_assert_eq!(Metadata::from_headers(&headers).unwrap(), metadata);
            }
        }

        #[test]
        fn any_json_is_metadata_or_an_error_of_one_line(
            json in "\\{(\"(content_type|user|source|x)\":(\"\\PC{0,4}\"|\\{(\"[a-zA-Z]{0,3}\":(\"[a-z\\\\nt]{0,4}\"|1))?\\}|null),?){0,3}\\}",
        ) {
            if let Err(error) = Metadata::decode(json.as_bytes()) {
                prop_assert!(!error.to_string().contains(char::is_control), "{error:?}");
            }
        }
    }

    fn user(name: &str, value: &str) -> Result<Metadata> {
        Metadata::new(None, BTreeMap::from([(name.to_owned(), value.to_owned())]), None)
    }

    #[test]
    fn metadata_looks_as_documented() {
        let source = SourceObject { etag: "\"ab-2\"".into(), len: 5 };
        let user = BTreeMap::from([("color".to_owned(), "gr\u{fc}n".to_owned())]);
        let metadata = Metadata::new(Some("text/csv".into()), user, Some(source)).expect("metadata");
        let json = "{\"content_type\":\"text/csv\",\"user\":{\"color\":\"gr\u{fc}n\"},\"source\":{\"etag\":\"\\\"ab-2\\\"\",\"len\":5}}";
        assert_eq!(metadata.encode(), json);
        assert_eq!(Metadata::default().encode(), "{}");
    }

    #[test]
    fn what_no_header_can_have_or_is_too_long_is_refused() {
        for (name, value) in
            [("", "x"), ("A", "x"), ("a b", "x"), ("\u{e4}", "x"), ("a", "x\ny"), ("a", " x"), ("a", "\u{7f}")]
        {
            assert_eq!(user(name, value).unwrap_err().kind(), ErrorKind::BadRequest, "{name:?}: {value:?}");
        }
        let empty = user("a", "").expect("an empty value is one").encode().len();
        let most = user("a", &"x".repeat(MAX_METADATA - empty)).expect("as long as it may be");
        assert_eq!(most.encode().len(), MAX_METADATA);
        let refused = user("a", &"x".repeat(MAX_METADATA - empty + 1)).unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::TooLarge);
        let json = format!("{{\"user\":{{\"a\":\"{}\"}}}}", "x".repeat(MAX_METADATA));
        assert!(Metadata::decode(json.as_bytes()).is_err(), "a peer cannot send more either");
    }
}
