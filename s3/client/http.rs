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
use rustls::{ClientConfig, RootCertStore};
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
    pub fn new(silence: Duration) -> Self {
        let mut tcp = HttpConnector::new();
        tcp.set_connect_timeout(Some(CONNECT));
        tcp.set_nodelay(true);
        tcp.enforce_http(false);
        // A machine without certificates still reaches servers that need none; of others it says that it knows no issuer.
        let tls =
            ClientConfig::builder().with_native_roots().map(|roots| roots.with_no_client_auth()).unwrap_or_else(|_| {
                ClientConfig::builder().with_root_certificates(RootCertStore::empty()).with_no_client_auth()
            });
        let https =
            HttpsConnectorBuilder::new().with_tls_config(tls).https_or_http().enable_http1().wrap_connector(tcp);
        let mut builder = Client::builder(TokioExecutor::new());
        builder.pool_timer(TokioTimer::new()).pool_idle_timeout(IDLE);
        Self { client: builder.build(https), silence }
    }

    /// Sends a request and waits for the head of the response.
    pub async fn send(&self, request: Request<Full<Bytes>>) -> Result<(Response<()>, Body), Failure> {
        // A body is sent within the wait, at 1 MiB/s at least.
        let len = request.body().size_hint().exact().unwrap_or(0);
        let wait = self.silence + Duration::from_secs(len >> 20);
        let answered = tokio::time::timeout(wait, self.client.request(request)).await;
        let response = answered.map_err(|_| silent(wait))?.map_err(|e| Failure::broken(&e))?;
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
                Some(Err(error)) => return Err(Failure::broken(&error)),
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

fn silent(wait: Duration) -> Failure {
    Failure::new(Reason::Broken, format!("no answer for {} s", wait.as_secs()))
}
