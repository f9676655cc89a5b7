//! Nodes that lie: whatever they answer, a client ends with an error and writes nowhere but below its destination.

use crate::frames::{data, message, of_kind};
use crate::harness::{Cluster, assert_no_crash, text};
use crate::observe::{Random, end_within};
use crate::programs::program;
use s4::wire::Kind;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// The whole answer to the request with this head.
type Answer = dyn Fn(&str) -> Vec<u8> + Send + Sync;

/// A cluster of nodes that only seem to be s4.
struct Liars {
    dir: tempfile::TempDir,
}

impl Liars {
    fn start(nodes: usize, answer: impl Fn(&str) -> Vec<u8> + Send + Sync + 'static) -> Self {
        let dir = tempfile::Builder::new().prefix("s4-test-").tempdir().unwrap();
        let answer: Arc<Answer> = Arc::new(answer);
        let mut conf = String::new();
        for _ in 0..nodes {
            let listener = TcpListener::bind("127.0.0.1:0").unwrap();
            conf += &format!("{}\n", listener.local_addr().unwrap());
            let answer = answer.clone();
            std::thread::spawn(move || {
                for stream in listener.incoming().flatten() {
                    let answer = answer.clone();
                    std::thread::spawn(move || lie(stream, &*answer));
                }
            });
        }
        std::fs::write(dir.path().join("s4.conf"), conf).unwrap();
        Self { dir }
    }

    fn run(&self, args: &[&str]) -> Output {
        run(self.dir.path(), &self.dir.path().join("s4.conf"), args)
    }

    /// Runs `s4`, which is to fail with exit status 1 and one line.
    fn refused(&self, args: &[&str]) -> String {
        let output = self.run(args);
        let stderr = text(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{args:?}: {}{stderr}", text(&output.stdout));
        assert_eq!(stderr.lines().count(), 1, "{args:?}: {stderr}");
        assert!(!stderr.contains('\u{1b}') && stderr.len() < 40_000, "{args:?}: {stderr}");
        stderr
    }
}

fn run(dir: &Path, conf: &Path, args: &[&str]) -> Output {
    let mut command = Command::new(program("s4"));
    command.args(args).args(["--deadline", "10"]).env("S4_CONF_PATH", conf).current_dir(dir).stdin(Stdio::null());
    let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let output = end_within(Duration::from_secs(30), child);
    assert_no_crash(&output);
    output
}

fn lie(mut stream: TcpStream, answer: &Answer) {
    let mut head = Vec::new();
    let mut byte = [0];
    while !head.ends_with(b"\r\n\r\n") {
        match stream.read(&mut byte) {
            Ok(1) => head.push(byte[0]),
            _ => return,
        }
    }
    // A client that has heard enough hangs up.
    let _ = stream.write_all(&answer(&text(&head)));
    let _ = stream.shutdown(std::net::Shutdown::Write);
    let _ = stream.read_to_end(&mut Vec::new());
}

fn ok(headers: &str, body: &[u8]) -> Vec<u8> {
    [format!("HTTP/1.1 200 OK\r\nconnection: close\r\n{headers}\r\n").as_bytes(), body].concat()
}

/// What is below `dir`, but for the cluster file.
fn files(dir: &Path) -> Vec<PathBuf> {
    let all = walkdir::WalkDir::new(dir).min_depth(1).sort_by_file_name().into_iter().flatten();
    let paths = all.map(|entry| entry.path().strip_prefix(dir).unwrap().to_owned());
    paths.filter(|path| path != Path::new("s4.conf")).collect()
}

/// A line of a listing with a key of this name.
fn key_line(path: &str) -> String {
    format!(r#"{{"key":{{"path":{},"size":1,"mtime":0}}}}"#, serde_json::to_string(path).unwrap())
}

fn dir_line(path: &str) -> String {
    format!(r#"{{"dir":{{"path":"{path}"}}}}"#)
}

/// Names in a listing of `s4://b/in/` that were not asked for, or that are none.
const KEYS: &[&str] = &[
    "../../evil",
    "/etc/evil",
    "b/in/../../evil",
    "b/in/../../../../../../../tmp/evil",
    "b/in//evil",
    "b/in/./evil",
    "b/other/evil",
    "b/in",
    "b/i",
    "b",
    "a",
    "c/in/evil",
    "",
    "b/in/evil\u{1b}[2J",
    "b/\u{e4}\u{e4}/evil",
];
const DIRS: &[&str] = &["", "/", "b", "b/", "b/other/", "../", "b/in/../"];
/// What is no line of a listing.
const LINES: &[&str] = &[
    r#"{"elf":{"path":"b/in/x","size":1,"mtime":0}}"#,
    r#"{"key":{"path":"b/in/x","size":1,"mtime":99999999999999999999}}"#,
    r#"{"key":{"path":"b/in/x","size":-1,"mtime":0}}"#,
    "k 0 1 b/in/x",
    "\u{1b}]0;title\u{7}",
];

/// The answer that grants a connection of frames, and what is said over it.
fn frames(said: &[&[u8]]) -> Vec<u8> {
    let head = "HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: s4-frames\r\n\r\n";
    [head.as_bytes(), &said.concat()].concat()
}

#[test]
fn a_listed_name_that_was_not_asked_for_is_refused() {
    let keys = KEYS.iter().map(|path| key_line(path));
    let lines = keys.chain(DIRS.iter().map(|path| dir_line(path))).chain(LINES.iter().map(|line| (*line).to_owned()));
    for line in lines {
        let listing = format!("{line}\n\"end\"\n");
        let got = [message(r#"{"key":"78af5f94892f3950 3"}"#), data(b"abc"), message(r#""end""#)].concat();
        let liars = Liars::start(1, move |head| match head.contains("/v1/list") {
            true => ok("", listing.as_bytes()),
            false => frames(&[&got]),
        });
        std::fs::create_dir(liars.dir.path().join("to")).unwrap();
        for args in [
            &["cp", "-r", "s4://b/in/", "to"][..],
            &["cp", "-r", "s4://b/in", "to/deep/er"],
            &["ls", "s4://b/in/"],
            &["ls", "-r", "s4://b/in/"],
        ] {
            let stderr = liars.refused(args);
            assert!(stderr.starts_with("s4: node 0 (127.0.0.1:"), "{line:?} {args:?}: {stderr}");
        }
        let made = files(liars.dir.path());
        assert!(made.iter().all(|path| path.starts_with("to") && !liars.dir.path().join(path).is_file()), "{made:?}");
    }
}

/// What a node says over a connection instead of a key, or of what a command says.
#[test]
fn frames_that_were_not_asked_for_are_refused() {
    let key = message(r#"{"key":"78af5f94892f3950 3"}"#);
    let end = message(r#""end""#);
    let mut flipped = data(b"abc");
    *flipped.last_mut().unwrap() ^= 1;
    for said in [
        vec![],
        b"garbage that is long enough for a header".to_vec(),
        [[b'M'; 5], [0xff; 5]].concat(),
        end.clone(),
        data(b"abc"),
        [key.clone(), end.clone()].concat(),
        [key.clone(), key.clone()].concat(),
        [key.clone(), data(b"abd"), end.clone()].concat(),
        [key.clone(), data(b"abcd"), end.clone()].concat(),
        [key.clone(), data(b"ab"), end.clone()].concat(),
        [key.clone(), message(r#""stored""#)].concat(),
        [key, flipped].concat(),
        message(r#"{"stat":{"is":"absent"}}"#),
        message(r#"{"frob":1}"#),
        of_kind(Kind::Error, b"no json"),
        of_kind(Kind::Error, br#"{"kind":"frob","message":"x"}"#),
    ] {
        let answer = frames(&[&said]);
        let liars = Liars::start(1, move |head| match head.contains("/v1/list") {
            true => ok("", format!("{}\n\"end\"\n", key_line("b/in/x")).as_bytes()),
            false => answer.clone(),
        });
        std::fs::create_dir(liars.dir.path().join("to")).unwrap();
        for args in
            [&["cp", "-r", "s4://b/in/", "to"][..], &["cp", "s4://b/in/x", "-"], &["eval", "s4://b/in/x", "cat"]]
        {
            let stderr = liars.refused(args);
            assert!(stderr.starts_with("s4: node 0 (127.0.0.1:"), "{:?} {args:?}: {stderr}", text(&said));
        }
        assert_eq!(files(liars.dir.path()), [PathBuf::from("to")], "{:?}", text(&said));
    }
}

/// The job that hostile nodes tell of.
const JOB: &str = "20260101-000000-000-000000";

/// Commands that show what nodes say.
const ASKING: [&[&str]; 14] = [
    &["health"],
    &["top", "--once"],
    &["jobs"],
    &["jobs", "--json"],
    &["ls", "-r", "s4://b/"],
    &["wait", JOB],
    &["wait", "--json", JOB],
    &["map", "s4://in/", "s4://out/", "cat"],
    &["map", "--json", "s4://in/", "s4://out/", "cat"],
    &["map", "--dry-run", "s4://in/", "s4://out/", "cat"],
    &["map", "--resume", "s4://in/", "s4://out/", "cat"],
    &["rm", "-r", "s4://b/"],
    &["eval", "s4://b/x", "cat"],
    &["cancel", JOB],
];

#[test]
fn numbers_of_every_size_are_no_trouble() {
    let times = "\"started\":-9223372036854775808,\"ended\":9223372036854775807";
    let most = "18446744073709551615";
    let plan = format!("{{\"tasks\":{most},\"keys\":{most},\"bytes\":{most},\"done_before\":{most}}}");
    let progress = format!(
        "{{\"tasks\":{most},\"done\":{most},\"failed\":{most},\"running\":{most},\"outputs\":{most},\
         \"bytes\":{most},\"bytes_done\":{most}}}"
    );
    let spec =
        format!("{{\"id\":\"{JOB}\",\"kind\":\"map\",\"indir\":\"in\",\"outdir\":\"out\",\"cmd\":\"c\\u001bat\"}}");
    let record = |times: &str, outcome: &str| {
        format!("{{\"spec\":{spec},\"plan\":{plan},\"progress\":{progress},{times},\"outcome\":{outcome}}}")
    };
    let failure = format!("{{\"node\":{most},\"key\":\"in/x\",\"reason\":\"\\u001b[2J\\n\",\"stderr\":\"\"}}");
    let hostile = "\"\\u001b[2J\\n\"";
    let group = format!(
        "{{\"reason\":{hostile},\"kind\":{hostile},\"count\":{most},\"tasks\":[{{\"node\":{most},\"key\":\"in/x\"}}],\
         \"stderr\":{hostile},\"hint\":{hostile}}}"
    );
    let health = format!(
        "{{\"node\":{most},\"version\":\"\",\"total_bytes\":{most},\"free_bytes\":{most},\"reserve_bytes\":0,\
         \"data\":\"/dev\",\"token\":\"\",\"running_tasks\":{most},\"uptime_seconds\":{most}}}"
    );
    for (times, outcome) in
        [(times, "\"failed\""), (times, "null"), ("\"started\":-9223372036854775808,\"ended\":null", "null")]
    {
        let record = record(times, outcome);
        let status = format!(
            "{{\"health\":{health},\"usage\":{{\"keys\":{most},\"bytes\":{most},\"at\":-9223372036854775808}},\
             \"samples\":[[{most},{most},{most},{most},{most},{most},{most}]],\
             \"jobs\":[{{\"record\":{record},\"failures\":{{\"groups\":[{group}],\"others\":{most}}}}}]}}"
        );
        let tagged = |tag: &str, json: &str| format!("{{\"event\":\"{tag}\",{}\n", &json[1..]);
        let events = [
            tagged("failure", &failure),
            tagged("progress", &progress),
            "{\"event\":\"running\",\"tasks\":[{\"key\":\"in/x\",\"seconds\":1e308}]}\n".to_owned(),
            format!("{{\"event\":\"ended\",\"outcome\":\"failed\",\"progress\":{progress}}}\n"),
        ]
        .concat();
        let (jobs, planned, health) = (tagged("job", &record), tagged("planned", &plan), health.clone());
        let liars = Liars::start(3, move |head| {
            let path = head.split(' ').nth(1).unwrap_or("");
            match path.split('?').next().unwrap_or("") {
                "/v1/health" => ok("", health.as_bytes()),
                "/v1/status" => ok("", status.as_bytes()),
                "/v1/list" => {
                    let key = |path: &str, size: &str, mtime: i64| {
                        format!("{{\"key\":{{\"path\":\"{path}\",\"size\":{size},\"mtime\":{mtime}}}}}\n")
                    };
                    let keys = [key("b/x", most, i64::MAX), key("b/y", "0", i64::MIN)].concat();
                    ok("", format!("{keys}\"end\"\n").as_bytes())
                }
                "/v1/jobs" if head.starts_with("POST") => ok("", planned.as_bytes()),
                "/v1/jobs" => ok("", jobs.as_bytes()),
                path if path.ends_with("/events") || path.ends_with("/start") => ok("", events.as_bytes()),
                "/v1/delete" => ok("", format!("{{\"event\":\"deleted\",\"keys\":{most}}}\n").as_bytes()),
                "/v1/connect" => frames(&[&message(r#"{"exit":{"signal":200}}"#)]),
                _ => ok("", record.as_bytes()),
            }
        });
        for args in ASKING {
            let output = liars.run(args);
            assert!(!text(&output.stderr).contains('\u{1b}'), "{args:?}: {}", text(&output.stderr));
            assert!(!text(&output.stdout).contains('\u{1b}'), "{args:?}: {}", text(&output.stdout));
        }
    }
}

#[test]
fn an_error_is_one_line_whatever_the_node_says() {
    let long = format!("{}\u{1b}[2J\\n\\u001b[2J", "x".repeat(500_000));
    let error = format!("{{\"kind\":\"io\",\"message\":\"{long}\"}}").replace('\u{1b}', "");
    let body = error.clone();
    let liars = Liars::start(2, move |_| {
        let head = format!("HTTP/1.1 500 No\r\ncontent-length: {}\r\n\r\n", body.len());
        [head.as_bytes(), body.as_bytes()].concat()
    });
    for args in [&["ls"][..], &["cp", "s4://b/x", "-"], &["rm", "s4://b/x"], &["eval", "s4://b/x", "cat"]] {
        liars.refused(args);
    }
    let liars = Liars::start(1, move |_| ok("", format!("{{\"error\":{error}}}\n").as_bytes()));
    liars.refused(&["ls"]);
    let liars = Liars::start(1, move |_| ok("", r#"{"key":{"path":"b/"#.repeat(500_000).as_bytes()));
    liars.refused(&["ls"]);
    liars.refused(&["jobs"]);
}

/// That nobody reads the output is the client's own to find out: then it says nothing.
#[test]
fn no_node_ends_a_client_without_a_word() {
    let error = r#"{"kind":"output_closed","message":"gone"}"#;
    let liars = Liars::start(2, move |_| {
        [format!("HTTP/1.1 500 No\r\ncontent-length: {}\r\n\r\n", error.len()).as_bytes(), error.as_bytes()].concat()
    });
    for args in [
        &["ls"][..],
        &["cp", "s4://b/x", "-"],
        &["cp", "-r", "s4://b/", "to"],
        &["rm", "s4://b/x"],
        &["rm", "-r", "s4://b/"],
        &["eval", "s4://b/x", "cat"],
        &["map", "s4://in/", "s4://out/", "cat"],
        &["wait", JOB],
    ] {
        let told = liars.refused(args);
        assert!(told.contains("gone"), "{args:?}: {told}");
    }
    let event = format!("{{\"event\":\"error\",{}\n", &error[1..]);
    let exit = message(&format!(r#"{{"exit":{{"error":{error}}}}}"#));
    let liars = Liars::start(2, move |head| match head.contains("/v1/connect") {
        true => frames(&[&exit]),
        false if head.contains("/v1/list") => ok("", format!("{{\"error\":{error}}}\n").as_bytes()),
        false => ok("", event.as_bytes()),
    });
    for args in
        [&["eval", "s4://b/x", "cat"][..], &["ls"], &["map", "s4://in/", "s4://out/", "cat"], &["rm", "-r", "s4://b/"]]
    {
        let told = liars.refused(args);
        assert!(told.contains("gone"), "{args:?}: {told}");
    }
}

#[test]
fn a_key_that_never_ends_fills_no_disk() {
    let body = vec![b'x'; 64 << 20];
    let liars = Liars::start(1, move |_| ok("s4-checksum: 78af5f94892f3950 100000\r\n", &body));
    for args in [&["cp", "s4://b/x", "-"][..], &["cp", "s4://b/x", "here"]] {
        let output = liars.run(args);
        assert_eq!(output.status.code(), Some(1), "{args:?}: {}", text(&output.stderr));
        assert!(output.stdout.len() < 2 << 20, "{args:?}: {} bytes", output.stdout.len());
    }
    assert_eq!(files(liars.dir.path()), [""; 0].map(PathBuf::from));
}

/// What takes the place of a part of an answer.
const STRANGE: &[&str] = &[
    "",
    "0",
    "-1",
    "99999999999999999999",
    "18446744073709551615",
    "1e999",
    "../",
    "/",
    "\n",
    "\0",
    "null",
    "[]",
    "{",
    "\"",
    "\u{1b}[2J",
    "\"end\"\n",
    "{\"error\":",
    "\u{fffd}",
    "M\u{8}\0\0\0",
];

/// Changes `answer` somewhere, mostly in its body.
fn mutate(answer: &mut Vec<u8>, random: &mut Random) {
    let mut below = |limit: usize| random.below(limit.max(1) as u64) as usize;
    let body = answer.windows(4).position(|window| window == b"\r\n\r\n").map_or(0, |at| at + 4);
    let from = if below(5) == 0 { 0 } else { body.min(answer.len()) };
    let at = from + below(answer.len() - from);
    let end = (at + below(8)).min(answer.len());
    match below(5) {
        0 if at < answer.len() => answer[at] ^= 1 << below(8),
        1 => answer.truncate(at),
        2 => drop(answer.splice(at..end, STRANGE[below(STRANGE.len())].bytes())),
        3 => {
            // A digit becomes a strange number.
            let digits: Vec<usize> = (from..answer.len()).filter(|&at| answer[at].is_ascii_digit()).collect();
            if let Some(&at) = digits.get(below(digits.len())) {
                drop(answer.splice(at..=at, STRANGE[1 + below(5)].bytes()));
            }
        }
        _ => {
            let part = answer[at..end].to_vec();
            drop(answer.splice(at..at, part.repeat(1 + below(50))));
        }
    }
}

/// Asks a real node the same, and returns what it answers within a second.
fn ask(port: u16, request: &[u8]) -> Vec<u8> {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(1))).unwrap();
    stream.write_all(request).unwrap();
    stream.shutdown(std::net::Shutdown::Write).unwrap();
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer);
    answer
}

#[test]
fn real_answers_with_random_damage_crash_no_client() {
    let random = Arc::new(Mutex::new(Random::new()));
    let cluster = Cluster::start(1);
    for name in ["0_a", "1_b", "dir/2_c"] {
        cluster.put(&format!("s4://b/in/{name}"), name.as_bytes());
    }
    cluster.ok(&["map", "s4://b/in/", "s4://out/", "cat"]);
    cluster.fails(1, &["map", "--keep-going", "s4://b/in/", "s4://bad/", "echo no >&2; false"]);
    let id = cluster.ok(&["jobs"]).lines().last().unwrap().split(' ').next().unwrap().to_owned();
    let commands: [(&str, &[&str]); 9] = [
        ("GET /v1/list?prefix=b/in/&recursive=true", &["ls", "-r", "s4://b/in/"]),
        ("GET /v1/list?prefix=b/in/&recursive=true", &["cp", "-r", "s4://b/in/", "to"]),
        ("GET /v1/keys/b/in/0_a", &["cp", "s4://b/in/0_a", "-"]),
        ("GET /v1/health", &["health"]),
        ("GET /v1/status?samples=1", &["top", "--once"]),
        ("GET /v1/jobs", &["jobs"]),
        ("GET /v1/jobs/ID/events", &["wait", "ID"]),
        ("GET /v1/jobs/ID/logs", &["logs", "ID"]),
        ("POST /v1/connect", &["cp", "-r", "s4://b/in/", "to"]),
    ];
    let port = cluster.port(0);
    let digest = cluster.digest();
    for round in 0..90 {
        let (route, args) = commands[round % commands.len()];
        let lied = route.split(['?', ' ']).nth(1).unwrap().replace("ID", &id);
        let (digest, random) = (digest.clone(), random.clone());
        let liars = Liars::start(1, move |head| {
            // The request as the real node takes it; the keys that are asked for over a connection are known.
            let (first, rest) = head.split_once("\r\n").unwrap();
            let headers: String = rest
                .lines()
                .filter(|line| {
                    !line.is_empty()
                        && !["s4-cluster", "host", "upgrade", "connection", "content-length"]
                            .contains(&line.split(':').next().unwrap())
                })
                .map(|line| format!("{line}\r\n"))
                .collect();
            let how = match first.contains("/v1/connect") {
                true => "connection: upgrade\r\nupgrade: s4-frames",
                false => "connection: close",
            };
            let head = format!("{first}\r\nhost: 127.0.0.1\r\n{how}\r\ns4-cluster: {digest}\r\n{headers}\r\n");
            let gets = ["0_a", "1_b", "dir/2_c"].map(|name| message(&format!(r#"{{"get":{{"key":"b/in/{name}"}}}}"#)));
            let asked = if first.contains("/v1/connect") { gets.concat() } else { Vec::new() };
            let mut answer = ask(port, &[head.as_bytes(), &asked].concat());
            if first.contains(&lied) {
                let mut random = random.lock().unwrap();
                (0..=random.below(3)).for_each(|_| mutate(&mut answer, &mut random));
            }
            answer
        });
        let args: Vec<&str> = args.iter().map(|arg| if *arg == "ID" { &*id } else { arg }).collect();
        std::fs::create_dir(liars.dir.path().join("to")).unwrap();
        let output = liars.run(&args);
        assert!(
            output.status.code().is_some_and(|code| code <= 1),
            "{args:?}: {} {}",
            output.status,
            text(&output.stderr)
        );
        let made = files(liars.dir.path());
        // A damaged listing may name another key of the bucket, but nothing elsewhere.
        assert!(made.len() <= 5 && made.iter().all(|path| path.starts_with("to")), "round {round}: {made:?}");
    }
}
