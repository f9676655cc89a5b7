//! The states of a spool, as plain data: no file, no lock and no cluster.
//!
//! ```text
//! Writing --seal--> Publishing --published--> Published
//!   |   ^                |
//!   |   '-- published, --+---- fail ----> Discarded
//!   |       but empty                         ^
//!   '---------- discard, fail ----------------'
//! ```
//!
//! A file without bytes may be published and written to once more: it stays in `Writing`, and is not sealed.
//! `Published` and `Discarded` are final. `U` is the type of an upload that runs before the close.

use nix::errno::Errno;
use s4::protocol::{Change, KeyStat};
use std::time::SystemTime;

/// The length and time of a file when its bytes were read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Snapshot {
    pub len: u64,
    pub modified: SystemTime,
}

#[derive(Debug)]
pub enum State<U> {
    /// The bytes may change. A later close publishes them.
    Writing(Unpublished<U>),
    /// The bytes are being published, and cannot change any more.
    Publishing(Unpublished<U>),
    /// The bytes, at least one, are a key.
    Published { snapshot: Snapshot, stat: KeyStat },
    /// No close will publish the file: it was unlinked, its writer was killed, or its publish has `failed`.
    Discarded { failed: Option<Errno> },
}

/// What is known about a file until it is published.
#[derive(Debug)]
pub struct Unpublished<U> {
    /// The empty key that was published from the file. The bytes of the file are to replace it.
    pub empty: Option<KeyStat>,
    pub last_close: LastClose,
    pub upload: Upload<U>,
}

/// The kind of the last close that published nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LastClose {
    /// Other descriptors are open, or none was closed yet.
    Open,
    /// A signal ended the process that closed the file.
    Killed,
    /// It returned success before the bytes were published. They must be published, even if a later writer is killed.
    Acknowledged,
}

/// Whether the file is uploaded before its close.
#[derive(Debug)]
pub enum Upload<U> {
    Allowed,
    Running(U),
    /// Bytes that were written may change, or the upload was taken by the close.
    Refused,
}

impl<U> State<U> {
    /// `empty` is the empty key that the bytes are to replace.
    pub fn new(empty: Option<KeyStat>) -> Self {
        Self::Writing(Unpublished { empty, last_close: LastClose::Open, upload: Upload::Allowed })
    }

    fn draft(&self) -> Option<&Unpublished<U>> {
        match self {
            Self::Writing(draft) | Self::Publishing(draft) => Some(draft),
            Self::Published { .. } | Self::Discarded { .. } => None,
        }
    }

    fn draft_mut(&mut self) -> Option<&mut Unpublished<U>> {
        match self {
            Self::Writing(draft) | Self::Publishing(draft) => Some(draft),
            Self::Published { .. } | Self::Discarded { .. } => None,
        }
    }

    /// The error for a change of the bytes; `None` if changes are allowed.
    pub fn refusal(&self) -> Option<Errno> {
        match self {
            Self::Writing(_) | Self::Discarded { failed: None } => None,
            Self::Publishing(_) | Self::Published { .. } => Some(Errno::EPERM),
            Self::Discarded { failed: Some(_) } => Some(Errno::EIO),
        }
    }

    /// Forbids changes, since the `len` bytes are about to be published. Publishing may be retried, so a second call is
    /// allowed.
    pub fn seal(&mut self, len: u64) {
        if len > 0 {
            self.replace(|state| match state {
                Self::Writing(draft) => Self::Publishing(draft),
                other => other,
            });
        }
    }

    /// Records that the file was published with the length and time of `snapshot`.
    pub fn publish(&mut self, snapshot: Snapshot, stat: KeyStat) {
        self.replace(|state| match state {
            Self::Writing(draft) | Self::Publishing(draft) if stat.checksum.len == 0 => {
                Self::Writing(Unpublished { empty: Some(stat), last_close: LastClose::Open, ..draft })
            }
            Self::Writing(_) | Self::Publishing(_) => Self::Published { snapshot, stat },
            other => other,
        });
    }

    /// Records that the file will not become a key. A key that was published stays.
    pub fn discard(&mut self) {
        if self.draft().is_some() {
            *self = Self::Discarded { failed: None };
        }
    }

    /// Records that the publish failed: later writers get an error too.
    pub fn fail(&mut self, errno: Errno) {
        if self.draft().is_some() {
            *self = Self::Discarded { failed: Some(errno) };
        }
    }

    pub fn failed(&self) -> Option<Errno> {
        match self {
            Self::Discarded { failed } => *failed,
            Self::Writing(_) | Self::Publishing(_) | Self::Published { .. } => None,
        }
    }

    pub fn is_published(&self) -> bool {
        matches!(self, Self::Published { .. })
    }

    /// True while nothing is published, and a close may publish.
    pub fn is_unpublished(&self) -> bool {
        self.draft().is_some_and(|draft| draft.empty.is_none())
    }

    /// True while a close may publish, also over an empty key.
    pub fn may_publish(&self) -> bool {
        self.draft().is_some()
    }

    /// The key that was published, which may be empty.
    pub fn stat(&self) -> Option<&KeyStat> {
        match self {
            Self::Writing(draft) | Self::Publishing(draft) => draft.empty.as_ref(),
            Self::Published { stat, .. } => Some(stat),
            Self::Discarded { .. } => None,
        }
    }

    /// Records changed attributes of the key.
    pub fn set_attributes(&mut self, change: Change) {
        let stat = match self {
            Self::Writing(draft) | Self::Publishing(draft) => draft.empty.as_mut(),
            Self::Published { stat, .. } => Some(stat),
            Self::Discarded { .. } => None,
        };
        if let Some(stat) = stat {
            stat.mode = change.mode.unwrap_or(stat.mode);
            stat.mtime = change.mtime.unwrap_or(stat.mtime);
        }
    }

    /// The length and time of the file when it was published.
    pub fn snapshot(&self) -> Option<Snapshot> {
        match self {
            Self::Published { snapshot, .. } => Some(*snapshot),
            Self::Writing(_) | Self::Publishing(_) | Self::Discarded { .. } => None,
        }
    }

    /// Records a new time of the published file, whose bytes are unchanged.
    pub fn set_snapshot(&mut self, now: Snapshot) {
        if let Self::Published { snapshot, .. } = self {
            *snapshot = now;
        }
    }

    /// Records a close that published nothing. `killed`: a signal ended the process that closed.
    pub fn close(&mut self, killed: bool) {
        if let Some(draft) = self.draft_mut()
            && draft.last_close != LastClose::Acknowledged
        {
            draft.last_close = if killed { LastClose::Killed } else { LastClose::Open };
        }
    }

    /// Records that a close returns success before the bytes are published.
    pub fn acknowledge(&mut self) {
        if let Some(draft) = self.draft_mut() {
            draft.last_close = LastClose::Acknowledged;
        }
    }

    pub fn last_close(&self) -> Option<LastClose> {
        self.draft().map(|draft| draft.last_close)
    }

    /// True while the written bytes are assumed to be final: the file was not truncated, allocated, renamed or
    /// published.
    pub fn may_upload(&self) -> bool {
        match self {
            Self::Writing(draft) => draft.empty.is_none() && !matches!(draft.upload, Upload::Refused),
            Self::Publishing(_) | Self::Published { .. } | Self::Discarded { .. } => false,
        }
    }

    /// Keeps `upload` for the close; drops it if no upload is allowed.
    pub fn set_upload(&mut self, upload: U) {
        if self.may_upload()
            && let Self::Writing(draft) = self
        {
            draft.upload = Upload::Running(upload);
        }
    }

    /// Takes the running upload, if there is one. No other upload is allowed afterwards.
    pub fn take_upload(&mut self) -> Option<U> {
        match std::mem::replace(&mut self.draft_mut()?.upload, Upload::Refused) {
            Upload::Running(upload) => Some(upload),
            Upload::Allowed | Upload::Refused => None,
        }
    }

    fn replace(&mut self, next: impl FnOnce(Self) -> Self) {
        let now = std::mem::replace(self, Self::Discarded { failed: None });
        *self = next(now);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use s4::checksum::Checksum;

    const LATER: Snapshot = Snapshot { len: 3, modified: SystemTime::UNIX_EPOCH };

    fn stat(bytes: &[u8]) -> KeyStat {
        KeyStat { checksum: Checksum::of(bytes), mtime: 1, mode: 0o444 }
    }

    fn published() -> State<u8> {
        let mut state = State::new(None);
        state.seal(3);
        state.publish(LATER, stat(b"abc"));
        state
    }

    #[test]
    fn bytes_do_not_change_from_their_sealing_on() {
        let mut state = State::<u8>::new(None);
        assert_eq!((state.refusal(), state.may_publish(), state.is_unpublished()), (None, true, true));
        state.seal(3);
        assert_eq!((state.refusal(), state.may_publish(), state.is_published()), (Some(Errno::EPERM), true, false));
        state.seal(3);
        state.publish(LATER, stat(b"abc"));
        assert_eq!((state.refusal(), state.may_publish(), state.is_published()), (Some(Errno::EPERM), false, true));
        assert_eq!((state.snapshot(), state.stat()), (Some(LATER), Some(&stat(b"abc"))));
    }

    #[test]
    fn an_empty_file_is_published_and_written_once_more() {
        let mut state = State::<u8>::new(None);
        state.seal(0);
        state.acknowledge();
        state.publish(Snapshot { len: 0, ..LATER }, stat(b""));
        assert_eq!((state.refusal(), state.may_publish(), state.is_unpublished()), (None, true, false));
        assert_eq!((state.stat(), state.last_close()), (Some(&stat(b"")), Some(LastClose::Open)));
        assert!(!state.may_upload(), "it replaces a key");
        state.seal(3);
        state.publish(LATER, stat(b"abc"));
        assert!(state.is_published());
    }

    #[test]
    fn what_is_published_is_not_discarded() {
        let mut state = published();
        state.discard();
        state.fail(Errno::EIO);
        assert!(state.is_published() && state.failed().is_none());
    }

    #[test]
    fn an_unlinked_file_may_be_written_to_and_one_that_failed_may_not() {
        let mut unlinked = State::<u8>::new(Some(stat(b"")));
        unlinked.discard();
        assert_eq!((unlinked.refusal(), unlinked.may_publish(), unlinked.stat()), (None, false, None));
        let mut failed = State::<u8>::new(None);
        failed.seal(3);
        failed.fail(Errno::ENOSPC);
        assert_eq!((failed.refusal(), failed.failed()), (Some(Errno::EIO), Some(Errno::ENOSPC)));
        failed.publish(LATER, stat(b"abc"));
        assert!(!failed.is_published(), "it stays discarded");
    }

    #[test]
    fn what_a_close_acknowledged_is_published_though_a_later_writer_is_killed() {
        let mut state = State::<u8>::new(None);
        state.close(true);
        assert_eq!(state.last_close(), Some(LastClose::Killed));
        state.close(false);
        assert_eq!(state.last_close(), Some(LastClose::Open));
        state.acknowledge();
        state.close(true);
        assert_eq!(state.last_close(), Some(LastClose::Acknowledged));
    }

    #[test]
    fn an_upload_is_kept_for_the_close_and_dropped_by_what_makes_it_wrong() {
        let mut state = State::new(None);
        state.set_upload(7);
        state.seal(3);
        assert_eq!((state.take_upload(), state.take_upload()), (Some(7), None));
        let mut truncated = State::new(None);
        truncated.set_upload(7);
        truncated.take_upload();
        truncated.set_upload(8);
        assert_eq!(truncated.take_upload(), None);
        let mut sealed = State::new(None);
        sealed.seal(3);
        sealed.set_upload(7);
        assert_eq!(sealed.take_upload(), None, "the close does not wait for one that has just begun");
    }

    #[test]
    fn attributes_of_a_key_are_changed_one_by_one() {
        let mut state = published();
        state.set_attributes(Change { mode: Some(0o400), mtime: None, over_empty: false });
        assert_eq!(state.stat(), Some(&KeyStat { mode: 0o400, ..stat(b"abc") }));
    }
}
