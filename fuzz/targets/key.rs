//! Names: keys, directories and prefixes.

#![no_main]

use libfuzzer_sys::fuzz_target;
use s4::key::{Dir, Key, Prefix};

fuzz_target!(|text: &str| {
    if let Ok(key) = Key::parse(text) {
        assert!(text.split('/').all(|part| !matches!(part, "" | "." | "..")));
        assert!(!text.contains(|c: char| c.is_whitespace() || c.is_control()));
        assert_eq!(Key::parse_url(&key.to_string()).as_ref(), Ok(&key));
        assert_eq!([key.merge_name(), key.merge_suffix()].concat(), key.basename());
    }
    if let Ok(dir) = Dir::try_from(text.to_owned()) {
        assert_eq!(Dir::parse_url(&dir.to_string()), Ok(dir));
    }
    if let Ok(prefix) = Prefix::parse(text) {
        assert!(text.starts_with(prefix.split().0) && text.ends_with(prefix.split().1));
    }
});
