//! File operations for `model_operations`: paths, and files that are written and read piece by piece.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;

pub fn join(dir: &str, name: &str) -> String {
    if dir.is_empty() { name.to_owned() } else { format!("{dir}/{name}") }
}

pub fn parent(path: &str) -> &str {
    path.rsplit_once('/').map_or("", |(dir, _)| dir)
}

pub fn slice(bytes: &[u8], from: u64, size: u64) -> &[u8] {
    let from = (from as usize).min(bytes.len());
    &bytes[from..from.saturating_add(size as usize).min(bytes.len())]
}

pub fn read_at(file: &File, from: u64, size: u64) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let mut piece = vec![0; 128 * 1024];
    while (bytes.len() as u64) < size {
        let wanted = (size - bytes.len() as u64).min(piece.len() as u64) as usize;
        match file.read_at(&mut piece[..wanted], from + bytes.len() as u64)? {
            0 => break,
            n => bytes.extend_from_slice(&piece[..n]),
        }
    }
    Ok(bytes)
}

/// Writes a new file, closes it, and returns the result of the close. Patterns: in one write, in pieces, in pieces from
/// the end, or too long and then truncated.
pub fn write(path: &Path, content: &[u8], mode: u32, exclusive: bool, pattern: u64) -> io::Result<()> {
    let mut options = OpenOptions::new();
    options.write(true).create(true).create_new(exclusive).truncate(!exclusive).mode(mode);
    let file = options.open(path)?;
    match pattern {
        0 => file.write_all_at(content, 0)?,
        1 => write_pieces(&file, content.chunks(30_000).enumerate())?,
        2 => write_pieces(&file, content.chunks(30_000).enumerate().rev())?,
        _ => {
            file.write_all_at(content, 0)?;
            file.write_all_at(b"too much", content.len() as u64)?;
            file.set_len(content.len() as u64)?;
        }
    }
    Ok(nix::unistd::close(file)?)
}

pub fn write_pieces<'a>(file: &File, pieces: impl Iterator<Item = (usize, &'a [u8])>) -> io::Result<()> {
    for (at, piece) in pieces {
        file.write_all_at(piece, at as u64 * 30_000)?;
    }
    Ok(())
}

pub fn names_at(dir: &Path) -> io::Result<Vec<String>> {
    let entries: io::Result<Vec<_>> = std::fs::read_dir(dir)?.collect();
    let mut names: Vec<String> = entries?.iter().map(|entry| entry.file_name().into_string().unwrap()).collect();
    names.sort();
    Ok(names)
}
