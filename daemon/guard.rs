//! The request guard: decides which requests are answered at all. Any web page can make a browser on this network send
//! requests, so requests of browsers are refused on every route.

use crate::app::App;
use hyper::header::{AUTHORIZATION, HeaderMap, HeaderValue};
use s4::browsers;
use s4::cluster::Cluster;
use s4::error::{Error, ErrorKind, Result};
use s4::protocol::{CLUSTER_HEADER, SECRET_HEADER};

/// Refuses requests of browsers, requests of other clusters, and requests without the secret if one is required.
pub fn admit(app: &App, headers: &HeaderMap) -> Result<()> {
    let forbid = |why: &str| Err(Error::new(ErrorKind::Forbidden, why));
    refuse_browsers(&app.cluster, headers)?;
    if let Some(secret) = &app.secret
        && !headers.get(SECRET_HEADER).is_some_and(|given| secret.matches(given))
    {
        return forbid("the shared secret is missing or wrong; set S4_SECRET_PATH to its file");
    }
    match headers.get(CLUSTER_HEADER) {
        None => forbid("the header s4-cluster is missing; its value is what 's4 config --digest' prints"),
        Some(digest) if !is_of_us(app, digest.as_bytes()) => {
            Err(Error::new(ErrorKind::ClusterMismatch, "this node has another node list")
                .with_nodes(app.cluster.lines()))
        }
        Some(_) => Ok(()),
    }
}

/// During a resize, both lists are right.
fn is_of_us(app: &App, digest: &[u8]) -> bool {
    app.resize.as_ref().map_or(digest == app.digest.as_bytes(), |resize| resize.lists.has(digest))
}

pub fn refuse_browsers(cluster: &Cluster, headers: &HeaderMap) -> Result<()> {
    let names = cluster.ids().map(|node| cluster.address(node).host());
    browsers::refuse(headers, names, "a name of the cluster file")
}

/// Requires the secret, if one is set, in s4's own header or as a bearer token.
pub fn require_secret(app: &App, headers: &HeaderMap) -> Result<()> {
    let Some(secret) = &app.secret else {
        return Ok(());
    };
    let bearer = headers.get(AUTHORIZATION).and_then(|value| value.as_bytes().strip_prefix(b"Bearer "));
    let bearer = bearer.and_then(|given| HeaderValue::from_bytes(given).ok());
    let given = headers.get(SECRET_HEADER).or(bearer.as_ref());
    match given.is_some_and(|given| secret.matches(given)) {
        true => Ok(()),
        false => Err(Error::new(
            ErrorKind::Forbidden,
            "the shared secret is missing or wrong; send it as s4-secret, or as Authorization: Bearer",
        )),
    }
}
