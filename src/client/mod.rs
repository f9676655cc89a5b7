//! The client of a cluster: requests to its nodes over pooled connections, each within a deadline. `core` sends
//! requests over HTTP, `connections` over frames; the other modules have the requests, by subject. What a request or a
//! frame looks like is left to `protocol` and `wire`.

mod cluster_job;
pub mod cluster_view;
mod commands;
mod connect;
mod connections;
mod core;
mod dirs;
mod fetch;
mod input_reader;
pub mod job_table;
mod jobs;
mod keys;
mod lines;
mod listing;
mod local;
mod multipart;
mod outcome;
mod pool;
mod provenance;
mod proxy;
mod resize;
mod scrub;
mod secret;
mod span;
mod span_file;
mod tree;
mod unfinished;
mod upload;

pub use cluster_job::NodeEvent;
pub use connections::with_short_waits;
pub use core::{Client, Settings, TRIES, blocking};
pub use dirs::HeldDirs;
pub use fetch::{Fetched, FetchedItem};
pub use jobs::EventStream;
pub use listing::{ListOptions, Listing};
pub use outcome::retry_put;
pub use provenance::MAX_GIVEN;
pub use proxy::Proxy;
pub use resize::ResizeStream;
pub use scrub::ScrubStream;
pub use secret::Secret;
pub use span::Span;
pub use upload::{PutAnswers, PutCounts, PutOptions, Puts, Upload};
