//! A page of a listing, as a server writes it.

use super::failure::{Failure, Reason};
use super::xml::{self, ListXml, ObjectXml};

/// A listed object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listed {
    pub key: String,
    pub etag: String,
    pub len: u64,
}

/// Up to 1,000 objects, in the order of their keys.
#[derive(Debug)]
pub struct Page {
    pub objects: Vec<Listed>,
    /// What the next page is asked with; `None` after the last.
    pub next: Option<String>,
}

impl Page {
    /// Errors: it was cut or garbled on the way, has a key that is not UTF-8, or does not say how it goes on.
    pub fn parse(text: &[u8]) -> Result<Self, Failure> {
        let list: ListXml = xml::parse(text)?;
        let encoding = list.encoding_type.as_deref();
        let object = |object: ObjectXml| {
            Ok(Listed { key: xml::decoded(&object.key, encoding)?, etag: object.etag, len: object.size })
        };
        let objects = list.contents.into_iter().map(object).collect::<Result<_, Failure>>()?;
        match (list.is_truncated, list.next_continuation_token) {
            (true, None) => {
                Err(Failure::new(Reason::Broken, "a page of the listing does not say where the next begins"))
            }
            (true, next) => Ok(Self { objects, next }),
            (false, _) => Ok(Self { objects, next: None }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
    use proptest::collection::vec;
    use proptest::prelude::*;

    /// A page as servers write it.
    fn written(objects: &[Listed], next: Option<&str>, is_encoded: bool) -> String {
        let encoding = if is_encoded { "<EncodingType>url</EncodingType>" } else { "" };
        let mut text = format!("<?xml version=\"1.0\"?><ListBucketResult xmlns=\"x\">{encoding}");
        for Listed { key, etag, len } in objects {
            let key = match is_encoded {
                true => utf8_percent_encode(key, NON_ALPHANUMERIC).to_string().replace("%20", "+"),
                false => xml::escaped(key),
            };
            let etag = xml::escaped(etag);
            text += &format!("<Contents><Key>{key}</Key><ETag>{etag}</ETag><Size>{len}</Size></Contents>");
        }
        text += &format!("<IsTruncated>{}</IsTruncated>", next.is_some());
        text += &next.map_or(String::new(), |next| {
            format!("<NextContinuationToken>{}</NextContinuationToken>", xml::escaped(next))
        });
        text + "</ListBucketResult>"
    }

    /// Spaces at its ends are not of a text of XML, so servers encode names.
    fn objects() -> impl Strategy<Value = Vec<Listed>> {
        let object = ("\\PC{1,12}", "\"[0-9a-f-]{0,8}\"", any::<u64>());
        vec(object.prop_map(|(key, etag, len)| Listed { key, etag, len }), 0..5)
    }

    proptest! {
        #[test]
        fn a_page_is_read_as_it_was_written(objects in objects(), next in proptest::option::of("[!-~]{1,9}")) {
            let page = Page::parse(written(&objects, next.as_deref(), true).as_bytes()).unwrap();
            prop_assert_eq!((page.objects, page.next), (objects, next));
        }

        #[test]
        fn a_page_that_is_damaged_is_a_page_or_an_error_of_one_line(
            objects in objects(), next in proptest::option::of("[!-~]{1,9}"), is_encoded: bool, cut: u16, at: u16, byte: u8,
        ) {
            let mut text = written(&objects, next.as_deref(), is_encoded).into_bytes();
            let len = text.len();
            text[at as usize % len] = byte;
            text.truncate(cut as usize % (len + 1));
            if let Err(failure) = Page::parse(&text) {
                prop_assert!(!failure.to_string().contains(char::is_control), "{failure}");
            }
        }
    }

    #[test]
    fn a_page_says_how_it_goes_on() {
        let failure = Page::parse(b"<R><IsTruncated>true</IsTruncated></R>").unwrap_err();
        assert!(failure.is_transient() && failure.to_string().contains("where the next begins"));
        assert!(Page::parse(b"<R><EncodingType>url</EncodingType><Contents><Key>%ff</Key></Contents></R>").is_err());
    }
}
