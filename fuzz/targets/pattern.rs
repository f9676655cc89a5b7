//! INDIR of a map, and the keys that it matches.

#![no_main]

use libfuzzer_sys::fuzz_target;
use s4::key::{Dir, Key};
use s4::pattern::Pattern;

fuzz_target!(|input: (&str, &str)| {
    let (Ok(pattern), Ok(key)) = (Pattern::try_from(input.0.to_owned()), Key::parse(input.1)) else { return };
    assert_eq!(Pattern::try_from(String::from(pattern.clone())).as_ref(), Ok(&pattern));
    if pattern.matches(&key) {
        let parent = Dir::try_from(key.parent().to_owned()).expect("a key lies in a directory");
        assert!(pattern.may_hold(parent.as_str()) && pattern.overlaps(&parent));
    }
});
