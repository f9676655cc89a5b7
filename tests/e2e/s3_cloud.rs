//! For tests of credentials: services of clouds, which answer as a closure says; homes with `.aws`; and a server of S3 that shows
//! who asks it.

use crate::door::Door;
use crate::harness::{Cluster, text};
use crate::programs::program;
use crate::s3_servers::{Fault, Proxy, receive};
use std::io::{BufReader, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

/// Status and body of the answer to a request, of which it gets head and body.
type Answer = dyn Fn(&str) -> (u16, String) + Send + Sync;

pub struct Service {
    port: u16,
    seen: Arc<Mutex<Vec<String>>>,
}

impl Service {
    pub fn start(answer: impl Fn(&str) -> (u16, String) + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let (answer, seen): (Arc<Answer>, Arc<Mutex<Vec<String>>>) = (Arc::new(answer), Arc::default());
        let noting = seen.clone();
        std::thread::spawn(move || {
            for client in listener.incoming().flatten() {
                let (answer, seen) = (answer.clone(), noting.clone());
                // A client that goes away is no matter.
                std::thread::spawn(move || _ = exchange(client, &*answer, &seen));
            }
        });
        Self { port, seen }
    }

    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// The requests so far.
    pub fn seen(&self) -> Vec<String> {
        self.seen.lock().unwrap().clone()
    }
}

fn exchange(mut client: TcpStream, answer: &Answer, seen: &Mutex<Vec<String>>) -> std::io::Result<()> {
    let mut reader = BufReader::new(client.try_clone()?);
    let request = receive(&mut reader, true)?;
    let request = format!("{}{}", request.head, String::from_utf8_lossy(&request.body));
    seen.lock().unwrap().push(request.clone());
    let (status, body) = answer(&request);
    let len = body.len();
    write!(client, "HTTP/1.1 {status} x\r\ncontent-length: {len}\r\nconnection: close\r\n\r\n{body}")?;
    client.shutdown(Shutdown::Write)?;
    // The client closes first.
    std::io::copy(&mut reader, &mut std::io::sink()).map(drop)
}

/// Every secret of these tests has these words.
pub const SECRET: &str = "thatnolognames";
/// The keys and the token of a session with a role.
pub const ROLE_KEY: &str = "ASIAOFTHEROLEOFTESTS";
pub const ROLE_SECRET: &str = "secretkeyoftherolethatnolognames";
pub const TOKEN: &str = "tokenoftherole/thatnolognames==";
/// What a service of a cloud wants to see.
pub const BEARER: &str = "bearerthatnolognames";
pub const ROLE: &str = "arn:aws:iam::123456789012:role/of-tests";

/// A directory with `.aws`, and programs whose home it is. They have no other credentials than those that a test gives them.
pub struct Home(tempfile::TempDir);

impl Home {
    pub fn new() -> Self {
        let dir = tempfile::Builder::new().prefix("s4-test-").tempdir().unwrap();
        std::fs::create_dir(dir.path().join(".aws")).unwrap();
        Self(dir)
    }

    pub fn path(&self) -> &Path {
        self.0.path()
    }

    /// Writes a file, and returns its path.
    pub fn write(&self, file: &str, content: &str) -> String {
        let path = self.0.path().join(file);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, content).unwrap();
        path.to_str().unwrap().to_owned()
    }

    pub fn run(&self, environment: &[(&str, &str)], args: &[&str], input: &[u8]) -> Output {
        let mut command = Command::new(program("s4-s3"));
        for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("AWS_")) {
            command.env_remove(name);
        }
        command.env("HOME", self.0.path()).env("AWS_EC2_METADATA_DISABLED", "true").envs(environment.iter().copied());
        command.args(args).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        // It may end before it has read everything.
        let _ = child.stdin.take().unwrap().write_all(input);
        child.wait_with_output().unwrap()
    }

    /// An object is put and got.
    pub fn works(&self, url: &str, environment: &[(&str, &str)], options: &[&str]) {
        let options = [&["--endpoint-url", url], options].concat();
        self.works_with(environment, &options);
    }

    pub fn works_with(&self, environment: &[(&str, &str)], options: &[&str]) {
        static COUNT: AtomicUsize = AtomicUsize::new(0);
        let object = format!("s3://data/x{}", COUNT.fetch_add(1, Ordering::Relaxed));
        let put = self.run(environment, &[&["put", &object], options].concat(), b"hello");
        assert!(put.status.success(), "{environment:?} {options:?}: {}", text(&put.stderr));
        let got = self.run(environment, &[&["get", &object], options].concat(), b"");
        assert!(got.status.success() && got.stdout == b"hello", "{}", text(&got.stderr));
    }

    /// What is told of the failure. The server that is not there is never asked.
    pub fn fails(&self, environment: &[(&str, &str)], options: &[&str]) -> String {
        let options = [&["get", "s3://data/x", "--endpoint-url", "http://127.0.0.1:1"], options].concat();
        one_line(&self.run(environment, &options, b""))
    }
}

pub fn one_line(output: &Output) -> String {
    let told = text(&output.stderr);
    assert!(matches!(output.status.code(), Some(1 | 2)) && output.stdout.is_empty(), "{:?}: {told}", output.status);
    assert!(told.lines().count() == 1 && told.starts_with("s4-s3: "), "{told}");
    assert!(!told.contains(SECRET), "{told}");
    told
}

/// A server that checks signatures of the role, with a proxy before it that shows who has signed. s4's own door, since it takes
/// a session's token for what it is: SeaweedFS takes those alone that it has given itself.
pub struct RoleServer {
    pub proxy: Proxy,
    pub cluster: Cluster,
    _door: Door,
    _home: Home,
}

impl RoleServer {
    pub fn start(decide: impl FnMut(&str) -> Option<Fault> + Send + 'static) -> Option<Self> {
        let home = Home::new();
        let secret = home.write("secret", &format!("{ROLE_SECRET}\n"));
        let cluster = Cluster::with_options(1, &["--reserve", "0", "--secret", &secret]);
        // Where a client finds it by itself.
        std::fs::copy(&secret, cluster.dir().join("s4.conf.secret")).unwrap();
        cluster.put("s4://data/first", b"makes the bucket");
        let door = Door::with_options(&cluster, ROLE_SECRET, &["--secret", &secret])?;
        let proxy = Proxy::to(door.url.trim_start_matches("http://").to_owned(), decide);
        Some(Self { proxy, cluster, _door: door, _home: home })
    }

    pub fn of_role() -> Option<Self> {
        Self::start(|_| None)
    }

    pub fn url(&self) -> String {
        self.proxy.url()
    }

    /// Every request so far was signed with the keys of the role, and had its token.
    pub fn assert_asked_by_role(&self) {
        let seen = self.proxy.seen();
        assert!(!seen.is_empty());
        for head in seen {
            assert!(is_by(&head, ROLE_KEY) && head.contains(&format!("x-amz-security-token: {TOKEN}")), "{head}");
        }
    }
}

pub fn is_by(head: &str, key: &str) -> bool {
    head.contains(&format!("Credential={key}/"))
}

/// The keys of the role, as the services of containers and instances write them.
pub fn keys(expiration: &str) -> String {
    format!(
        r#"{{"Code":"Success","AccessKeyId":"{ROLE_KEY}","SecretAccessKey":"{ROLE_SECRET}","Token":"{TOKEN}","Expiration":"{expiration}"}}"#
    )
}

pub const LATER: &str = "2099-01-01T00:00:00Z";

/// The answer of STS to `operation`.
pub fn of_sts(operation: &str) -> String {
    format!(
        "<{operation}Response xmlns=\"https://sts.amazonaws.com/doc/2011-06-15/\"><{operation}Result><Credentials>\
         <AccessKeyId>{ROLE_KEY}</AccessKeyId><SecretAccessKey>{ROLE_SECRET}</SecretAccessKey>\
         <SessionToken>{TOKEN}</SessionToken><Expiration>{LATER}</Expiration></Credentials></{operation}Result></{operation}Response>"
    )
}

/// A refusal of STS, which says more than may be told.
pub fn refused_by_sts() -> String {
    format!("<ErrorResponse><Error><Code>AccessDenied</Code><Message>not {SECRET}</Message></Error></ErrorResponse>")
}

pub fn section(name: &str, id: &str, secret: &str) -> String {
    format!("[{name}]\naws_access_key_id = {id}\naws_secret_access_key = {secret}\n")
}
