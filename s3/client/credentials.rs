//! The credentials of requests: those that were sent, else this machine's own chain (environment, profile, SSO, web identity, a
//! program, the role of a container or an instance). reqsign keeps them until shortly before they expire. It needs HTTP,
//! files and programs of us, which are bounded here.

use super::failure::{Failure, Reason};
use super::http::Http;
use super::settings::Settings;
use bytes::Bytes;
use http_body_util::Full;
use hyper::{Request, Response};
use reqsign_aws_v4::{DefaultCredentialProvider, RequestSigner, StaticCredentialProvider};
use reqsign_core::{CommandExecute, CommandOutput, Context, Error, FileRead, HttpSend, OsEnv, Result, Signer};
use std::fmt;
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// How long a request for credentials may take: where there is no role, its address is silent.
const ANSWER: Duration = Duration::from_secs(5);
/// Limit of bytes of such an answer.
const MAX_ANSWER: usize = 1 << 20;
/// Expired credentials are read again at most so often.
const AGAIN: Duration = Duration::from_secs(2);

type AwsSigner = Signer<reqsign_aws_v4::Credential>;

/// Signs requests for a region.
pub struct Credentials {
    settings: Settings,
    http: Http,
    current: Mutex<Current>,
}

/// Guards the signer in use, its region, and when its credentials were dropped last.
struct Current {
    signer: Arc<AwsSigner>,
    region: String,
    renewed: Option<Instant>,
}

impl Credentials {
    pub fn new(settings: Settings, http: Http) -> Self {
        let region = settings.region.clone();
        let signer = Arc::new(signer(&settings, &http, &region));
        Self { settings, http, current: Mutex::new(Current { signer, region, renewed: None }) }
    }

    pub fn region(&self) -> String {
        self.lock().region.clone()
    }

    /// The bucket is in another region.
    pub fn move_to(&self, region: &str) {
        let signer = Arc::new(signer(&self.settings, &self.http, region));
        let mut current = self.lock();
        (current.signer, current.region) = (signer, region.to_owned());
    }

    /// Reads the credentials again: the server says that they have expired.
    pub fn renew(&self) {
        let mut current = self.lock();
        if current.renewed.is_none_or(|renewed| renewed.elapsed() >= AGAIN) {
            current.renewed = Some(Instant::now());
            current.signer = Arc::new(signer(&self.settings, &self.http, &current.region));
        }
    }

    /// Signs a request, unless requests are anonymous. `payload` is the SHA-256 of its body, or says that it is not signed.
    pub async fn sign(
        &self,
        request: Request<Full<Bytes>>,
        payload: &str,
    ) -> std::result::Result<Request<Full<Bytes>>, Failure> {
        if self.settings.anonymous {
            return Ok(request);
        }
        let signer = self.lock().signer.clone();
        let (mut parts, body) = request.into_parts();
        let payload = payload.parse().map_err(|_| Failure::new(Reason::Other, "a digest is no header"))?;
        parts.headers.insert("x-amz-content-sha256", payload);
        signer.sign(&mut parts, None).await.map_err(|e| no_credentials(&e))?;
        Ok(Request::from_parts(parts, body))
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Current> {
        self.current.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The error's own words may hold what was read, so only its kind is told.
fn no_credentials(error: &Error) -> Failure {
    let reason = if error.is_retryable() { Reason::Broken } else { Reason::Forbidden };
    let why = format!("{:?}", error.kind());
    let found =
        "no credentials were found: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, --profile, or --no-sign-request";
    Failure::new(reason, format!("{found} ({why})"))
}

fn signer(settings: &Settings, http: &Http, region: &str) -> AwsSigner {
    let context = Context::new()
        .with_env(OsEnv)
        .with_file_read(Files)
        .with_http_send(Requests(http.clone()))
        .with_command_execute(Programs);
    let builder = RequestSigner::new("s3", region);
    match (&settings.credentials, &settings.profile) {
        (Some(sent), _) => {
            let mut provider = StaticCredentialProvider::new(&sent.access_key_id, &sent.secret_access_key);
            if let Some(token) = &sent.session_token {
                provider = provider.with_session_token(token);
            }
            Signer::new(context, provider, builder)
        }
        // A profile that is asked for comes before the environment, as in other programs.
        (None, Some(profile)) => {
            let chain = DefaultCredentialProvider::builder().with_profile(profile).no_env().build();
            Signer::new(context, chain, builder)
        }
        (None, None) => Signer::new(context, DefaultCredentialProvider::new(), builder),
    }
}

#[derive(Debug)]
struct Files;

impl FileRead for Files {
    async fn file_read(&self, path: &str) -> Result<Vec<u8>> {
        let path = path.to_owned();
        let read = s4::client::blocking(move || std::fs::read(path)).await;
        read.map_err(|e| Error::unexpected("a file of credentials cannot be read").with_source(e))
    }
}

struct Requests(Http);

impl fmt::Debug for Requests {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Requests")
    }
}

impl HttpSend for Requests {
    async fn http_send(&self, request: Request<Bytes>) -> Result<Response<Bytes>> {
        let failed =
            |why: &str| Error::unexpected(format!("a request for credentials failed: {why}")).set_retryable(true);
        let exchange = async {
            let (response, body) = self.0.send(request.map(Full::new)).await?;
            let body = body.read(MAX_ANSWER).await?;
            Ok::<_, Failure>(response.map(|()| body))
        };
        match tokio::time::timeout(ANSWER, exchange).await {
            Ok(answered) => answered.map_err(|e| failed(&e.to_string())),
            Err(_) => Err(failed("no answer")),
        }
    }
}

#[derive(Debug)]
struct Programs;

impl CommandExecute for Programs {
    async fn command_execute<'a>(&'a self, program: &'a str, args: &'a [&'a str]) -> Result<CommandOutput> {
        let mut command = Command::new(program);
        command.args(args).stdin(Stdio::null());
        let ended = s4::client::blocking(move || command.output()).await;
        let output =
            ended.map_err(|e| Error::unexpected("the program for credentials cannot be run").with_source(e))?;
        let status = output.status.code().unwrap_or(1);
        Ok(CommandOutput { status, stdout: output.stdout, stderr: output.stderr })
    }
}
