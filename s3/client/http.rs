//! HTTP and HTTPS over pooled connections, with a bound on how long a server may be silent.

use super::failure::{Failure, Reason};
use bytes::{Bytes, BytesMut};
use http_body_util::{BodyExt, Full};
use hyper::body::{Body as _, Incoming};
use hyper::{Request, Response};
use hyper_rustls::{ConfigBuilderExt, HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::{self, PemObject};
use rustls::{ClientConfig, RootCertStore};
use s4::error::Error;
use std::time::Duration;

/// How long to wait for a connection.
const CONNECT: Duration = Duration::from_secs(5);
/// How long an idle connection is kept. Servers close theirs after 20 s or more.
const IDLE: Duration = Duration::from_secs(15);

#[derive(Clone)]
pub struct Http {
    client: Client<HttpsConnector<HttpConnector>, Full<Bytes>>,
    silence: Duration,
}

/// The body of a response, block by block.
pub struct Body {
    incoming: Incoming,
    silence: Duration,
}

impl Http {
    /// `authorities` is a file of those that vouch for servers, in place of this machine's. Errors: it cannot be read, or
    /// has none.
    pub fn new(silence: Duration, authorities: Option<&str>) -> Result<Self, Error> {
        let mut tcp = HttpConnector::new();
        tcp.set_connect_timeout(Some(CONNECT));
        tcp.set_nodelay(true);
        tcp.enforce_http(false);
        let tls = ClientConfig::builder();
        let tls = match authorities {
            Some(file) => tls.with_root_certificates(roots(file)?).with_no_client_auth(),
            // A machine without certificates still reaches servers that need none; of others it says that it knows no issuer.
            None => tls.with_native_roots().map(|roots| roots.with_no_client_auth()).unwrap_or_else(|_| {
                ClientConfig::builder().with_root_certificates(RootCertStore::empty()).with_no_client_auth()
            }),
        };
        let https =
            HttpsConnectorBuilder::new().with_tls_config(tls).https_or_http().enable_http1().wrap_connector(tcp);
        let mut builder = Client::builder(TokioExecutor::new());
        builder.pool_timer(TokioTimer::new()).pool_idle_timeout(IDLE);
        Ok(Self { client: builder.build(https), silence })
    }

    /// Sends a request and waits for the head of the response.
    pub async fn send(&self, request: Request<Full<Bytes>>) -> Result<(Response<()>, Body), Failure> {
        // A body is sent within the wait, at 1 MiB/s at least.
        let len = request.body().size_hint().exact().unwrap_or(0);
        let wait = self.silence + Duration::from_secs(len >> 20);
        let answered = tokio::time::timeout(wait, self.client.request(request)).await;
        let response = answered.map_err(|_| silent(wait))?.map_err(|e| broken(&e))?;
        let (parts, incoming) = response.into_parts();
        Ok((Response::from_parts(parts, ()), Body { incoming, silence: self.silence }))
    }
}

impl Body {
    /// The next block, or `None` at the end. A body that ends before its promised length is an error.
    pub async fn next(&mut self) -> Result<Option<Bytes>, Failure> {
        loop {
            let frame = tokio::time::timeout(self.silence, self.incoming.frame()).await;
            match frame.map_err(|_| silent(self.silence))? {
                None => return Ok(None),
                Some(Err(error)) => return Err(broken(&error)),
                Some(Ok(frame)) => {
                    if let Ok(block) = frame.into_data() {
                        return Ok(Some(block));
                    }
                }
            }
        }
    }

    /// The whole body, which may have at most `most` bytes.
    pub async fn read(mut self, most: usize) -> Result<Bytes, Failure> {
        let mut whole = BytesMut::new();
        while let Some(block) = self.next().await? {
            if whole.len() + block.len() > most {
                return Err(Failure::new(Reason::Broken, format!("the answer has more than {most} bytes")));
            }
            whole.extend_from_slice(&block);
        }
        Ok(whole.freeze())
    }
}

fn roots(file: &str) -> Result<RootCertStore, Error> {
    let refused = |why: &str| Error::usage(format!("{file}: no certificates of authorities can be read: {why}"));
    let unread = |e: pem::Error| match e {
        pem::Error::Io(e) => Error::io(file, &e),
        // Its own words would show what is in the file.
        _ => refused("it is malformed"),
    };
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_file_iter(file).map_err(unread)? {
        roots.add(certificate.map_err(unread)?).map_err(|e| refused(&e.to_string()))?;
    }
    if roots.is_empty() { Err(refused("it has none")) } else { Ok(roots) }
}

fn broken(error: &(dyn std::error::Error + 'static)) -> Failure {
    // The innermost cause says it best.
    let mut cause = error;
    while let Some(inner) = cause_of(cause) {
        cause = inner;
    }
    match cause.downcast_ref() {
        Some(rustls::Error::InvalidCertificate(why)) => {
            let more = "AWS_CA_BUNDLE or SSL_CERT_FILE names a file of the authorities that are";
            Failure::new(Reason::Other, format!("the server's certificate is not trusted: {why}; {more}"))
        }
        _ => Failure::new(Reason::Broken, format!("the connection broke: {cause}")),
    }
}

/// The cause of an error. An error of I/O passes over the one that it was made of.
fn cause_of<'a>(error: &'a (dyn std::error::Error + 'static)) -> Option<&'a (dyn std::error::Error + 'static)> {
    match error.downcast_ref::<std::io::Error>().and_then(std::io::Error::get_ref) {
        Some(inner) => Some(inner),
        None => error.source(),
    }
}

fn silent(wait: Duration) -> Failure {
    Failure::new(Reason::Broken, format!("no answer for {} s", wait.as_secs()))
}
