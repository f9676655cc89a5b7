//! The credentials of this machine: where they are looked for, in the order of AWS's own programs. The first place that is set up
//! gives them, or is the error: another identity than the one that was meant is not tried. reqsign knows what the services
//! of AWS are asked.
//!
//! Errors say which place, and why. What was read, and what a service said, may hold a secret and is not told.

use super::profile::{Profile, Profiles, variable};
use reqsign_aws_v4::{
    AssumeRoleCredentialProvider, AssumeRoleWithWebIdentityCredentialProvider, Credential, ECSCredentialProvider,
    IMDSv2CredentialProvider, RequestSigner, SSOCredentialProvider, StaticCredentialProvider,
};
use reqsign_core::{Context, Error, ErrorKind, ProvideCredential, Result, Signer};
use s4::client::blocking;
use serde::Deserialize;
use std::fmt;
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Where no instance answers, the wait is long: for so long, it is not asked again.
const ABSENT: Duration = Duration::from_secs(30);
/// Limit of roles that are assumed one after the other.
const MAX_ROLES: usize = 5;
/// The name of the sessions of roles, unless the profile says another.
const SESSION: &str = "s4";

/// Looks for credentials whenever they are needed.
#[derive(Debug)]
pub struct Chain {
    /// A profile that was asked for. It comes before the environment then.
    pub profile: Option<String>,
    /// The region whose service gives roles, unless the profile says another.
    pub region: String,
    pub instance: Arc<Instance>,
}

/// What is known of the service that gives the role of an instance.
#[derive(Debug, Default)]
pub struct Instance(Mutex<Seen>);

#[derive(Debug, Default, Clone, Copy)]
struct Seen {
    /// It has given credentials.
    has_answered: bool,
    /// When it was found to be absent.
    absent: Option<Instant>,
}

/// Words of ours in an error of reqsign, which may be told.
#[derive(Debug)]
pub struct Told(pub String);

impl fmt::Display for Told {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Told {}

impl ProvideCredential for Chain {
    type Credential = Credential;

    async fn provide_credential(&self, context: &Context) -> Result<Option<Credential>> {
        if self.profile.is_none()
            && let Some(found) = of_environment()?
        {
            return Ok(Some(found));
        }
        let profiles = blocking(Profiles::load).await.map_err(of_files)?;
        let profile = profiles.chosen(self.profile.as_deref()).map_err(of_files)?;
        if let Some(found) = self.of_profile(profile, &profiles, context).await? {
            return Ok(Some(found));
        }
        let token = variable("AWS_WEB_IDENTITY_TOKEN_FILE").zip(variable("AWS_ROLE_ARN"));
        if let (None, Some((file, role))) = (&self.profile, token) {
            let session = variable("AWS_ROLE_SESSION_NAME");
            return self.of_web_identity(&file, &role, session.as_deref(), context).await.map(Some);
        }
        let is_container = ["AWS_CONTAINER_CREDENTIALS_FULL_URI", "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI"];
        if is_container.into_iter().any(|name| variable(name).is_some()) {
            return of_container(context).await.map(Some);
        }
        match self.of_instance(context).await? {
            Some(found) => Ok(Some(found)),
            None => Err(Error::credential_invalid(
                "none were found: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, --profile, or --no-sign-request",
            )),
        }
    }
}

impl Chain {
    /// What a profile gives: the last of the roles that it assumes, or what it has itself.
    async fn of_profile(&self, profile: Profile, profiles: &Profiles, context: &Context) -> Result<Option<Credential>> {
        let (mut current, mut roles) = (profile, Vec::new());
        let first = loop {
            let Some(role) = Role::of(&current)? else {
                break self.of_profile_alone(&current, profiles, context).await?;
            };
            if roles.len() == MAX_ROLES {
                return Err(Error::config_invalid(format!("{}: more than {MAX_ROLES} roles in a row", role.name)));
            }
            roles.push(role);
            match (current.get("source_profile"), current.get("credential_source")) {
                // A profile may hold the keys for its own role.
                (Some(source), _) if source == current.name => {
                    break self.of_profile_alone(&current, profiles, context).await?;
                }
                (Some(source), _) => current = profiles.named(source).map_err(of_files)?,
                (None, Some(place)) => break self.of_place(place, context).await?,
                (None, None) => {
                    let needed = "source_profile, credential_source or web_identity_token_file";
                    return Err(Error::config_invalid(format!("the profile '{}' needs {needed}", current.name)));
                }
            }
        };
        let Some(mut credential) = first else {
            return match roles.last() {
                Some(role) => Err(Error::config_invalid(format!("{}: its source has no credentials", role.name))),
                None => Ok(None),
            };
        };
        for role in roles.iter().rev() {
            credential = role.assume(credential, &self.region, context).await?;
        }
        Ok(Some(credential))
    }

    /// What `credential_source` names.
    async fn of_place(&self, place: &str, context: &Context) -> Result<Option<Credential>> {
        match place {
            "Environment" => of_environment(),
            "EcsContainer" => of_container(context).await.map(Some),
            "Ec2InstanceMetadata" => self.of_instance(context).await,
            _ => Err(Error::config_invalid("credential_source is Environment, EcsContainer or Ec2InstanceMetadata")),
        }
    }

    async fn of_profile_alone(
        &self,
        profile: &Profile,
        profiles: &Profiles,
        context: &Context,
    ) -> Result<Option<Credential>> {
        if let Some((file, role)) = profile.get("web_identity_token_file").zip(profile.get("role_arn")) {
            return self.of_web_identity(file, role, profile.get("role_session_name"), context).await.map(Some);
        }
        if let Some((account, role)) = profile.get("sso_account_id").zip(profile.get("sso_role_name")) {
            return of_sso(profile, profiles, (account, role), context).await.map(Some);
        }
        if let Some((id, secret)) = profile.get("aws_access_key_id").zip(profile.get("aws_secret_access_key")) {
            return Ok(Some(credential(id, secret, profile.get("aws_session_token"))));
        }
        match profile.get("credential_process") {
            Some(command) => of_program(&profile.name, command.to_owned()).await.map(Some),
            None => Ok(None),
        }
    }

    async fn of_web_identity(
        &self,
        file: &str,
        role: &str,
        session: Option<&str>,
        context: &Context,
    ) -> Result<Credential> {
        let provider = AssumeRoleWithWebIdentityCredentialProvider::with_config(role.to_owned(), file.into())
            .with_role_session_name(session.unwrap_or(SESSION).to_owned())
            .with_region(self.region.clone())
            .with_regional_sts_endpoint();
        read(&format!("the role {role} by web identity"), provider, context).await
    }

    /// `None`: this is no instance, or it has no role.
    async fn of_instance(&self, context: &Context) -> Result<Option<Credential>> {
        let seen = self.instance.get();
        let is_off = variable("AWS_EC2_METADATA_DISABLED").is_some_and(|value| value.eq_ignore_ascii_case("true"));
        if is_off || seen.absent.is_some_and(|absent| absent.elapsed() < ABSENT) {
            return Ok(None);
        }
        match IMDSv2CredentialProvider::new().provide_credential(context).await {
            Ok(found) => {
                self.instance.set(Seen { has_answered: true, absent: None });
                Ok(found)
            }
            Err(e) if !seen.has_answered && (e.kind() == ErrorKind::ConfigInvalid || told(&e).is_some()) => {
                self.instance.set(Seen { absent: Some(Instant::now()), ..seen });
                Ok(None)
            }
            Err(e) => Err(about("the role of the instance", &e)),
        }
    }
}

impl Instance {
    fn get(&self) -> Seen {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn set(&self, seen: Seen) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = seen;
    }
}

/// A role that a profile assumes.
struct Role {
    /// For errors.
    name: String,
    arn: String,
    session: Option<String>,
    external_id: Option<String>,
    seconds: Option<u32>,
    region: Option<String>,
}

impl Role {
    /// The role of a profile, unless a token of web identity gives it.
    fn of(profile: &Profile) -> Result<Option<Self>> {
        let Some(arn) = profile.get("role_arn").filter(|_| profile.get("web_identity_token_file").is_none()) else {
            return Ok(None);
        };
        let name = format!("the role {arn} of the profile '{}'", profile.name);
        if profile.get("mfa_serial").is_some() {
            return Err(Error::config_invalid(format!("{name} has an mfa_serial, and nobody is there to type a code")));
        }
        let text = |name| profile.get(name).map(str::to_owned);
        Ok(Some(Self {
            name,
            arn: arn.to_owned(),
            session: text("role_session_name"),
            external_id: text("external_id"),
            seconds: profile.get("duration_seconds").and_then(|seconds| seconds.parse().ok()),
            region: text("region"),
        }))
    }

    async fn assume(&self, source: Credential, region: &str, context: &Context) -> Result<Credential> {
        let region = self.region.as_deref().unwrap_or(region);
        let mut keys = StaticCredentialProvider::new(&source.access_key_id, &source.secret_access_key);
        if let Some(token) = &source.session_token {
            keys = keys.with_session_token(token);
        }
        let signer = Signer::new(context.clone(), keys, RequestSigner::new("sts", region));
        let mut provider = AssumeRoleCredentialProvider::new(self.arn.clone(), signer)
            .with_role_session_name(self.session.clone().unwrap_or_else(|| SESSION.to_owned()))
            .with_region(region.to_owned())
            .with_regional_sts_endpoint();
        if let Some(id) = &self.external_id {
            provider = provider.with_external_id(id.clone());
        }
        if let Some(seconds) = self.seconds {
            provider = provider.with_duration_seconds(seconds);
        }
        read(&self.name, provider, context).await
    }
}

fn credential(id: &str, secret: &str, token: Option<&str>) -> Credential {
    Credential {
        access_key_id: id.to_owned(),
        secret_access_key: secret.to_owned(),
        session_token: token.map(str::to_owned),
        expires_in: None,
    }
}

fn of_environment() -> Result<Option<Credential>> {
    match (variable("AWS_ACCESS_KEY_ID"), variable("AWS_SECRET_ACCESS_KEY")) {
        (Some(id), Some(secret)) => Ok(Some(credential(&id, &secret, variable("AWS_SESSION_TOKEN").as_deref()))),
        (Some(_), None) => Err(Error::config_invalid("AWS_ACCESS_KEY_ID is set, and AWS_SECRET_ACCESS_KEY is not")),
        (None, _) => Ok(None),
    }
}

async fn of_container(context: &Context) -> Result<Credential> {
    read("the role of the container", ECSCredentialProvider::new(), context).await
}

/// Single sign-on: the token that `aws sso login` has stored gives the role.
async fn of_sso(
    profile: &Profile,
    profiles: &Profiles,
    (account, role): (&str, &str),
    context: &Context,
) -> Result<Credential> {
    let name = format!("single sign-on of the profile '{}'", profile.name);
    let session = profile.get("sso_session");
    let place = match session {
        Some(session) => profiles.sso_session(session),
        None => Some(profile.clone()),
    };
    // The stored token has the name of the session or, without one, of the URL.
    let token = session.or_else(|| profile.get("sso_start_url"));
    let Some((region, token)) = place.as_ref().and_then(|place| place.get("sso_region")).zip(token) else {
        return Err(Error::config_invalid(format!("{name} has no sso_region, or no sso_session or sso_start_url")));
    };
    let provider = SSOCredentialProvider::new()
        .with_account_id(account)
        .with_role_name(role)
        .with_region(region)
        .with_start_url(token);
    let found = read(&name, provider, context).await;
    found.map_err(|e| Error::new(e.kind(), format!("{e}; see 'aws sso login'")).set_retryable(e.is_retryable()))
}

/// What a program of `credential_process` prints.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Printed {
    version: u32,
    access_key_id: String,
    secret_access_key: String,
    session_token: Option<String>,
    expiration: Option<String>,
}

/// Runs a program as a shell does, since its arguments may be quoted.
async fn of_program(profile: &str, command: String) -> Result<Credential> {
    let failed = |why: &str| Error::config_invalid(format!("credential_process of the profile '{profile}': {why}"));
    let run = move || Command::new("sh").args(["-c", &command]).stdin(Stdio::null()).output();
    let output = blocking(run).await.map_err(|e| failed(&e.to_string()))?;
    if !output.status.success() {
        return Err(failed(&output.status.to_string()));
    }
    // The parser's own words would show what it has read.
    let printed: Option<Printed> = serde_json::from_slice(&output.stdout).ok();
    let printed = printed.filter(|printed| printed.version == 1);
    let printed = printed.ok_or_else(|| failed("it printed no credentials of version 1"))?;
    let expires_in = printed.expiration.map(|time| time.parse()).transpose();
    Ok(Credential {
        expires_in: expires_in.map_err(|_| failed("its Expiration is no time"))?,
        ..credential(&printed.access_key_id, &printed.secret_access_key, printed.session_token.as_deref())
    })
}

/// What a provider of reqsign gives; its error is one about `name`.
async fn read(
    name: &str,
    provider: impl ProvideCredential<Credential = Credential>,
    context: &Context,
) -> Result<Credential> {
    let found = provider.provide_credential(context).await.map_err(|e| about(name, &e))?;
    found.ok_or_else(|| Error::config_invalid(format!("{name}: it is not set up")))
}

fn about(name: &str, error: &Error) -> Error {
    Error::new(error.kind(), format!("{name}: {}", why(error))).set_retryable(error.is_retryable())
}

/// An error about `~/.aws`, as reqsign has errors.
fn of_files(error: s4::error::Error) -> Error {
    Error::config_invalid(error.to_string())
}

/// What may be told of an error of reqsign: our own words in it, else the code that a service gave, else its kind.
fn why(error: &Error) -> String {
    let text = error.to_string();
    let is_code = |code: &&str| !code.is_empty() && code.bytes().all(|b| b.is_ascii_alphanumeric());
    let code = text.split_once(": ").map(|(code, _)| code).filter(is_code);
    told(error).or(code).map_or_else(|| of_kind(error.kind()).to_owned(), str::to_owned)
}

fn told(error: &Error) -> Option<&str> {
    let mut cause: Option<&(dyn std::error::Error + 'static)> = Some(error);
    while let Some(inner) = cause {
        if let Some(Told(text)) = inner.downcast_ref() {
            return Some(text);
        }
        cause = inner.source();
    }
    None
}

fn of_kind(kind: ErrorKind) -> &'static str {
    match kind {
        ErrorKind::CredentialInvalid => "invalid, or expired",
        ErrorKind::PermissionDenied => "refused",
        ErrorKind::ConfigInvalid => "not found, or not set up rightly",
        ErrorKind::RequestInvalid => "malformed",
        ErrorKind::RateLimited => "busy",
        ErrorKind::Unexpected => "no usable answer",
    }
}
