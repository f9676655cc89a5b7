//! The definition of the command line.

use clap::{Args, Parser, Subcommand};
use s4::client::{Client, Proxy, Secret, Settings};
use s4::cluster::Cluster;
use s4::error::Result;
use s4::protocol::Access;
use s4::time::parse_seconds;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

/// S3 at both ends of s4: serve a cluster as S3, and copy between S3 and a cluster.
///
/// s4-s3 connects an s4(1) cluster with tools and stores that speak the protocol of Amazon S3. docs/s3.md describes it.
///
/// 's4-s3 get' and 's4-s3 put' read credentials where other programs of S3 find them: the environment, ~/.aws, the role of the
/// container or instance.
#[derive(Parser)]
#[command(name = "s4-s3", version, max_term_width = 100, after_help = TRY)]
pub struct Cli {
    #[command(flatten)]
    pub global: Global,
    #[command(subcommand)]
    pub command: Command,
}

const TRY: &str = "\
Example: a cluster on this machine as S3
  s4-s3 serve --listen 127.0.0.1:9000";

/// How the cluster is found: as `s4` finds it.
#[derive(Args)]
pub struct Global {
    /// The cluster file [default: $S4_CONF_PATH, else ~/.s4.conf]
    #[arg(short, long, global = true, value_name = "FILE")]
    pub conf_path: Option<PathBuf>,
    /// How long a node may be silent, in seconds
    #[arg(long, global = true, value_name = "SECONDS", env = "S4_DEADLINE", default_value = "10", value_parser = parse_seconds)]
    pub deadline: Duration,
    /// The file of the shared secret, where the daemons require one
    ///
    /// Without this option and S4_SECRET_PATH, it is the cluster file's name with .secret appended, if there is such a file.
    #[arg(long, global = true, value_name = "FILE", env = "S4_SECRET_PATH", hide_env_values = true)]
    pub secret: Option<PathBuf>,
}

impl Global {
    /// A client of the cluster, and the cluster's secret if it has one.
    pub fn client(&self) -> Result<(Client, Option<Secret>)> {
        let conf = self.conf_path.as_deref();
        let (cluster, secret) = (Cluster::load(conf)?, Secret::find(self.secret.as_deref(), conf)?);
        let proxy = Proxy::from_environment()?;
        let settings = Settings { deadline: self.deadline, secret: secret.clone(), proxy, ..Settings::default() };
        Ok((Client::new(cluster, settings), secret))
    }
}

// Deferred: the long descriptions, which are at the arguments, would be replaced by none.
#[derive(Subcommand)]
#[command(defer = true)]
pub enum Command {
    /// Serve the cluster as S3
    Serve(ServeArgs),
    /// Write an object of S3 to stdout
    Get(GetArgs),
    /// Make an object of S3 from stdin
    Put(PutArgs),
    /// The part of a copy on one node, which its daemon starts
    #[command(hide = true)]
    CopyWorker,
}

#[derive(Args)]
#[command(long_about = GET_LONG, after_help = GET)]
pub struct GetArgs {
    /// s3://bucket/key
    #[arg(value_name = "URL")]
    pub url: String,
    #[command(flatten)]
    pub access: Access,
}

const GET_LONG: &str = "\
Write an object of S3 to stdout. Exit status 0 says that all its bytes came and match the checksum that S3 has of them, if it has one.";

const GET: &str = "\
Examples:
  s4-s3 get s3://bucket/flights.csv | head
  s4 map s4://addresses/ s4://fetched/ 's4-s3 get \"$(cat)\"'";

#[derive(Args)]
#[command(long_about = PUT_LONG, after_help = PUT)]
pub struct PutArgs {
    /// s3://bucket/key
    #[arg(value_name = "URL")]
    pub url: String,
    /// Replace an object of this name
    #[arg(long)]
    pub overwrite: bool,
    /// The content type of the object
    #[arg(long, value_name = "TYPE")]
    pub content_type: Option<String>,
    /// Metadata of the object, its x-amz-meta-NAME; may be repeated
    #[arg(long, value_name = "NAME=VALUE", value_parser = parse_pair)]
    pub metadata: Vec<(String, String)>,
    #[command(flatten)]
    pub access: Access,
}

const PUT_LONG: &str = "\
Make an object of S3 from stdin: whole when stdin ends, or not at all. An object that exists with other bytes is an error.";

const PUT: &str = "\
Example:
  s4 cp s4://out/0_x - |
      s4-s3 put --content-type text/plain s3://bucket/0_x";

fn parse_pair(text: &str) -> std::result::Result<(String, String), &'static str> {
    let (name, value) = text.split_once('=').filter(|(name, _)| !name.is_empty()).ok_or("metadata is NAME=VALUE")?;
    Ok((name.to_ascii_lowercase(), value.to_owned()))
}

#[derive(Args)]
#[command(long_about = SERVE_LONG, after_help = SERVE, after_long_help = SERVE_EXAMPLE)]
pub struct ServeArgs {
    /// The address to listen on
    ///
    /// Port 0 takes a free one.
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:9000")]
    pub listen: SocketAddr,
    /// A name by which clients call this door, besides IP addresses, localhost and the names of the cluster file
    ///
    /// Requests with another 'Host' are refused, since a web page could have sent them. May be repeated.
    #[arg(long = "host", value_name = "NAME")]
    pub hosts: Vec<String>,
}

const SERVE_LONG: &str = "\
Serve the whole cluster as S3, path style, in any region, until SIGTERM or Ctrl-C. It may run beside each daemon or on a user's \
machine; it has no state. When it listens, it prints a line with its address to stdout. Its log goes to stderr.

The access key id is any text. The secret access key is the secret of the cluster, the first line of its secret file; in a cluster \
without one it is 's4'. Every request must be signed, by version 4 or 2, in a header or in the URL. Requests of browsers are refused.

A key is written once: a put to a taken key answers 412, unless it has the same bytes. A name that no key can have answers 400 with \
the rule.";

const SERVE: &str = "\
The access key id is any text; the secret access key is the cluster's secret, or s4 where it has none.

Example:
  s4-s3 serve &
  export AWS_ENDPOINT_URL=http://127.0.0.1:9000
  export AWS_ACCESS_KEY_ID=s4 AWS_REGION=us-east-1
  export AWS_SECRET_ACCESS_KEY=$(head -n 1 ~/.s4.conf.secret)
  aws s3 ls";

const SERVE_EXAMPLE: &str = "\
Example:
  s4-s3 serve &
  export AWS_ENDPOINT_URL=http://127.0.0.1:9000
  export AWS_ACCESS_KEY_ID=s4 AWS_REGION=us-east-1
  export AWS_SECRET_ACCESS_KEY=$(head -n 1 ~/.s4.conf.secret)
  aws s3 mb s3://in && aws s3 cp flights.csv s3://in/";

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn man_pages_are_as_defined() {
        let mut command = Cli::command();
        command.build();
        let see_also = ["s4(1)", "s4-server(8)"];
        let page = s4_manual::Page { section: 1, see_also: &see_also, ..s4_manual::Page::default() };
        s4_manual::check("s4-s3.1", &s4_manual::render(&command, &page));
    }
}
