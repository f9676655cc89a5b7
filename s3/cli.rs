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

#[derive(Subcommand)]
pub enum Command {
    /// Serve the cluster as S3
    #[command(after_help = SERVE)]
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
pub struct GetArgs {
    /// s3://bucket/key
    #[arg(value_name = "URL")]
    pub url: String,
    #[command(flatten)]
    pub access: Access,
}

#[derive(Args)]
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
    /// Metadata of the object, its x-amz-meta-NAME
    #[arg(long, value_name = "NAME=VALUE", value_parser = parse_pair)]
    pub metadata: Vec<(String, String)>,
    #[command(flatten)]
    pub access: Access,
}

fn parse_pair(text: &str) -> std::result::Result<(String, String), &'static str> {
    let (name, value) = text.split_once('=').filter(|(name, _)| !name.is_empty()).ok_or("metadata is NAME=VALUE")?;
    Ok((name.to_ascii_lowercase(), value.to_owned()))
}

#[derive(Args)]
pub struct ServeArgs {
    /// The address to listen on
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:9000")]
    pub listen: SocketAddr,
    /// A name by which clients call this door, besides IP addresses, localhost and the names of the cluster file
    #[arg(long = "host", value_name = "NAME")]
    pub hosts: Vec<String>,
}

const SERVE: &str = "\
The access key id is any text; the secret access key is the cluster's secret, or s4 where it has none.

Example:
  s4-s3 serve &
  export AWS_ENDPOINT_URL=http://127.0.0.1:9000 AWS_ACCESS_KEY_ID=s4 AWS_REGION=us-east-1
  export AWS_SECRET_ACCESS_KEY=$(head -n 1 ~/.s4.conf.secret)
  aws s3 ls";
