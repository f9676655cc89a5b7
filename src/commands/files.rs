//! `--file`: local files that are sent with a command.

use s4::client::{Client, blocking};
use s4::error::{Error, Result};
use s4::file::BLOCK;
use s4::hasher::Digest;
use s4::placement::NodeId;
use s4::protocol::JobFile;
use std::fs::File;
use std::io::Read;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

/// An existing file that may be sent.
pub struct LocalFile {
    path: PathBuf,
    name: String,
    executable: bool,
}

/// Checks all files before any of them is used.
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

    /// The name and digest of the file. Reads it block by block. Blocks.
    pub fn describe(&self) -> Result<JobFile> {
        let failed = |e: std::io::Error| Error::io(format!("--file {}", self.path.display()), &e);
        let mut file = File::open(&self.path).map_err(failed)?;
        let (mut digest, mut len, mut block) = (Digest::default(), 0, vec![0; BLOCK]);
        loop {
            match file.read(&mut block).map_err(failed)? {
                0 => break,
                n => {
                    digest.update(&block[..n]);
                    len += n as u64;
                }
            }
        }
        Ok(JobFile { name: self.name.clone(), digest: digest.to_string(), len, executable: self.executable })
    }

    /// Stores the file on every node.
    pub async fn send(self, client: &Client) -> Result<JobFile> {
        let path = self.path.clone();
        let file = blocking(move || self.describe()).await?;
        let sent = client.on_every_node(|client, node| {
            let (file, path) = (file.clone(), path.clone());
            async move { client.put_job_file(node, &file, path).await }
        });
        sent.await.into_iter().collect::<Result<()>>()?;
        Ok(file)
    }
}

/// Descriptions of files with their paths, for [`send_to`].
pub type Described = Vec<(JobFile, PathBuf)>;

/// Checks and describes the files at `paths`.
pub async fn describe(paths: &[PathBuf]) -> Result<Described> {
    let files = find(paths)?;
    blocking(move || files.iter().map(|file| Ok((file.describe()?, file.path.clone()))).collect()).await
}

/// Stores the files on `node`.
pub async fn send_to(client: &Client, node: NodeId, files: Described) -> Result<Vec<JobFile>> {
    let mut sent = Vec::new();
    for (file, path) in files {
        client.put_job_file(node, &file, path).await?;
        sent.push(file);
    }
    Ok(sent)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_digest_is_xxh3_128() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("empty");
        std::fs::write(&path, "").unwrap();
        let file = LocalFile::new(&path).unwrap().describe().unwrap();
        assert_eq!((file.name.as_str(), file.len, file.executable), ("empty", 0, false));
        // The digest of no bytes, as printed by xxhsum -H2.
        assert_eq!(file.digest, "99aa06d3014798d86001c324468d497f");
    }
}
