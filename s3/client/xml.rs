//! The XML of S3: what is read of it. Answers of unknown servers are parsed, so every field may be missing.

use super::failure::{Failure, Reason};
use quick_xml::de::from_reader;
use serde::Deserialize;
use serde::de::DeserializeOwned;

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct ErrorXml {
    pub code: String,
    pub message: String,
    pub region: String,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct ListXml {
    pub contents: Vec<ObjectXml>,
    pub is_truncated: bool,
    pub next_continuation_token: Option<String>,
    pub encoding_type: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct ObjectXml {
    pub key: String,
    #[serde(rename = "ETag")]
    pub etag: String,
    pub size: u64,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct CreatedXml {
    pub upload_id: String,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct UploadsXml {
    pub upload: Vec<UploadXml>,
    pub is_truncated: bool,
    pub next_key_marker: Option<String>,
    pub next_upload_id_marker: Option<String>,
    pub encoding_type: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct UploadXml {
    pub key: String,
    pub upload_id: String,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct PartsXml {
    pub part: Vec<PartXml>,
    pub is_truncated: bool,
    pub next_part_number_marker: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct PartXml {
    pub part_number: u32,
    #[serde(rename = "ETag")]
    pub etag: String,
    pub size: u64,
}

/// Parses a whole answer.
pub fn parse<T: DeserializeOwned>(text: &[u8]) -> Result<T, Failure> {
    from_reader(text).map_err(|e| Failure::new(Reason::Broken, format!("malformed answer: {e}")))
}

/// The error that a text is; `None` if it is something else.
pub fn error(text: &[u8]) -> Option<ErrorXml> {
    parse::<ErrorXml>(text).ok().filter(|error| !error.code.is_empty())
}

/// A key as it was before `encoding-type=url`, if the answer says that it is so encoded.
pub fn decoded(key: &str, encoding: Option<&str>) -> Result<String, Failure> {
    if encoding != Some("url") {
        return Ok(key.to_owned());
    }
    let spaced = key.replace('+', " ");
    let bytes = percent_encoding::percent_decode_str(&spaced).decode_utf8();
    bytes.map(|key| key.into_owned()).map_err(|_| Failure::new(Reason::Other, format!("the key {key} is not UTF-8")))
}

/// For the text of an element.
pub fn escaped(text: &str) -> String {
    quick_xml::escape::escape(text).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_listing_is_read_with_what_it_has() {
        let text = br#"<?xml version="1.0"?><ListBucketResult xmlns="http://s3.amazonaws.com/doc/2006-03-01/"><Name>b</Name>
            <EncodingType>url</EncodingType><IsTruncated>true</IsTruncated><NextContinuationToken>t=</NextContinuationToken>
            <Contents><Key>a%2F%2Fb+c%252F</Key><ETag>&quot;x&quot;</ETag><Size>7</Size><Owner><ID>o</ID></Owner></Contents>
            <Contents><Key>c</Key></Contents></ListBucketResult>"#;
        let list: ListXml = parse(text).unwrap();
        assert!(list.is_truncated && list.next_continuation_token.as_deref() == Some("t="));
        assert_eq!(decoded(&list.contents[0].key, list.encoding_type.as_deref()).unwrap(), "a//b c%2F");
        assert_eq!((&*list.contents[0].etag, list.contents[0].size, list.contents[1].size), ("\"x\"", 7, 0));
    }

    #[test]
    fn an_error_is_told_from_everything_else() {
        let text =
            b"<Error><Code>SlowDown</Code><Message>Please &amp; thanks</Message><RequestId>1</RequestId></Error>";
        let found = error(text).unwrap();
        assert_eq!((&*found.code, &*found.message), ("SlowDown", "Please & thanks"));
        for text in [&b"<html><body>502</body></html>"[..], b"", b"no", b"<CompleteMultipartUploadResult/>"] {
            assert!(error(text).is_none());
        }
    }
}
