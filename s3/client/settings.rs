//! How S3 is reached: options first, then the environment, then the profile.

use super::profile::{Profiles, variable};
use s4::error::Result;
use s4::protocol::{Access, Credentials};
use std::time::Duration;

/// The region of a server that has none, and of buckets of AWS until they say theirs.
const DEFAULT_REGION: &str = "us-east-1";

/// How long a server may be silent.
const SILENCE: Duration = Duration::from_secs(30);

/// Where S3 is, and who asks.
#[derive(Clone)]
pub struct Settings {
    /// `None`: AWS.
    pub endpoint: Option<String>,
    pub region: String,
    pub profile: Option<String>,
    /// Requests are not signed.
    pub anonymous: bool,
    pub request_payer: bool,
    /// A file of the authorities that vouch for servers, in place of this machine's.
    pub authorities: Option<String>,
    /// Requests that may be under way at a time.
    pub requests: usize,
    pub silence: Duration,
    /// Takes the place of this machine's own credentials.
    pub credentials: Option<Credentials>,
}

impl Settings {
    /// The settings for these options on this machine. Errors: a file of `~/.aws` cannot be read, or lacks the profile.
    pub fn new(access: &Access, credentials: Option<Credentials>, requests: usize) -> Result<Self> {
        let access = access.with_environment();
        let profile = Profiles::load()?.chosen(access.profile.as_deref())?;
        let of_profile = |name| profile.get(name).map(str::to_owned);
        Ok(Self {
            endpoint: access
                .endpoint_url
                .or_else(|| of_profile("endpoint_url"))
                .map(|url| url.trim_end_matches('/').to_owned()),
            region: access.region.or_else(|| of_profile("region")).unwrap_or_else(|| DEFAULT_REGION.to_owned()),
            profile: access.profile,
            anonymous: access.no_sign_request,
            request_payer: access.request_payer,
            authorities: variable("AWS_CA_BUNDLE").or_else(|| of_profile("ca_bundle")),
            requests,
            silence: SILENCE,
            credentials,
        })
    }
}
