//! The definition of the command line.

use clap::{Parser, Subcommand};

/// S3 at both ends of s4: serve a cluster as S3, and copy between S3 and a cluster.
#[derive(Parser)]
#[command(name = "s4-s3", version, max_term_width = 100)]
pub struct Cli {
    #[command(subcommand)]
    pub command: Command,
}

#[derive(Subcommand)]
pub enum Command {
    /// Serve the cluster as S3
    Serve {},
    /// Write an object of S3 to stdout
    Get {},
    /// Make an object of S3 from stdin
    Put {},
}
