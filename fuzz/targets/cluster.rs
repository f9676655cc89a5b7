//! The cluster file.

#![no_main]

use libfuzzer_sys::fuzz_target;
use s4::cluster::Cluster;
use std::path::Path;

fuzz_target!(|text: &str| {
    match Cluster::parse(text, Path::new("conf")) {
        Ok(cluster) => {
            let again =
                Cluster::parse(&cluster.lines().join("\n"), Path::new("conf")).expect("it reads as it is shown");
            assert_eq!(again.digest(), cluster.digest());
        }
        Err(error) => assert!(!error.to_string().contains(char::is_control), "{error:?}"),
    }
});
