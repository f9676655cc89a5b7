//! `--file`: local files that travel with a job.

use bytes::Bytes;
use s4::checksum::Digest;
use s4::client::{Client, blocking};
use s4::error::{Error, Result};
use s4::protocol::JobFile;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

/// A file that is there and may be sent.
pub struct LocalFile {
    path: PathBuf,
    name: String,
    executable: bool,
}

/// Checks all files before anything is done with one of them.
pub fn find(paths: &[PathBuf]) -> Result<Vec<LocalFile>> {
    let mut files: Vec<LocalFile> = Vec::new();
    for path in paths {
        let file = LocalFile::new(path)?;
        if let Some(other) = files.iter().find(|other| other.name == file.name) {
            let (one, two) = (other.path.display(), path.display());
            return Err(Error::usage(format!("--file: {one} and {two} would both be '{}'", file.name)));
        }
        files.push(file);
    }
    Ok(files)
}

impl LocalFile {
    fn new(path: &Path) -> Result<Self> {
        let shown = format!("--file {}", path.display());
        let found = std::fs::metadata(path).map_err(|e| Error::io(&shown, &e))?;
        if !found.is_file() {
            let what =
                if found.is_dir() { "it is a directory; send a tar archive of it" } else { "it is no plain file" };
            return Err(Error::usage(format!("{shown}: {what}")));
        }
        let name = path.file_name().and_then(|name| name.to_str());
        let name = name.ok_or_else(|| Error::usage(format!("{shown}: its name is not UTF-8")))?;
        let executable = found.permissions().mode() & 0o111 != 0;
        Ok(Self { path: path.to_owned(), name: name.to_owned(), executable })
    }

    /// Reads it whole. Blocks.
    pub fn read(self) -> Result<(JobFile, Bytes)> {
        let content =
            std::fs::read(&self.path).map_err(|e| Error::io(format!("--file {}", self.path.display()), &e))?;
        let mut digest = Digest::default();
        digest.update(&content);
        let (digest, len) = (digest.to_string(), content.len() as u64);
        Ok((JobFile { name: self.name, digest, len, executable: self.executable }, content.into()))
    }

    /// Has every node keep it.
    pub async fn send(self, client: &Client) -> Result<JobFile> {
        let (file, content) = blocking(move || self.read()).await?;
        let sent = client.on_every_node(|client, node| {
            let (file, content) = (file.clone(), content.clone());
            async move { client.put_job_file(node, &file, content).await }
        });
        sent.await.into_iter().collect::<Result<()>>()?;
        Ok(file)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_digest_is_xxh3_128() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("empty");
        std::fs::write(&path, "").unwrap();
        let (file, content) = LocalFile::new(&path).unwrap().read().unwrap();
        assert_eq!((file.name.as_str(), file.len, file.executable, content.len()), ("empty", 0, false, 0));
        // Of no bytes, as xxhsum -H2 has it.
        assert_eq!(file.digest, "99aa06d3014798d86001c324468d497f");
    }
}
