//! Connections that HTTP has handed over: for one large body each, or for a session.

use crate::connections::Connected;
use hyper::body::Incoming;
use hyper::{Request, Response, StatusCode};
use s4::body::{self, BoxBody, Side};
use s4::client::blocking;
use s4::error::Result;
use s4::stream::{self, Stream};
use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// The streams of this daemon. Clones share it.
#[derive(Clone, Default)]
pub struct Streams(Arc<Mutex<Table>>);

/// Guards the streams under way, by a number of their own: each with a handle that breaks it off, once it is there.
#[derive(Default)]
struct Table {
    next: u64,
    /// Those that are there are to end, and no other is to begin.
    ending: bool,
    under_way: HashMap<u64, Option<Stream>>,
}

/// A stream under way; dropped, it is over.
struct UnderWay {
    streams: Streams,
    number: u64,
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.streams.lock().under_way.remove(&self.number);
    }
}

impl Table {
    /// Keeps a handle on a stream that has begun, without which it could not be ended.
    fn hold(&mut self, number: u64, stream: &Stream) -> Result<()> {
        if self.ending {
            stream.close_reading();
        }
        self.under_way.insert(number, Some(stream.clone_to_send()?));
        Ok(())
    }
}

impl Streams {
    pub fn count(&self) -> usize {
        self.lock().under_way.len()
    }

    /// Lets each answer what it was asked and end, instead of reading more.
    pub fn end(&self) {
        let mut table = self.lock();
        table.ending = true;
        table.under_way.values().flatten().for_each(Stream::close_reading);
    }

    /// Breaks all of them off.
    pub fn close(&self) {
        self.lock().under_way.values().flatten().for_each(Stream::close);
    }

    /// The answer that grants a stream, on which `work` then does its part on a blocking thread. `who` names the peer's
    /// request in errors.
    pub fn grant(
        &self,
        mut request: Request<Incoming>,
        deadline: Duration,
        who: String,
        work: impl FnOnce(Stream) -> Result<()> + Send + 'static,
    ) -> Response<BoxBody> {
        let under_way = self.enter();
        let connected = request.extensions_mut().remove::<Arc<Connected>>();
        let upgrade = hyper::upgrade::on(request);
        tokio::spawn(async move {
            let done = match Stream::take(upgrade, deadline, Side::Server, who).await {
                Ok(stream) => {
                    let held = under_way.streams.lock().hold(under_way.number, &stream);
                    match held {
                        Ok(()) => blocking(move || work(stream)).await,
                        Err(error) => Err(error),
                    }
                }
                Err(error) => Err(error),
            };
            if let Err(error) = done {
                tracing::debug!("{error}");
            }
            drop((under_way, connected));
        });
        let mut response = Response::new(body::empty());
        *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
        stream::mark(response.headers_mut());
        response
    }

    fn enter(&self) -> UnderWay {
        let mut table = self.lock();
        table.next += 1;
        let number = table.next;
        table.under_way.insert(number, None);
        UnderWay { streams: self.clone(), number }
    }

    fn lock(&self) -> MutexGuard<'_, Table> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
