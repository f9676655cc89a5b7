//! Handlers for monitoring: the page, the metrics, and this node's status. They change nothing.

pub mod metrics;
pub mod page;
pub mod status;

use super::Answer;
use crate::app::App;
use crate::guard;
use hyper::body::Incoming;
use hyper::{Method, Request};
use s4::error::{Error, ErrorKind};
use std::sync::Arc;

/// Routes that are served without s4's header, which browsers and Prometheus cannot send.
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
pub async fn serve(app: &Arc<App>, open: Open, request: &Request<Incoming>) -> Answer {
    if request.method() != Method::GET {
        let message = format!("this route does not take {}", request.method());
        return Err(Error::new(ErrorKind::MethodNotAllowed, message));
    }
    guard::refuse_browsers(&app.cluster, request.headers())?;
    match open {
        Open::Page => Ok(page::answer(app)),
        Open::Metrics => {
            guard::require_secret(app, request.headers())?;
            metrics::answer(app).await
        }
    }
}
