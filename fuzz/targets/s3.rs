//! What a server of S3 answers. The client is part of a program and no library: its parsers are included as files.

#![no_main]

use libfuzzer_sys::fuzz_target;
use page::Page;

#[allow(dead_code)]
#[path = "../../s3/client/failure.rs"]
mod failure;
#[allow(dead_code)]
#[path = "../../s3/client/page.rs"]
mod page;
#[allow(dead_code)]
#[path = "../../s3/client/xml.rs"]
mod xml;

fuzz_target!(|text: &[u8]| {
    match Page::parse(text) {
        Ok(page) => assert!(page.objects.len() <= text.len()),
        Err(failure) => assert!(!failure.to_string().contains(char::is_control)),
    }
    if let Some(error) = xml::error(text) {
        let failure = failure::Failure::of_answer(403, &error.code, &error.message);
        assert!(!failure.about("s3://b/k").to_string().contains(char::is_control));
    }
    let _ = xml::parse::<xml::CreatedXml>(text);
    let _ = xml::parse::<xml::UploadsXml>(text);
    let _ = xml::parse::<xml::PartsXml>(text);
});
