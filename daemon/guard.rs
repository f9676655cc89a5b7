//! The request guard: decides which requests are answered at all. Any web page can make a browser on this network send
//! requests, so requests of browsers are refused on every route.

use crate::app::App;
use hyper::header::{AUTHORIZATION, HOST, HeaderMap, HeaderValue, ORIGIN};
use s4::cluster::Cluster;
use s4::error::{Error, ErrorKind, Result};
use s4::protocol::{CLUSTER_HEADER, SECRET_HEADER};
use std::net::{IpAddr, Ipv6Addr};

/// Refuses requests of browsers, requests of other clusters, and requests without the secret if one is required.
pub fn admit(app: &App, headers: &HeaderMap) -> Result<()> {
    let forbid = |why: &str| Err(Error::new(ErrorKind::Forbidden, why));
    check(&app.cluster, headers)?;
    if let Some(secret) = &app.secret
        && !headers.get(SECRET_HEADER).is_some_and(|given| secret.matches(given))
    {
        return forbid("the shared secret is missing or wrong; set S4_SECRET_PATH to its file");
    }
    match headers.get(CLUSTER_HEADER) {
        None => forbid("the header s4-cluster is missing; its value is what 's4 config --digest' prints"),
        Some(digest) if digest.as_bytes() != app.digest.as_bytes() => {
            Err(Error::new(ErrorKind::ClusterMismatch, "this node has another node list")
                .with_nodes(app.cluster.lines()))
        }
        Some(_) => Ok(()),
    }
}

/// Refuses a foreign `Host`, any `Origin`, and requests that the browser marks as cross-site.
pub fn check(cluster: &Cluster, headers: &HeaderMap) -> Result<()> {
    let forbid = |why: &str| Err(Error::new(ErrorKind::Forbidden, why));
    if headers.contains_key(ORIGIN) {
        return forbid("requests from a browser's page are refused");
    }
    if headers.get("sec-fetch-site").is_some_and(|site| site.as_bytes() == b"cross-site") {
        return forbid("requests that another site caused are refused; type the address");
    }
    // DNS rebinding: an attacker can make a name that he owns resolve to this address. The browser then takes this
    // daemon for a part of his site.
    let mut hosts = headers.get_all(HOST).iter();
    match (hosts.next(), hosts.next()) {
        (Some(host), None) if host.to_str().is_ok_and(|host| is_ours(host, cluster)) => Ok(()),
        _ => forbid("the Host is neither an IP address, nor localhost, nor a name of the cluster file"),
    }
}

fn is_ours(host: &str, cluster: &Cluster) -> bool {
    if let Some(bracketed) = host.strip_prefix('[') {
        let (bare, port) = bracketed.split_once(']').unwrap_or(("", ""));
        return bare.parse::<Ipv6Addr>().is_ok() && (port.is_empty() || is_port(port.strip_prefix(':').unwrap_or("")));
    }
    let (name, port) = host.split_once(':').unwrap_or((host, "0"));
    let mut named = cluster.ids().map(|node| cluster.address(node).host());
    let known = name.parse::<IpAddr>().is_ok()
        || name.eq_ignore_ascii_case("localhost")
        || named.any(|own| name.eq_ignore_ascii_case(own));
    known && is_port(port)
}

fn is_port(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit())
}

/// Requires the secret, if one is set, in s4's own header or as a bearer token.
pub fn knows_secret(app: &App, headers: &HeaderMap) -> Result<()> {
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

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    #[test]
    fn only_host_names_that_no_attacker_can_own_are_accepted() {
        let cluster = Cluster::parse("node6.lan:80\nnode7.lan:8080\n", Path::new("conf")).unwrap();
        for host in ["127.0.0.1", "127.0.0.1:8080", "[::1]", "[::1]:80", "localhost:1", "LOCALHOST", "node7.lan:8080"] {
            assert!(is_ours(host, &cluster), "{host}");
        }
        for host in [
            "",
            "evil.example",
            "evil.example:80",
            "127.0.0.1.evil.example",
            "localhost.evil.example:8080",
            "[evil]",
            "[::1]evil",
            "127.0.0.1:",
            "127.0.0.1:8080x",
            "127.0.0.1@evil.example",
            "node8.lan",
            "xnode7.lan",
        ] {
            assert!(!is_ours(host, &cluster), "{host}");
        }
    }
}
