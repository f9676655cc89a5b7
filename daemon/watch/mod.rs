//! Watching: samples of this machine, this node's status, the page and the metrics. Everything here shows and nothing
//! commands.

mod counters;
mod machine;
pub mod metrics;
pub mod page;
mod sampler;
pub mod status;
mod view;

pub use counters::{Requests, TaskCounts};
pub use sampler::Sampler;
pub use view::Views;

use crate::app::App;
use crate::strangers;
use hyper::body::Incoming;
use hyper::{Method, Request};
use s4::error::{Error, ErrorKind, Result};

/// What this node keeps for those who watch.
#[derive(Default)]
pub struct Watch {
    pub sampler: Sampler,
    pub views: Views,
    pub failures: status::Failures,
    pub requests: Requests,
}

/// What is served without s4's header, since a browser or Prometheus cannot send it.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Open {
    Page,
    Metrics,
}

impl Open {
    pub fn of(path: &str) -> Option<Self> {
        match path {
            "/" => Some(Self::Page),
            "/metrics" => Some(Self::Metrics),
            _ => None,
        }
    }
}

/// Answers a request for the page or the metrics.
pub async fn serve(app: &std::sync::Arc<App>, open: Open, request: &Request<Incoming>) -> crate::handlers::Answer {
    if request.method() != Method::GET {
        let message = format!("this route does not take {}", request.method());
        return Err(Error::new(ErrorKind::MethodNotAllowed, message));
    }
    check(app, request)?;
    match open {
        Open::Page => Ok(page::answer(app)),
        Open::Metrics => {
            strangers::knows_secret(app, request.headers())?;
            metrics::answer(app).await
        }
    }
}

/// Refuses what another site's page may have sent.
pub fn check(app: &App, request: &Request<Incoming>) -> Result<()> {
    strangers::check(&app.cluster, request.headers())
}
