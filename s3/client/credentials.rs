//! The credentials of requests: those that were sent, else those of this machine's own [chain](Chain). reqsign keeps them until
//! shortly before they expire. It needs HTTP and files of us, which are bounded here.

use super::chain::{Chain, Instance, Told};
use super::failure::{Failure, Reason};
use super::http::Http;
use super::profile::variable;
use super::settings::Settings;
use bytes::Bytes;
use http_body_util::Full;
use hyper::{Request, Response};
use reqsign_aws_v4::{RequestSigner, StaticCredentialProvider};
use reqsign_core::{Context, Error, FileRead, HttpSend, OsEnv, Result, Signer};
use std::fmt;
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
    instance: Arc<Instance>,
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
        let (region, instance) = (settings.region.clone(), Arc::default());
        let signer = Arc::new(signer(&settings, &http, &region, &instance));
        Self { settings, http, instance, current: Mutex::new(Current { signer, region, renewed: None }) }
    }

    pub fn region(&self) -> String {
        self.lock().region.clone()
    }

    /// The bucket is in another region.
    pub fn move_to(&self, region: &str) {
        let signer = Arc::new(signer(&self.settings, &self.http, region, &self.instance));
        let mut current = self.lock();
        (current.signer, current.region) = (signer, region.to_owned());
    }

    /// Reads the credentials again: the server says that they have expired.
    pub fn renew(&self) {
        let mut current = self.lock();
        if current.renewed.is_none_or(|renewed| renewed.elapsed() >= AGAIN) {
            current.renewed = Some(Instant::now());
            current.signer = Arc::new(signer(&self.settings, &self.http, &current.region, &self.instance));
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

fn no_credentials(error: &Error) -> Failure {
    let reason = if error.is_retryable() { Reason::Broken } else { Reason::Forbidden };
    Failure::new(reason, format!("no credentials: {error}"))
}

fn signer(settings: &Settings, http: &Http, region: &str, instance: &Arc<Instance>) -> AwsSigner {
    let context = Context::new().with_env(OsEnv).with_file_read(Files).with_http_send(Requests(http.clone()));
    let builder = RequestSigner::new("s3", region);
    match &settings.credentials {
        Some(sent) => {
            let mut provider = StaticCredentialProvider::new(&sent.access_key_id, &sent.secret_access_key);
            if let Some(token) = &sent.session_token {
                provider = provider.with_session_token(token);
            }
            Signer::new(context, provider, builder)
        }
        None => {
            let (profile, region) = (settings.profile.clone(), settings.region.clone());
            Signer::new(context, Chain { profile, region, instance: instance.clone() }, builder)
        }
    }
}

#[derive(Debug)]
struct Files;

impl FileRead for Files {
    async fn file_read(&self, path: &str) -> Result<Vec<u8>> {
        let path = path.to_owned();
        let read = s4::client::blocking(move || std::fs::read(&path).map_err(|e| format!("{path}: {e}"))).await;
        read.map_err(|why| Error::unexpected("a file of credentials cannot be read").with_source(Told(why)))
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
        let failed = |why: String| Error::unexpected("a request for credentials failed").with_source(Told(why));
        let request = directed(request).map_err(failed)?;
        let exchange = async {
            let (response, body) = self.0.send(request.map(Full::new)).await?;
            let body = body.read(MAX_ANSWER).await?;
            Ok::<_, Failure>(response.map(|()| body))
        };
        match tokio::time::timeout(ANSWER, exchange).await {
            Ok(answered) => answered.map_err(|e| failed(e.to_string()).set_retryable(true)),
            Err(_) => Err(failed("no answer".to_owned()).set_retryable(true)),
        }
    }
}

/// Sends what is meant for STS to where `AWS_ENDPOINT_URL_STS` says. A signed request keeps the host that it was signed for.
fn directed(request: Request<Bytes>) -> std::result::Result<Request<Bytes>, String> {
    let is_sts = request.uri().host().is_some_and(|host| host.starts_with("sts."));
    let Some(endpoint) = variable("AWS_ENDPOINT_URL_STS").filter(|_| is_sts) else { return Ok(request) };
    let (mut parts, body) = request.into_parts();
    let path = parts.uri.path_and_query().map_or("/", |path| path.as_str());
    let uri = format!("{}{path}", endpoint.trim_end_matches('/')).parse();
    parts.uri = uri.map_err(|e| format!("AWS_ENDPOINT_URL_STS: {e}"))?;
    Ok(Request::from_parts(parts, body))
}
