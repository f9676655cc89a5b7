//! The shared secret that daemons may ask for.

use crate::cluster;
use crate::error::{Error, ErrorKind, Result};
use hyper::header::HeaderValue;
use std::path::{Path, PathBuf};

/// The shared secret that daemons may ask for.
#[derive(Clone)]
pub struct Secret(HeaderValue);

impl Secret {
    /// The secret in the file `given`, else in the file [beside](Secret::beside) the cluster file, if that exists.
    pub fn find(given: Option<&Path>, conf: Option<&Path>) -> Result<Option<Self>> {
        if let Some(given) = given {
            return Self::read(given).map(Some);
        }
        let own = Self::beside(&cluster::conf_path(conf)?);
        match own.symlink_metadata() {
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(None),
            _ => Self::read(&own).map(Some),
        }
    }

    /// The path of the secret of the cluster file `conf`: the same path with `.secret` appended.
    pub fn beside(conf: &Path) -> PathBuf {
        let mut path = conf.as_os_str().to_owned();
        path.push(".secret");
        path.into()
    }

    /// The text that is sent.
    pub fn as_text(&self) -> &str {
        self.0.to_str().unwrap_or_default()
    }

    /// The first line of the file at `path`.
    pub fn read(path: &Path) -> Result<Self> {
        let shown = path.display();
        let refuse = |why: &str| Error::new(ErrorKind::Config, format!("{shown}: {why}"));
        let text = std::fs::read_to_string(path).map_err(|e| refuse(&crate::error::reason(&e)))?;
        Self::parse(&text).map_err(refuse)
    }

    /// The first line of a text. The error says why that is no secret.
    pub fn parse(text: &str) -> std::result::Result<Self, &'static str> {
        let line = text.lines().next().unwrap_or("").trim();
        if line.len() < 16 {
            return Err("a secret is at least 16 characters");
        }
        let mut value = HeaderValue::from_str(line).map_err(|_| "a secret is printable ASCII")?;
        value.set_sensitive(true);
        Ok(Self(value))
    }

    /// The value of the HTTP header.
    pub(super) fn header(&self) -> &HeaderValue {
        &self.0
    }

    /// Compares in constant time, which does not depend on where the two differ.
    pub fn matches(&self, given: &HeaderValue) -> bool {
        let (ours, theirs) = (self.0.as_bytes(), given.as_bytes());
        let differing = ours.iter().zip(theirs).fold(0, |all, (a, b)| all | (a ^ b));
        ours.len() == theirs.len() && differing == 0
    }
}
