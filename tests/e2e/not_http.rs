//! Connections that bring no HTTP, bodies of another length than was announced, and many that bring nothing. A daemon refuses them,
//! changes nothing, and goes on.

use crate::harness::text;
use crate::strangers::{changes_nothing, cluster, request, status};
use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};

#[test]
fn what_is_not_http_is_refused_or_hung_up_on() {
    let cluster = cluster();
    let own = format!("s4-cluster: {}\r\n", cluster.digest());
    let head = format!("GET /v1/health HTTP/1.1\r\nHost: 127.0.0.1\r\n{own}");
    let put = format!("PUT /v1/keys/held/0_x HTTP/1.1\r\nHost: 127.0.0.1\r\n{own}");
    let many: String = (0..200).map(|number| format!("x-{number}: y\r\n")).collect();
    let large = "y".repeat(1 << 20);
    let garbage: Vec<Vec<u8>> = vec![
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03".iter().chain(&[7; 512]).copied().collect(),
        b"\0\0\0\0\r\n\r\n".to_vec(),
        b"\xff\xfe\xfd\r\n\r\n".to_vec(),
        b"GET\r\n\r\n".to_vec(),
        b"GET /v1/health\r\n\r\n".to_vec(),
        b"GET /v1/health HTTP/9.9\r\n\r\n".to_vec(),
        b"GET /v1/health HTTP/1.0\r\n\r\n".to_vec(),
        b"GET  /v1/health  HTTP/1.0\r\n\r\n".to_vec(),
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec(),
        b"SSH-2.0-OpenSSH_9.0\r\n".to_vec(),
        b"EHLO x\r\nMAIL FROM:<x>\r\n\r\n".to_vec(),
        format!("{head}no colon\r\n\r\n").into_bytes(),
        format!("{head}a b: c\r\n\r\n").into_bytes(),
        format!("{head}x: y\0z\r\n\r\n").into_bytes(),
        format!("{head}{many}\r\n").into_bytes(),
        format!("{head}x: {large}\r\n\r\n").into_bytes(),
        format!("GET /v1/{large} HTTP/1.1\r\n{own}\r\n").into_bytes(),
        format!("{put}Content-Length: -1\r\n\r\nx").into_bytes(),
        format!("{put}Content-Length: x\r\n\r\nx").into_bytes(),
        format!("{put}Content-Length: 1\r\nContent-Length: 2\r\n\r\nxy").into_bytes(),
        format!("{put}Content-Length: 99999999999999999999999\r\n\r\nx").into_bytes(),
        format!("{put}Transfer-Encoding: gzip\r\n\r\nx").into_bytes(),
        format!("{put}Transfer-Encoding: chunked\r\nConnection: close\r\n\r\nzz\r\nx\r\n0\r\n\r\n").into_bytes(),
    ];
    changes_nothing(&cluster, || {
        for bytes in garbage {
            let answer = cluster.raw(0, &bytes);
            let shown: String = text(&bytes).chars().take(200).collect();
            let refused = answer.is_empty() || status(&answer).is_some_and(|status| (400..500).contains(&status));
            assert!(refused, "{shown}: {answer}");
        }
    });
}

#[test]
fn a_body_shorter_than_announced_publishes_nothing() {
    let cluster = cluster();
    changes_nothing(&cluster, || {
        for (method, path) in [("PUT", "/v1/keys/held/0_x"), ("POST", "/v1/adopt/held/0_x"), ("POST", "/v1/jobs")] {
            let whole = request(&cluster, method, path, "", &[b'x'; 1000]);
            let mut stream = TcpStream::connect(("127.0.0.1", cluster.port(0))).unwrap();
            stream.write_all(&whole[..whole.len() - 1]).unwrap();
            stream.shutdown(Shutdown::Write).unwrap();
            let mut answer = Vec::new();
            let _ = stream.read_to_end(&mut answer);
            let answer = text(&answer);
            let refused = answer.is_empty() || status(&answer) == Some(400);
            assert!(refused, "{method} {path}: {answer}");
        }
        // One that breaks off without a word.
        let chunked = format!(
            "PUT /v1/keys/held/0_x HTTP/1.1\r\nHost: 127.0.0.1\r\ns4-cluster: {}\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n",
            cluster.digest()
        );
        let mut stream = TcpStream::connect(("127.0.0.1", cluster.port(0))).unwrap();
        stream.write_all(chunked.as_bytes()).unwrap();
        drop(stream);
    });
}

#[test]
fn a_body_longer_than_announced_is_cut_there() {
    let cluster = cluster();
    let digest = cluster.digest();
    let head = format!(
        "PUT /v1/keys/held/0_x HTTP/1.1\r\nHost: 127.0.0.1\r\ns4-cluster: {digest}\r\nContent-Length: 3\r\n\r\n"
    );
    let answer = cluster.raw(0, format!("{head}abcDELETE /v1/keys/held/0_k HTTP/1.1\r\n\r\n").as_bytes());
    assert_eq!(status(&answer), Some(201), "{answer}");
    assert!(answer.contains("HTTP/1.1 403"), "what follows is a request like any other: {answer}");
    assert_eq!(cluster.get("s4://held/0_x"), b"abc");
    assert_eq!(cluster.get("s4://held/0_k"), b"content");
}

#[test]
fn many_strangers_at_once_do_not_keep_others_out() {
    let cluster = cluster();
    let mut idle = Vec::new();
    for number in 0..500 {
        let mut stream = TcpStream::connect(("127.0.0.1", cluster.port(0))).unwrap();
        if number % 2 == 0 {
            stream.write_all(b"PUT /v1/keys/held/0_x HTTP/1.1\r\nx: ").unwrap();
        }
        idle.push(stream);
    }
    changes_nothing(&cluster, || {
        cluster.ok(&["ls"]);
        cluster.ok(&["eval", "s4://held/0_k", "cat"]);
    });
}
