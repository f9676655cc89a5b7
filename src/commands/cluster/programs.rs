//! The programs of this machine, which lie beside `s4`, and how they come to hosts.

use super::facts::Facts;
use super::ssh::Host;
use super::steps::script;
use crate::commands::programs::program;
use s4::error::{Error, ErrorKind, Result, reason};
use std::collections::BTreeMap;
use std::fs::File;
use std::io::Write;
use std::path::PathBuf;
use std::process::{Command, Stdio};

/// The programs; the last is installed if it is there.
const NAMES: [&str; 4] = ["s4", "s4-server", "s4-mount", "s4-s3"];

/// Programs with their paths and checksums.
pub struct Programs {
    paths: BTreeMap<String, PathBuf>,
    pub sums: BTreeMap<String, String>,
}

impl Programs {
    pub fn find() -> Result<Self> {
        let mut paths = BTreeMap::new();
        for name in NAMES {
            let path = if name == "s4" { std::env::current_exe().ok() } else { Some(program(name)) };
            match path.filter(|path| path.is_file()) {
                Some(path) => drop(paths.insert(name.to_owned(), path)),
                None if name == "s4-s3" => {}
                None => {
                    return Err(Error::new(
                        ErrorKind::NotFound,
                        format!("{name} is not beside s4, and cannot be installed"),
                    ));
                }
            }
        }
        let sums = paths.iter().map(|(name, path)| {
            let file = File::open(path).map_err(|e| Error::io(path.display(), &e))?;
            Ok((name.clone(), sum(Stdio::from(file), b"")?))
        });
        let sums = sums.collect::<Result<_>>()?;
        Ok(Self { paths, sums })
    }

    /// Makes the directory of new programs on a host, and copies some into it.
    pub fn stage(
        &self,
        host: &Host,
        facts: &Facts,
        data: Option<&str>,
        names: &[String],
    ) -> std::result::Result<(), String> {
        host.run(&script(data, "stage"))?;
        for (name, path) in names.iter().filter_map(|name| Some((name, self.paths.get(name)?))) {
            let file = File::open(path).map_err(|e| format!("{}: {}", path.display(), reason(&e)))?;
            host.write(&format!("{}/{name}", new_dir(facts)), file, "755")?;
        }
        Ok(())
    }
}

/// The directory of new programs on a host.
pub fn new_dir(facts: &Facts) -> String {
    format!("{}/.s4-new", facts.bin)
}

/// The SHA-256 of a text, as `sha256sum` prints it: hosts compute the same.
pub fn sum_of(text: &str) -> Result<String> {
    sum(Stdio::piped(), text.as_bytes())
}

fn sum(stdin: Stdio, text: &[u8]) -> Result<String> {
    let failed = |e: std::io::Error| Error::io("sha256sum", &e);
    let mut child = Command::new("sha256sum").stdin(stdin).stdout(Stdio::piped()).spawn().map_err(failed)?;
    if let Some(mut stdin) = child.stdin.take() {
        stdin.write_all(text).map_err(failed)?;
    }
    let output = child.wait_with_output().map_err(failed)?;
    let text = String::from_utf8_lossy(&output.stdout);
    match text.split_whitespace().next().filter(|sum| sum.len() == 64) {
        Some(sum) => Ok(sum.to_owned()),
        None => Err(Error::new(ErrorKind::Io, "sha256sum printed no checksum")),
    }
}
