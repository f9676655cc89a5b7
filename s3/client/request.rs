//! How a request is sent: built, signed, and sent again where that may help.

use super::checksum::sha256_hex;
use super::credentials::Credentials;
use super::failure::{Failure, Reason};
use super::governor::{Governor, Permit};
use super::http::{Body, Http};
use super::place;
use super::settings::Settings;
use super::xml;
use bytes::Bytes;
use http_body_util::Full;
use hyper::header::{HeaderName, HeaderValue};
use hyper::{HeaderMap, Method, Request};
use s4::error::Error;
use std::hash::{BuildHasher, Hasher, RandomState};
use std::sync::Arc;
use std::time::Duration;

/// How often a request is sent at most.
const TRIES: u32 = 10;
/// The longest pause before the second attempt; it doubles with each, up to the other.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const MAX_PAUSE: Duration = Duration::from_secs(10);
/// Limit of bytes of the body of an error.
const MAX_ERROR: usize = 64 << 10;

/// A client of S3. Clones share connections and credentials.
#[derive(Clone)]
pub struct S3(Arc<Inner>);

struct Inner {
    settings: Settings,
    http: Http,
    credentials: Credentials,
    governor: Arc<Governor>,
}

/// A request, before it is signed.
#[derive(Clone, Default)]
pub struct Ask<'a> {
    pub method: Method,
    pub bucket: &'a str,
    pub key: &'a str,
    pub query: Vec<(&'a str, &'a str)>,
    pub headers: Vec<(HeaderName, HeaderValue)>,
    pub body: Bytes,
}

/// A good answer. The permit counts the request until its body was read.
pub struct Answer {
    pub headers: HeaderMap,
    pub status: u16,
    pub body: Body,
    _permit: Permit,
}

impl Ask<'_> {
    pub fn with(mut self, name: &'static str, value: &str) -> Result<Self, Failure> {
        let value = HeaderValue::from_bytes(value.as_bytes());
        let value = value.map_err(|_| Failure::new(Reason::Other, format!("{name}: its value is no header")))?;
        self.headers.push((HeaderName::from_static(name), value));
        Ok(self)
    }
}

impl S3 {
    /// Errors: the authorities of servers cannot be read.
    pub fn new(settings: Settings) -> Result<Self, Error> {
        let http = Http::new(settings.silence, settings.authorities.as_deref())?;
        let credentials = Credentials::new(settings.clone(), http.clone());
        let governor = Governor::new(settings.requests);
        Ok(Self(Arc::new(Inner { settings, http, credentials, governor })))
    }

    /// Runs `attempt` until it succeeds or fails for good. `attempt` sends one request and reads its answer.
    pub async fn retrying<T, F>(&self, attempt: impl Fn() -> F) -> Result<T, Failure>
    where
        F: Future<Output = Result<T, Failure>>,
    {
        let mut tries = 1;
        loop {
            let failure = match attempt().await {
                Ok(value) => {
                    self.0.governor.speed_up();
                    return Ok(value);
                }
                Err(failure) => failure,
            };
            match failure.reason {
                Reason::Busy => self.0.governor.slow_down(),
                Reason::Expired => self.0.credentials.renew(),
                _ => {}
            }
            if !failure.is_transient() || tries >= TRIES {
                return Err(failure);
            }
            tokio::time::sleep(pause(tries)).await;
            tries += 1;
        }
    }

    /// Sends a request whose answer has a short body, until it is answered.
    pub async fn ask(&self, ask: &Ask<'_>, most: usize) -> Result<(HeaderMap, Bytes), Failure> {
        self.retrying(|| async {
            let answer = self.send(ask).await?;
            let body = answer.body.read(most).await?;
            Ok((answer.headers, body))
        })
        .await
    }

    /// Sends a request once. Any status but 2xx is a failure.
    pub async fn send(&self, ask: &Ask<'_>) -> Result<Answer, Failure> {
        let permit = self.0.governor.enter().await;
        let request = self.build(ask)?;
        let request = self.0.credentials.sign(request, &self.payload(ask)).await?;
        let (response, body) = self.0.http.send(request).await?;
        let (status, headers) = (response.status().as_u16(), response.into_parts().0.headers);
        match status {
            200..300 => Ok(Answer { headers, status, body, _permit: permit }),
            _ => Err(self.refusal(status, &headers, body).await),
        }
    }

    /// What the server refused, and why. A bucket that is elsewhere is asked there from now on.
    async fn refusal(&self, status: u16, headers: &HeaderMap, body: Body) -> Failure {
        let text = body.read(MAX_ERROR).await.unwrap_or_default();
        let error = xml::error(&text).unwrap_or_default();
        let failure = Failure::of_answer(status, &error.code, &error.message);
        let told = headers.get("x-amz-bucket-region").and_then(|region| region.to_str().ok());
        let region = told.or(Some(&*error.region)).filter(|region| !region.is_empty());
        match region {
            Some(region) if *region != self.0.credentials.region() && self.0.settings.endpoint.is_none() => {
                self.0.credentials.move_to(region);
                Failure::new(Reason::Region, failure.to_string())
            }
            _ if failure.reason == Reason::Region => Failure::new(Reason::Other, format!("{failure}; see --region")),
            _ => failure,
        }
    }

    fn build(&self, ask: &Ask<'_>) -> Result<Request<Full<Bytes>>, Failure> {
        let Settings { endpoint, request_payer, .. } = &self.0.settings;
        let region = self.0.credentials.region();
        let malformed = |e: &dyn std::fmt::Display| Failure::new(Reason::Other, format!("no URL: {e}"));
        let uri =
            place::uri(endpoint.as_deref(), &region, ask.bucket, ask.key, &ask.query).map_err(|e| malformed(&e))?;
        let mut request = Request::builder().method(&ask.method).uri(uri);
        for (name, value) in &ask.headers {
            request = request.header(name, value);
        }
        if *request_payer {
            request = request.header("x-amz-request-payer", "requester");
        }
        request.body(Full::new(ask.body.clone())).map_err(|e| malformed(&e))
    }

    /// The digest of the body that is signed. TLS protects the body by itself, and so does a checksum beside it.
    fn payload(&self, ask: &Ask<'_>) -> String {
        let is_plain = self.0.settings.endpoint.as_deref().is_some_and(|endpoint| endpoint.starts_with("http://"));
        match is_plain && !self.0.settings.anonymous {
            true => sha256_hex(&ask.body),
            false => "UNSIGNED-PAYLOAD".to_owned(),
        }
    }
}

/// A random pause before the attempt after `tries` failed ones: many clients must not come back together.
fn pause(tries: u32) -> Duration {
    let most = FIRST_PAUSE.saturating_mul(1 << tries.min(10)).min(MAX_PAUSE);
    let share = RandomState::new().build_hasher().finish() as f64 / u64::MAX as f64;
    most.mul_f64(share)
}
