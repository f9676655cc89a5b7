//! Talking to a cluster: requests to its nodes over kept connections, each within a deadline.

mod cluster_job;
pub mod cluster_view;
mod commands;
mod connect;
mod connections;
mod core;
mod dirs;
mod fetch;
pub mod job_table;
mod jobs;
mod keys;
mod lines;
mod listing;
mod local;
mod outcome;
mod pool;
mod provenance;
mod reading;
mod secret;
mod tree;
mod unfinished;
mod upload;

pub use cluster_job::NodeEvent;
pub use connections::with_moments;
pub use core::{Client, Settings, TRIES, blocking};
pub use dirs::HeldDirs;
pub use fetch::{Fetched, FetchedItem};
pub use jobs::EventStream;
pub use listing::Listing;
pub use secret::Secret;
pub use upload::{PutAnswers, PutCounts, Puts, Upload};
