//! Which requests over HTTP a browser may have sent on behalf of a web page. Any page can make a browser send requests
//! to this network, so servers refuse them.

use crate::error::{Error, ErrorKind, Result};
use hyper::header::{HOST, HeaderMap, ORIGIN};
use std::net::{IpAddr, Ipv6Addr};

/// Refuses any `Origin`, requests that the browser marks as cross-site, and a foreign `Host`: one that is neither an IP
/// address, nor localhost, nor one of `names`, which `known` describes.
pub fn refuse<'a>(headers: &HeaderMap, names: impl Iterator<Item = &'a str>, known: &str) -> Result<()> {
    let forbid = |why: &str| Err(Error::new(ErrorKind::Forbidden, why));
    if headers.contains_key(ORIGIN) {
        return forbid("requests from a browser's page are refused");
    }
    if headers.get("sec-fetch-site").is_some_and(|site| site.as_bytes() == b"cross-site") {
        return forbid("requests that another site caused are refused; type the address");
    }
    // DNS rebinding: an attacker can make a name that he owns resolve to this address. The browser then takes this
    // server for a part of his site.
    let mut hosts = headers.get_all(HOST).iter();
    match (hosts.next(), hosts.next()) {
        (Some(host), None) if host.to_str().is_ok_and(|host| is_ours(host, names)) => Ok(()),
        _ => forbid(&format!("the Host is neither an IP address, nor localhost, nor {known}")),
    }
}

fn is_ours<'a>(host: &str, mut names: impl Iterator<Item = &'a str>) -> bool {
    if let Some(bracketed) = host.strip_prefix('[') {
        let (bare, port) = bracketed.split_once(']').unwrap_or(("", ""));
        return bare.parse::<Ipv6Addr>().is_ok() && (port.is_empty() || is_port(port.strip_prefix(':').unwrap_or("")));
    }
    let (name, port) = host.split_once(':').unwrap_or((host, "0"));
    let known = name.parse::<IpAddr>().is_ok()
        || name.eq_ignore_ascii_case("localhost")
        || names.any(|own| name.eq_ignore_ascii_case(own));
    known && is_port(port)
}

fn is_port(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_host_names_that_no_attacker_can_own_are_accepted() {
        let is_ours = |host| is_ours(host, ["node6.lan", "node7.lan"].into_iter());
        for host in ["127.0.0.1", "127.0.0.1:8080", "[::1]", "[::1]:80", "localhost:1", "LOCALHOST", "node7.lan:8080"] {
            assert!(is_ours(host), "{host}");
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
            assert!(!is_ours(host), "{host}");
        }
    }
}
