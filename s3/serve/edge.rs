//! The edge of the door, in front of s3s: refuses browsers, watches the bodies of requests, and reads to the end what a
//! refused request still sends, since many clients read no answer before they have sent everything.

use super::frames::{Frames, Malformed};
use bytes::Bytes;
use hyper::body::{Body, Frame, Incoming, SizeHint};
use hyper::header::{
    AUTHORIZATION, CONNECTION, CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, EXPECT, HeaderMap, HeaderName, HeaderValue,
};
use hyper::http::request::Parts;
use hyper::{Method, Request, Response, StatusCode, Uri};
use s3s::service::S3Service;
use s3s::{HttpError, S3Error, s3_error};
use s4::browsers;
use std::collections::VecDeque;
use std::fmt;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::time::{Instant, Sleep};

/// How long a client may be silent in the middle of a body.
const SILENCE: Duration = Duration::from_secs(60);
/// Bytes that are read of a refused request: the longest object that S3 takes in one piece.
const MAX_DRAINED: u64 = 5 << 30;

pub struct Edge {
    service: S3Service,
    /// The names by which clients may call this door.
    names: Vec<String>,
    requests: AtomicU64,
}

impl Edge {
    pub fn new(service: S3Service, names: Vec<String>) -> Self {
        Self { service, names, requests: AtomicU64::new(0) }
    }

    pub async fn answer(&self, request: Request<Incoming>) -> Result<Response<s3s::Body>, HttpError> {
        let id = self.requests.fetch_add(1, Ordering::Relaxed);
        let mut response = match self.refusal(&request) {
            Some(error) => error.to_http_response().map_err(|e| HttpError::new(Box::new(e)))?,
            None => self.serve(request).await?,
        };
        let id = format!("{id:016X}");
        if response.status().is_client_error() || response.status().is_server_error() {
            complete(&mut response, &id);
        }
        if let Ok(id) = HeaderValue::from_str(&id) {
            response.headers_mut().insert(HeaderName::from_static("x-amz-request-id"), id);
        }
        Ok(response)
    }

    fn refusal(&self, request: &Request<Incoming>) -> Option<S3Error> {
        let names = self.names.iter().map(String::as_str);
        let known = "a name of the cluster file or of --host";
        if let Err(error) = browsers::refuse(request.headers(), names, known) {
            return Some(s3_error!(AccessDenied, "{error}"));
        }
        if request.uri().query().is_some_and(|query| query.contains("X-Amz-Expires=-")) {
            return Some(s3_error!(AccessDenied, "Request has expired"));
        }
        let content_type = request.headers().get(CONTENT_TYPE).map_or(&b""[..], HeaderValue::as_bytes);
        if request.method() == Method::POST && content_type.starts_with(b"multipart/form-data") {
            return Some(s3_error!(NotImplemented, "uploads from forms of web pages are not served"));
        }
        None
    }

    async fn call(&self, mut parts: Parts, body: Received, is_empty: bool) -> Result<Response<s3s::Body>, HttpError> {
        // boto3 signs `/bucket/` for `/bucket` by version 2, and others sign what they send. The first try is boto3's.
        let as_sent = parts.clone();
        let v2_bucket = v2_bucket(&parts);
        let is_v2_bucket = v2_bucket.is_some();
        parts.uri = v2_bucket.unwrap_or(parts.uri);
        let response = self.service.call(Request::from_parts(parts, s3s::Body::http_body_unsync(body))).await?;
        match is_v2_bucket && is_empty && response.status() == StatusCode::FORBIDDEN {
            true => self.service.call(Request::from_parts(as_sent, s3s::Body::empty())).await,
            false => Ok(response),
        }
    }

    async fn serve(&self, request: Request<Incoming>) -> Result<Response<s3s::Body>, HttpError> {
        let (mut parts, body) = request.into_parts();
        let (fault, rest) = (BodyFault::default(), Rest::default());
        let (awaits_consent, is_empty) = (parts.headers.contains_key(EXPECT), body.is_end_stream());
        let body = Received::new(body, frames(&parts.headers), fault.clone(), rest.clone());
        parts.extensions.insert(fault);
        let is_head = parts.method == Method::HEAD;
        let mut response = self.call(parts, body, is_empty).await?;
        // s3s has this status for GetObject only.
        if is_head && response.headers().contains_key(CONTENT_RANGE) && response.status() == StatusCode::OK {
            *response.status_mut() = StatusCode::PARTIAL_CONTENT;
        }
        // hyper consents when the body is read for the first time, and never to an empty one. boto3 cannot use a
        // connection any more on which the answer came without consent.
        let has_no_consent = match rest.take() {
            Some((_, false)) if awaits_consent => true,
            Some((body, _)) => {
                drain(body).await;
                false
            }
            None => awaits_consent && is_empty,
        };
        if has_no_consent {
            response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
        }
        Ok(response)
    }
}

/// The address of a bucket, with a slash at its end, if the request has a signature of version 2.
fn v2_bucket(parts: &Parts) -> Option<Uri> {
    let is_v2 = parts.headers.get(AUTHORIZATION).is_some_and(|value| value.as_bytes().starts_with(b"AWS "))
        || parts.uri.query().is_some_and(|query| query.split('&').any(|field| field.starts_with("Signature=")));
    let bucket = parts.uri.path().strip_prefix('/').filter(|path| !path.is_empty() && !path.contains('/'))?;
    let query = parts.uri.query().map_or(String::new(), |query| format!("?{query}"));
    if is_v2 { format!("/{bucket}/{query}").parse().ok() } else { None }
}

/// The frames of an aws-chunked body.
fn frames(headers: &HeaderMap) -> Option<Frames> {
    let form = headers.get("x-amz-content-sha256")?.as_bytes();
    form.starts_with(b"STREAMING-").then(|| Frames::new(form != b"STREAMING-UNSIGNED-PAYLOAD-TRAILER"))
}

/// Completes the XML of an error with the request's id, which clients print; and with a reason, if s3s gives none.
fn complete(response: &mut Response<s3s::Body>, id: &str) {
    let Some(bytes) = response.body().bytes() else { return };
    let Ok(text) = std::str::from_utf8(&bytes) else { return };
    let Some(start) = text.strip_suffix("</Error>") else { return };
    let reason = match text.contains("<Code>SignatureDoesNotMatch</Code>") && !text.contains("<Message>") {
        true => {
            "<Message>the signature does not match; the secret access key is the secret of the cluster, the first \
                 line of its secret file</Message>"
        }
        false => "",
    };
    *response.body_mut() = s3s::Body::from(format!("{start}{reason}<RequestId>{id}</RequestId></Error>"));
    response.headers_mut().remove(CONTENT_LENGTH);
}

/// Reads a body to its end, or to a bound. After an error, the connection ends anyway.
async fn drain(body: Incoming) {
    let mut body = Received::new(body, None, BodyFault::default(), Rest::default());
    let mut drained = 0;
    while drained < MAX_DRAINED {
        match std::future::poll_fn(|cx| Pin::new(&mut body).poll_frame(cx)).await {
            Some(Ok(frame)) => drained += frame.data_ref().map_or(0, Bytes::len) as u64,
            Some(Err(_)) | None => return,
        }
    }
}

/// Why a body could not be read. Carried from the body to the handler of the request.
#[derive(Clone, Default)]
pub struct BodyFault(Arc<OnceLock<Fault>>);

#[derive(Debug, Clone, Copy)]
enum Fault {
    Silent,
    Cut,
    Malformed(Malformed),
}

impl BodyFault {
    pub fn error(&self) -> Option<S3Error> {
        Some(match self.0.get()? {
            Fault::Silent => s3_error!(RequestTimeout, "the client was silent for {} s in its body", SILENCE.as_secs()),
            Fault::Cut => s3_error!(IncompleteBody, "the body ended before its last chunk"),
            Fault::Malformed(Malformed::Frame) => s3_error!(IncompleteBody, "the body is not well-formed aws-chunked"),
            Fault::Malformed(Malformed::ChunkTooLarge) => {
                s3_error!(InvalidRequest, "a signed chunk is at most 8 MiB")
            }
        })
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self:?}")
    }
}

impl std::error::Error for Fault {}

/// Where a body that was dropped before its end is left, and whether reading it had begun.
#[derive(Clone, Default)]
struct Rest(Arc<Mutex<Option<(Incoming, bool)>>>);

impl Rest {
    fn take(&self) -> Option<(Incoming, bool)> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

/// The body of a request: within a deadline, and in small frames.
struct Received {
    /// `None` after its end, or after an error.
    inner: Option<Incoming>,
    is_begun: bool,
    frames: Option<Frames>,
    ready: VecDeque<Bytes>,
    silence: Pin<Box<Sleep>>,
    fault: BodyFault,
    rest: Rest,
}

impl Received {
    fn new(inner: Incoming, frames: Option<Frames>, fault: BodyFault, rest: Rest) -> Self {
        let silence = Box::pin(tokio::time::sleep(SILENCE));
        Self { inner: Some(inner), is_begun: false, frames, ready: VecDeque::new(), silence, fault, rest }
    }

    fn fail(&mut self, fault: Fault) -> Poll<Option<Result<Frame<Bytes>, s3s::StdError>>> {
        let _ = self.fault.0.set(fault);
        Poll::Ready(Some(Err(Box::new(fault))))
    }

    fn end(&mut self) -> Poll<Option<Result<Frame<Bytes>, s3s::StdError>>> {
        self.inner = None;
        match &self.frames {
            Some(frames) if !frames.is_complete() => self.fail(Fault::Cut),
            _ => Poll::Ready(None),
        }
    }
}

impl Body for Received {
    type Data = Bytes;
    type Error = s3s::StdError;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, s3s::StdError>>> {
        let this = self.get_mut();
        loop {
            if let Some(bytes) = this.ready.pop_front() {
                return Poll::Ready(Some(Ok(Frame::data(bytes))));
            }
            let Some(inner) = &mut this.inner else { return Poll::Ready(None) };
            if !std::mem::replace(&mut this.is_begun, true) {
                this.silence.as_mut().reset(Instant::now() + SILENCE);
            }
            match Pin::new(inner).poll_frame(cx) {
                Poll::Ready(Some(Ok(frame))) => {
                    this.silence.as_mut().reset(Instant::now() + SILENCE);
                    // Trailers of HTTP mean nothing here.
                    let Ok(bytes) = frame.into_data() else { continue };
                    match &mut this.frames {
                        None => this.ready.push_back(bytes),
                        Some(frames) => {
                            if let Err(malformed) = frames.push(bytes, &mut this.ready) {
                                return this.fail(Fault::Malformed(malformed));
                            }
                        }
                    }
                }
                Poll::Ready(Some(Err(error))) => {
                    this.inner = None;
                    return Poll::Ready(Some(Err(Box::new(error))));
                }
                Poll::Ready(None) => return this.end(),
                Poll::Pending => {
                    if this.silence.as_mut().poll(cx).is_pending() {
                        return Poll::Pending;
                    }
                    this.inner = None;
                    return this.fail(Fault::Silent);
                }
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.ready.is_empty() && self.inner.as_ref().is_none_or(Incoming::is_end_stream) && self.frames.is_none()
    }

    fn size_hint(&self) -> SizeHint {
        match (&self.inner, &self.frames) {
            (Some(inner), None) => inner.size_hint(),
            _ => SizeHint::default(),
        }
    }
}

impl Drop for Received {
    fn drop(&mut self) {
        if let Some(inner) = self.inner.take().filter(|inner| !inner.is_end_stream()) {
            *self.rest.0.lock().unwrap_or_else(PoisonError::into_inner) = Some((inner, self.is_begun));
        }
    }
}
