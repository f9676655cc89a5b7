//! Connections that carry one large body each, after HTTP has handed them over.

use hyper::upgrade::OnUpgrade;
use hyper::{Response, StatusCode};
use s4::body::{self, BoxBody, Side};
use s4::client::blocking;
use s4::error::Result;
use s4::stream::{self, Stream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

/// The streams of this daemon. Clones share it.
#[derive(Clone, Default)]
pub struct Streams(Arc<AtomicUsize>);

/// A stream under way; dropped, it is over.
struct UnderWay(Streams);

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.0.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Streams {
    pub fn count(&self) -> usize {
        self.0.load(Ordering::Relaxed)
    }

    /// The answer that grants a stream, on which `work` then does its part on a blocking thread. `who` names the peer's
    /// request in errors.
    pub fn grant(
        &self,
        upgrade: OnUpgrade,
        deadline: Duration,
        who: String,
        work: impl FnOnce(Stream) -> Result<()> + Send + 'static,
    ) -> Response<BoxBody> {
        self.0.fetch_add(1, Ordering::Relaxed);
        let under_way = UnderWay(self.clone());
        tokio::spawn(async move {
            let done = match Stream::take(upgrade, deadline, Side::Server, who).await {
                Ok(stream) => blocking(move || work(stream)).await,
                Err(error) => Err(error),
            };
            if let Err(error) = done {
                tracing::debug!("{error}");
            }
            drop(under_way);
        });
        let mut response = Response::new(body::empty());
        *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
        stream::mark(response.headers_mut());
        response
    }
}
