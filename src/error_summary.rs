//! Many errors in bounded memory: the first of each kind, and the number of each kind.

use crate::error::{Error, ErrorKind};

/// Errors of one kind that are kept.
const KEPT: u64 = 3;

/// The errors of an operation on many keys.
#[derive(Debug, Default)]
pub struct Errors {
    kept: Vec<Error>,
    counts: Vec<(ErrorKind, u64)>,
}

impl Errors {
    pub fn add(&mut self, error: Error) {
        if self.count(error.kind(), 1) <= KEPT {
            self.kept.push(error);
        }
    }

    pub fn append(&mut self, other: Self) {
        let others = other.others().collect::<Vec<_>>();
        other.kept.into_iter().for_each(|error| self.add(error));
        for (kind, more) in others {
            self.count(kind, more);
        }
    }

    /// Counts `more` errors of a kind. Returns the number so far.
    fn count(&mut self, kind: ErrorKind, more: u64) -> u64 {
        if let Some((_, count)) = self.counts.iter_mut().find(|(known, _)| *known == kind) {
            *count += more;
            return *count;
        }
        self.counts.push((kind, more));
        more
    }

    /// The errors that are kept, in the order in which they were added.
    pub fn kept(&self) -> &[Error] {
        &self.kept
    }

    pub fn into_first(self) -> Option<Error> {
        self.kept.into_iter().next()
    }

    /// The number of errors of each kind that are not kept.
    pub fn others(&self) -> impl Iterator<Item = (ErrorKind, u64)> {
        let kept = |kind: ErrorKind| self.kept.iter().filter(|error| error.kind() == kind).count() as u64;
        self.counts.iter().map(move |(kind, count)| (*kind, count - kept(*kind))).filter(|(_, others)| *others > 0)
    }
}

impl From<Error> for Errors {
    fn from(error: Error) -> Self {
        let mut errors = Self::default();
        errors.add(error);
        errors
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn errors(kind: ErrorKind, count: usize) -> Errors {
        let mut errors = Errors::default();
        (0..count).for_each(|number| errors.add(Error::new(kind, number.to_string())));
        errors
    }

    #[test]
    fn a_million_errors_are_the_first_few_and_a_number() {
        let mut all = errors(ErrorKind::AlreadyExists, 1_000_000);
        all.append(errors(ErrorKind::AlreadyExists, 20));
        all.append(errors(ErrorKind::Checksum, 1));
        all.append(errors(ErrorKind::Io, 3));
        assert_eq!(all.kept().iter().map(Error::to_string).collect::<Vec<_>>(), ["0", "1", "2", "0", "0", "1", "2"]);
        assert_eq!(all.others().collect::<Vec<_>>(), [(ErrorKind::AlreadyExists, 1_000_017)]);
        assert_eq!(all.into_first().map(|first| first.kind()), Some(ErrorKind::AlreadyExists));
    }
}
