//! Upgraded connections: HTTP has handed them over, and they carry frames.

use crate::connections::Connected;
use hyper::body::Incoming;
use hyper::{Request, Response, StatusCode};
use s4::body::{self, BoxBody, Role};
use s4::error::Result;
use s4::wire::{self, Closer, Connection};
use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::watch;

/// The upgraded connections of this daemon. Clones share the table.
#[derive(Clone)]
pub struct Upgrades(Arc<Inner>);

struct Inner {
    /// Guards the closer of each connection, by a number of its own; `None` until the handover is complete.
    table: Mutex<Table>,
    ending: watch::Sender<bool>,
}

#[derive(Default)]
struct Table {
    next: u64,
    under_way: HashMap<u64, Option<Closer>>,
}

/// An entry in the table. Dropping it removes the entry.
struct UnderWay {
    upgrades: Upgrades,
    number: u64,
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.upgrades.lock().under_way.remove(&self.number);
    }
}

impl Upgrades {
    pub fn new() -> Self {
        Self(Arc::new(Inner { table: Mutex::default(), ending: watch::Sender::new(false) }))
    }

    pub fn count(&self) -> usize {
        self.lock().under_way.len()
    }

    /// Lets each connection answer its current request, and then end.
    pub fn end(&self) {
        self.0.ending.send_replace(true);
    }

    pub fn is_ending(&self) -> bool {
        *self.0.ending.borrow()
    }

    /// Resolves when the connections must end.
    pub async fn ends(&self) {
        // This cannot fail: `self` owns the sender.
        let _ = self.0.ending.subscribe().wait_for(|ending| *ending).await;
    }

    /// Closes all connections at once.
    pub fn close(&self) {
        self.lock().under_way.values().flatten().for_each(Closer::close);
    }

    /// The response that upgrades the connection. `serve` then uses it. `deadline` limits the handover.
    pub fn grant<F>(
        &self,
        mut request: Request<Incoming>,
        deadline: Duration,
        serve: impl FnOnce(Connection) -> F + Send + 'static,
    ) -> Response<BoxBody>
    where
        F: Future<Output = Result<()>> + Send,
    {
        let under_way = self.enter();
        let connected = request.extensions_mut().remove::<Arc<Connected>>();
        let upgrade = hyper::upgrade::on(request);
        tokio::spawn(async move {
            let done = async {
                let connection = Connection::take(upgrade, deadline, Role::Server, "a connection".to_owned()).await?;
                under_way.upgrades.lock().under_way.insert(under_way.number, Some(connection.closer()?));
                serve(connection).await
            };
            if let Err(error) = done.await {
                tracing::debug!("{error}");
            }
            drop((under_way, connected));
        });
        let mut response = Response::new(body::empty());
        *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
        wire::mark(response.headers_mut());
        response
    }

    fn enter(&self) -> UnderWay {
        let mut table = self.lock();
        table.next += 1;
        let number = table.next;
        table.under_way.insert(number, None);
        UnderWay { upgrades: self.clone(), number }
    }

    fn lock(&self) -> MutexGuard<'_, Table> {
        self.0.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
