//! The input of `--split`: a file whose parts are read in parallel, or a stream, which gzip or zstd may have to unpack.

use s4::error::{Error, ErrorKind, Result, reason};
use s4::file::AtPosition;
use std::fs::File;
use std::io::{Cursor, Read};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::{Arc, OnceLock};

/// Bytes of an unpacker's stderr that are shown.
const SHOWN: u64 = 400;
/// Bytes that identify packed data.
const MAGIC: usize = 4;

pub enum Input {
    File(File, u64),
    Stream(Box<dyn Read + Send>),
}

/// Opens `src`; `file` is its open file. With `decompress`, packed data is unpacked.
pub fn open(src: &str, file: File, decompress: bool) -> Result<Input> {
    let found = file.metadata().map_err(|e| Error::io(src, &e))?;
    if found.is_dir() {
        return Err(Error::usage(format!("{src}: is a directory, and --split cuts one file")));
    }
    // The position of stdin may not be at the beginning.
    let is_whole = found.is_file() && src != "-";
    match (decompress, is_whole) {
        (false, true) => Ok(Input::File(file, found.len())),
        (false, false) => Ok(Input::Stream(Box::new(file))),
        (true, _) => Unpacking::start(src, file, is_whole).map(|unpacking| Input::Stream(Box::new(unpacking))),
    }
}

/// The program that unpacks data beginning with `head`.
fn unpacker(head: &[u8]) -> Option<&'static str> {
    match head {
        [0x1f, 0x8b, ..] => Some("gzip"),
        // A frame, or a skippable frame, which parallel compressors write first.
        [0x28, 0xb5, 0x2f, 0xfd, ..] | [0x50..=0x5f, 0x2a, 0x4d, 0x18, ..] => Some("zstd"),
        _ => None,
    }
}

/// The output of an unpacker. It ends without an error only if the unpacker has read its whole input.
struct Unpacking {
    program: &'static str,
    child: Child,
    output: ChildStdout,
    /// The error of reading the input, if the input is no file. Set before the unpacker's stdin is closed. The thread
    /// that writes to stdin is not joined: it may wait for more input after the unpacker has failed.
    unread: Arc<OnceLock<std::io::Error>>,
}

impl Unpacking {
    fn start(src: &str, mut file: File, is_whole: bool) -> Result<Self> {
        let failed = |e: std::io::Error| Error::io(src, &e);
        let mut head = Vec::new();
        match is_whole {
            true => AtPosition::new(&file, 0).take(MAGIC as u64).read_to_end(&mut head),
            false => (&mut file).take(MAGIC as u64).read_to_end(&mut head),
        }
        .map_err(failed)?;
        let program = unpacker(&head).ok_or_else(|| {
            Error::new(ErrorKind::Io, format!("{src}: is packed neither by gzip nor by zstd; leave out --decompress"))
        })?;
        let mut command = Command::new(program);
        command.args(["-d", "-c", "-q"]).stdout(Stdio::piped()).stderr(Stdio::piped());
        let rest = match is_whole {
            true => {
                command.stdin(file);
                None
            }
            false => {
                command.stdin(Stdio::piped());
                Some(Cursor::new(head).chain(file))
            }
        };
        let mut child = command.spawn().map_err(|e| match e.kind() {
            std::io::ErrorKind::NotFound => {
                Error::new(ErrorKind::Io, format!("{program} is not installed, and --decompress of {src} needs it"))
            }
            _ => Error::io(program, &e),
        })?;
        let unread = Arc::new(OnceLock::new());
        if let (Some(mut to), Some(mut rest)) = (child.stdin.take(), rest) {
            let unread = unread.clone();
            let feed = move || {
                if let Err(error) = std::io::copy(&mut rest, &mut to) {
                    // This cannot fail: no other code sets it.
                    let _ = unread.set(error);
                }
            };
            std::thread::Builder::new().spawn(feed).map_err(failed)?;
        }
        let output = child.stdout.take().ok_or_else(|| Error::new(ErrorKind::Io, format!("{program}: no output")))?;
        Ok(Self { program, child, output, unread })
    }

    /// Errors: the input was incomplete or damaged, or could not be read.
    fn check_end(&mut self) -> std::io::Result<()> {
        let mut said = String::new();
        if let Some(stderr) = self.child.stderr.take() {
            // Not necessarily UTF-8.
            let _ = stderr.take(SHOWN).read_to_string(&mut said);
        }
        let status = self.child.wait()?;
        if let Some(e) = self.unread.get()
            && e.kind() != std::io::ErrorKind::BrokenPipe
        {
            return Err(std::io::Error::new(e.kind(), reason(e)));
        }
        match status.success() {
            true => Ok(()),
            false => {
                let said = said.trim().replace('\n', "; ");
                let said = if said.is_empty() { format!("{}: {status}", self.program) } else { said };
                Err(std::io::Error::other(format!("cannot be unpacked to its end: {said}")))
            }
        }
    }
}

impl Read for Unpacking {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        match self.output.read(buffer)? {
            0 => self.check_end().map(|()| 0),
            n => Ok(n),
        }
    }
}

impl Drop for Unpacking {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The name of `src` without the extension for its compression.
pub fn unpacked_name(name: &str) -> &str {
    let stem = [".gz", ".zst", ".zstd"].iter().find_map(|end| name.strip_suffix(end));
    stem.filter(|stem| !stem.is_empty()).unwrap_or(name)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;
    use std::os::fd::OwnedFd;
    use std::time::Duration;

    #[test]
    fn packed_data_is_known_by_its_first_bytes() {
        assert_eq!(unpacker(&[0x1f, 0x8b, 8, 0]), Some("gzip"));
        assert_eq!(unpacker(&[0x28, 0xb5, 0x2f, 0xfd]), Some("zstd"));
        assert_eq!(unpacker(&[0x50, 0x2a, 0x4d, 0x18]), Some("zstd"));
        assert_eq!(unpacker(b"a,b,"), None);
        assert_eq!(unpacker(b""), None);
    }

    #[test]
    fn an_idle_input_does_not_hold_up_the_end_of_an_unpacker_that_gave_up() {
        let (input, mut to) = std::io::pipe().unwrap();
        let (sender, ended) = std::sync::mpsc::channel();
        std::thread::spawn(move || {
            let mut unpacking = Unpacking::start("-", File::from(OwnedFd::from(input)), false).unwrap();
            let _ = sender.send(unpacking.read(&mut [0; 16]).map_err(|e| e.to_string()));
        });
        // gzip waits for this many bytes before it examines them.
        to.write_all(&[0x1f, 0x8b]).and_then(|()| to.write_all(&[7; (256 << 10) - 2])).unwrap();
        let read = ended.recv_timeout(Duration::from_secs(20)).expect("it ends");
        assert!(read.as_ref().is_err_and(|e| e.contains("cannot be unpacked to its end: gzip")), "{read:?}");
        drop(to);
    }

    #[test]
    fn a_name_loses_what_it_is_packed_by() {
        assert_eq!(unpacked_name("x.csv.gz"), "x.csv");
        assert_eq!(unpacked_name("x.zst"), "x");
        assert_eq!(unpacked_name(".gz"), ".gz");
        assert_eq!(unpacked_name("x.csv"), "x.csv");
    }
}
