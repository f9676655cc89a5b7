//! How S3 is reached: options first, then the environment, then the profile's entries of `~/.aws/config`.

use ini::Ini;
use reqsign_core::{Env, OsEnv};
use s4::error::{Error, Result};
use s4::protocol::{Access, Credentials};
use std::path::PathBuf;
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
    /// Requests that may be under way at a time.
    pub requests: usize,
    pub silence: Duration,
    /// Takes the place of this machine's own credentials.
    pub credentials: Option<Credentials>,
}

impl Settings {
    /// The settings for these options on this machine. Errors: `~/.aws/config` cannot be read.
    pub fn new(access: &Access, credentials: Option<Credentials>, requests: usize) -> Result<Self> {
        let access = access.with_environment();
        let config = Profile::load(access.profile.as_deref())?;
        Ok(Self {
            endpoint: access.endpoint_url.or(config.endpoint).map(|url| url.trim_end_matches('/').to_owned()),
            region: access.region.or(config.region).unwrap_or_else(|| DEFAULT_REGION.to_owned()),
            profile: access.profile,
            anonymous: access.no_sign_request,
            request_payer: access.request_payer,
            requests,
            silence: SILENCE,
            credentials,
        })
    }
}

/// What a profile says about the place. reqsign reads its credentials.
#[derive(Default)]
struct Profile {
    endpoint: Option<String>,
    region: Option<String>,
}

impl Profile {
    fn load(name: Option<&str>) -> Result<Self> {
        let own = name.map(str::to_owned).or_else(|| OsEnv.var("AWS_PROFILE")).unwrap_or_else(|| "default".to_owned());
        let file = OsEnv.var("AWS_CONFIG_FILE").map(PathBuf::from);
        let Some(file) = file.or_else(|| Some(OsEnv.home_dir()?.join(".aws/config"))) else {
            return Ok(Self::default());
        };
        let text = match std::fs::read_to_string(&file) {
            Ok(text) => text,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(Self::default()),
            Err(e) => return Err(Error::io(file.display(), &e)),
        };
        // The error would show the line, in which a key may be.
        let config = Ini::load_from_str_noescape(&text)
            .map_err(|e| Error::usage(format!("{}: line {}: malformed", file.display(), e.line)))?;
        let section = config.section(Some(format!("profile {own}"))).or_else(|| config.section(Some(own)));
        let value = |name| section.and_then(|section| section.get(name)).map(str::to_owned);
        Ok(Self { endpoint: value("endpoint_url"), region: value("region") })
    }
}
