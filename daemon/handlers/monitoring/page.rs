//! The page: one self-contained document, which fetches `/v1/watch` at intervals and shows the result.

use crate::app::App;
use crate::handlers::Answer;
use hyper::Response;
use hyper::header::{
    CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue, REFERRER_POLICY,
    X_CONTENT_TYPE_OPTIONS,
};
use s4::body::{self, BoxBody};
use s4::checksum::hash;
use s4::protocol::JobId;
use s4::protocol::node::SAMPLES_KEPT;
use std::sync::Arc;

const HTML: &str = include_str!("page.html");
const STYLE: &str = include_str!("page.css");
/// The parts of one script, in this order.
const SCRIPT: [&str; 5] = [
    include_str!("format.js"),
    include_str!("grid.js"),
    include_str!("jobs.js"),
    include_str!("why.js"),
    include_str!("page.js"),
];

/// The page, for this node's cluster. It holds no data of the cluster.
pub fn answer(app: &App) -> Response<BoxBody> {
    let nonce = nonce();
    let page = HTML
        .replace("{{nonce}}", &nonce)
        .replace("{{cluster}}", &app.digest)
        .replace("{{secret}}", if app.secret.is_some() { "required" } else { "" })
        .replace("{{style}}", STYLE)
        .replace("{{script}}", &SCRIPT.concat());
    let mut response = Response::new(body::full(page));
    let headers = response.headers_mut();
    set(headers, CONTENT_TYPE, "text/html; charset=utf-8");
    set(headers, CACHE_CONTROL, "no-store");
    set(headers, REFERRER_POLICY, "no-referrer");
    set(headers, X_CONTENT_TYPE_OPTIONS, "nosniff");
    let policy = format!(
        "default-src 'none'; script-src 'nonce-{nonce}'; style-src 'nonce-{nonce}'; connect-src 'self'; img-src data:; \
         base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    );
    set(headers, CONTENT_SECURITY_POLICY, &policy);
    response
}

/// The data that the page fetches: the state of the whole cluster.
pub async fn data(app: &Arc<App>, samples: Option<usize>) -> Answer {
    let view = app.watch.views.get(&app.jobs.shared.client, samples.unwrap_or(SAMPLES_KEPT)).await;
    let mut response = Response::new(body::full(view));
    set(response.headers_mut(), CONTENT_TYPE, "application/json");
    set(response.headers_mut(), CACHE_CONTROL, "no-store");
    Ok(response)
}

fn set(headers: &mut HeaderMap, name: HeaderName, value: &str) {
    headers.insert(name, HeaderValue::from_str(value).expect("printable ASCII"));
}

/// A text that cannot be predicted, so that no key or command can contain it.
fn nonce() -> String {
    use std::io::Read;
    let mut chance = [0; 16];
    let read = std::fs::File::open("/dev/urandom").and_then(|mut file| file.read_exact(&mut chance));
    match read {
        Ok(()) => chance.iter().map(|byte| format!("{byte:02x}")).collect(),
        // A machine without /dev/urandom: the id depends on the clock.
        Err(_) => format!("{:016x}", hash(JobId::new().as_str().as_bytes())),
    }
}
