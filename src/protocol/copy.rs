//! Copies between S3 and the cluster: how S3 is reached, and what a copy is. The programs `s4` and `s4-s3` have the options
//! in common, and a job takes them to the nodes.

use crate::error::{Error, Result};
use serde::{Deserialize, Serialize};
use std::fmt;

/// Limit of bytes of a URL, an option, or a credential.
const MAX_TEXT: usize = 4096;

// Where S3 is, and who asks. Not a doc comment: clap would show it as the description of `s4 cp`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, clap::Args)]
#[serde(deny_unknown_fields, default)]
pub struct Access {
    /// The URL of a server that speaks S3, if it is not AWS [env: AWS_ENDPOINT_URL_S3, AWS_ENDPOINT_URL]
    ///
    /// Where nodes copy, the variables of this machine come before those of the nodes.
    #[arg(long, value_name = "URL", help_heading = S3)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub endpoint_url: Option<String>,
    /// The region of the bucket [env: AWS_REGION, AWS_DEFAULT_REGION]
    ///
    /// Where nodes copy, the variables of this machine come before those of the nodes. Last comes the region that AWS reports.
    #[arg(long, value_name = "NAME", help_heading = S3)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub region: Option<String>,
    /// The profile whose credentials are used, of ~/.aws where the copying runs
    #[arg(long, value_name = "NAME", help_heading = S3)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub profile: Option<String>,
    /// Do not sign requests: for public buckets
    #[arg(long, help_heading = S3)]
    pub no_sign_request: bool,
    /// Pay for the requests and bytes of a bucket whose owner does not
    #[arg(long, help_heading = S3)]
    pub request_payer: bool,
}

/// The heading of options about S3.
pub const S3: &str = "Options for s3://";

impl Access {
    /// The same with the endpoint and region of the environment, where no option says them.
    pub fn with_environment(&self) -> Self {
        let first = |option: &Option<String>, names: [&str; 2]| {
            let named = || names.iter().filter_map(|name| std::env::var(name).ok()).find(|value| !value.is_empty());
            option.clone().or_else(named)
        };
        Self {
            endpoint_url: first(&self.endpoint_url, ["AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL"]),
            region: first(&self.region, ["AWS_REGION", "AWS_DEFAULT_REGION"]),
            ..self.clone()
        }
    }
}

/// Credentials of S3 that a client sends with the start of a job. Nothing prints or stores them.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Credentials {
    pub access_key_id: String,
    pub secret_access_key: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub session_token: Option<String>,
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Credentials")
    }
}

/// A copy, as every node gets it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CopySpec {
    /// `s3://bucket/prefix/`, or a directory of the cluster.
    pub from: String,
    pub to: String,
    #[serde(default)]
    pub access: Access,
    /// Counts what would be copied.
    #[serde(default)]
    pub dry_run: bool,
    /// Goes on with an earlier copy: what was copied from the same object is left out.
    #[serde(default)]
    pub resume: bool,
    /// Replaces objects of S3.
    #[serde(default)]
    pub overwrite: bool,
    /// Leaves out objects whose names no key can have.
    #[serde(default)]
    pub skip_bad_names: bool,
}

impl CopySpec {
    /// Refuses what no worker could read.
    pub fn check(&self) -> Result<()> {
        let Access { endpoint_url, region, profile, .. } = &self.access;
        let options = [endpoint_url, region, profile].into_iter().flatten();
        let is_plain = |text: &&String| text.len() <= MAX_TEXT && !text.chars().any(char::is_control);
        match [&self.from, &self.to].into_iter().chain(options).find(|text| !is_plain(text)) {
            Some(text) => {
                Err(Error::usage(format!("'{}' is too long, or holds control characters", text.escape_debug())))
            }
            None => Ok(()),
        }
    }

    /// True if it makes keys.
    pub fn makes_keys(&self) -> bool {
        self.from.starts_with("s3://") && !self.dry_run
    }

    /// Bytes of memory that it takes, approximately.
    pub fn bytes(&self) -> usize {
        let Access { endpoint_url, region, profile, .. } = &self.access;
        let options = [endpoint_url, region, profile].into_iter().flatten().map(String::len);
        self.from.len() + self.to.len() + options.sum::<usize>()
    }
}
