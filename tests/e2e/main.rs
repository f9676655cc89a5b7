//! End to end: real processes, one file a subject.

mod harness;
mod tour;
