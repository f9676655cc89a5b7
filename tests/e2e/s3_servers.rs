//! Servers of S3 for tests, on loopback and free ports, and a proxy that makes faults in between. The servers come from
//! the Python packages that scripts/test.sh installs; where one is missing, its tests say that they are skipped.

use crate::harness::{Port, eventually};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};

/// The credentials that SeaweedFS knows. moto takes any.
pub const ACCESS_KEY: &str = "AKIDOFTESTS";
pub const SECRET_KEY: &str = "secretkeyoftheteststhatnolognames";

/// A running server, which ends with this.
pub struct S3Server {
    child: Child,
    port: Port,
    _dir: tempfile::TempDir,
    /// The other ports of SeaweedFS.
    others: Vec<Port>,
}

fn venv(program: &str) -> Option<PathBuf> {
    let target = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/s3-servers/bin").join(program);
    let found = std::env::var_os("S4_S3_SERVERS").map(|dir| PathBuf::from(dir).join(program)).unwrap_or(target);
    let found = found.is_file().then_some(found);
    if found.is_none() {
        println!("skipped: no {program}; scripts/test.sh installs it");
    }
    found
}

impl S3Server {
    /// `None` where it is not installed.
    pub fn moto() -> Option<Self> {
        let program = venv("moto_server")?;
        let (port, dir) = (Port::claim(), tempfile::tempdir().unwrap());
        let mut command = Command::new(program);
        command.args(["-H", "127.0.0.1", "-p", &port.number().to_string()]);
        Some(Self::start(command, port, dir, Vec::new()))
    }

    /// Checks signatures. `None` where it is not installed.
    pub fn seaweed() -> Option<Self> {
        let program = venv("weed")?;
        let (port, dir) = (Port::claim(), tempfile::tempdir().unwrap());
        let others: Vec<Port> = (0..7).map(|_| Port::claim()).collect();
        let number = |at: usize| others[at].number().to_string();
        let identity = format!(
            r#"{{"identities":[{{"name":"t","credentials":[{{"accessKey":"{ACCESS_KEY}","secretKey":"{SECRET_KEY}"}}],"actions":["Admin","Read","Write","List","Tagging"]}}]}}"#
        );
        std::fs::write(dir.path().join("s3.json"), identity).unwrap();
        let config = dir.path().join("s3.json");
        let mut command = Command::new(program);
        command.args(["server", "-ip=127.0.0.1", "-ip.bind=127.0.0.1", "-filer", "-s3", "-master.telemetry=false"]);
        command.args(["-s3.port.iceberg=0", "-s3.port.lance=0", "-volume.max=20", "-master.volumeSizeLimitMB=64"]);
        command.arg(format!("-dir={}", dir.path().display())).arg(format!("-s3.config={}", config.display()));
        command.arg(format!("-s3.port={}", port.number()));
        for (at, name) in [
            "master.port",
            "master.port.grpc",
            "volume.port",
            "volume.port.grpc",
            "filer.port",
            "filer.port.grpc",
            "s3.port.grpc",
        ]
        .iter()
        .enumerate()
        {
            command.arg(format!("-{name}={}", number(at)));
        }
        Some(Self::start(command, port, dir, others))
    }

    /// True if it keeps checksums of what was written in parts.
    pub fn knows_parts(&self) -> bool {
        !self.others.is_empty()
    }

    /// Every server that is there.
    pub fn all() -> impl Iterator<Item = Self> {
        [Self::moto as fn() -> Option<Self>, Self::seaweed].into_iter().filter_map(|start| start())
    }

    fn start(mut command: Command, port: Port, dir: tempfile::TempDir, others: Vec<Port>) -> Self {
        command.current_dir(dir.path()).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        // SAFETY: prctl is safe between fork and exec; the server ends with the test, also if that is killed.
        let child = unsafe {
            command.pre_exec(|| {
                nix::libc::prctl(nix::libc::PR_SET_PDEATHSIG, nix::libc::SIGKILL);
                Ok(())
            })
        };
        let child = child.spawn().expect("a server of S3");
        let server = Self { child, port, _dir: dir, others };
        eventually("the server of S3 makes a bucket", || server.s3(&["mb"]).then_some(()));
        server
    }

    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port.number())
    }

    pub fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port.number())
    }

    /// Makes the bucket `data`, once the server answers: by HTTP as curl signs it.
    fn s3(&self, _: &[&str]) -> bool {
        let status = self.curl(&["-X", "PUT"], "data");
        status.starts_with("200") || status.starts_with("409")
    }

    /// The status and body of a signed request.
    pub fn curl(&self, args: &[&str], path: &str) -> String {
        let user = format!("{ACCESS_KEY}:{SECRET_KEY}");
        let mut command = Command::new("curl");
        command.args([
            "-s",
            "-m",
            "10",
            "--path-as-is",
            "--aws-sigv4",
            "aws:amz:us-east-1:s3",
            "--user",
            &user,
            "-w",
            "\n%{http_code}",
        ]);
        let output = command.args(args).arg(format!("{}/{path}", self.url())).output().expect("curl");
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let (body, status) = text.rsplit_once('\n').unwrap_or(("", &text));
        format!("{status} {body}")
    }

    /// The ids of uploads in parts that were begun and have not ended.
    pub fn unfinished_uploads(&self) -> usize {
        self.curl(&[], "data?uploads=").matches("<UploadId>").count()
    }

    /// The keys in the bucket, in their order.
    pub fn keys(&self) -> Vec<String> {
        let listing = self.curl(&[], "data?list-type=2");
        listing.split("<Key>").skip(1).filter_map(|rest| Some(rest.split_once("</Key>")?.0.to_owned())).collect()
    }
}

impl Drop for S3Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// What the proxy does with a request.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Fault {
    /// Answers 503 SlowDown itself.
    Busy,
    /// Answers 403 ExpiredToken itself.
    Expired,
    /// Closes the connection without an answer.
    Reset,
    /// Passes half of the answer's body on, and closes the connection.
    Cut,
    /// Changes a byte of the answer's body.
    Garble,
    /// Passes the request on, and closes the connection instead of answering.
    LoseAnswer,
    /// Changes a byte of the request's body.
    GarbleRequest,
}

/// Decides on each request, by its head.
type Decide = dyn FnMut(&str) -> Option<Fault> + Send;

/// A proxy in front of a server, one request per connection.
pub struct Proxy {
    port: u16,
    decide: Arc<Mutex<Box<Decide>>>,
    seen: Arc<Mutex<Vec<String>>>,
}

impl Proxy {
    pub fn before(server: &S3Server, decide: impl FnMut(&str) -> Option<Fault> + Send + 'static) -> Self {
        Self::to(server.address(), decide)
    }

    pub fn to(address: String, decide: impl FnMut(&str) -> Option<Fault> + Send + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let (port, to) = (listener.local_addr().unwrap().port(), address);
        let decide: Arc<Mutex<Box<Decide>>> = Arc::new(Mutex::new(Box::new(decide)));
        let seen: Arc<Mutex<Vec<String>>> = Arc::default();
        let (deciding, noting) = (decide.clone(), seen.clone());
        std::thread::spawn(move || {
            for client in listener.incoming().flatten() {
                let (to, decide, seen) = (to.clone(), deciding.clone(), noting.clone());
                // A client that goes away is no matter.
                std::thread::spawn(move || _ = exchange(client, &to, &decide, &seen));
            }
        });
        Self { port, decide, seen }
    }

    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// From now on nothing is wrong.
    pub fn heal(&self) {
        *self.decide.lock().unwrap() = Box::new(|_| None);
    }

    /// The heads of the requests so far.
    pub fn seen(&self) -> Vec<String> {
        self.seen.lock().unwrap().clone()
    }
}

/// A message: its head, with the empty line, and its body.
pub struct Message {
    pub head: String,
    pub body: Vec<u8>,
}

pub fn receive(from: &mut impl BufRead, has_body: bool) -> std::io::Result<Message> {
    let mut head = String::new();
    loop {
        let mut line = Vec::new();
        if from.read_until(b'\n', &mut line)? == 0 {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        }
        head.push_str(&String::from_utf8_lossy(&line));
        if line == b"\r\n" {
            break;
        }
    }
    let lower = head.to_ascii_lowercase();
    let header =
        |name: &str| lower.lines().find_map(|line| line.strip_prefix(name)).map(|value| value.trim().to_owned());
    let mut body = Vec::new();
    match header("content-length:").and_then(|len| len.parse::<u64>().ok()) {
        Some(len) if has_body => _ = from.take(len).read_to_end(&mut body)?,
        None if has_body && header("transfer-encoding:").is_some() => _ = from.read_to_end(&mut body)?,
        _ => {}
    }
    Ok(Message { head, body })
}

/// The head, with `connection: close` in it.
fn closing(head: &str) -> String {
    let kept: Vec<&str> =
        head.trim_end().lines().filter(|line| !line.to_ascii_lowercase().starts_with("connection:")).collect();
    format!("{}\r\nconnection: close\r\n\r\n", kept.join("\r\n"))
}

fn exchange(
    client: TcpStream,
    to: &str,
    decide: &Mutex<Box<Decide>>,
    seen: &Mutex<Vec<String>>,
) -> std::io::Result<()> {
    let mut reader = BufReader::new(client.try_clone()?);
    let mut request = receive(&mut reader, true)?;
    let first = request.head.lines().next().unwrap_or_default().to_owned();
    let fault = (decide.lock().unwrap())(&request.head);
    seen.lock().unwrap().push(request.head.clone());
    let mut client = client;
    let refusal = |status: &str, code: &str| {
        let body = format!("<Error><Code>{code}</Code><Message>as the test wants</Message></Error>");
        format!("HTTP/1.1 {status} x\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{body}", body.len())
    };
    match fault {
        Some(Fault::Busy) => return client.write_all(refusal("503", "SlowDown").as_bytes()),
        Some(Fault::Expired) => return client.write_all(refusal("403", "ExpiredToken").as_bytes()),
        Some(Fault::Reset) => return client.shutdown(Shutdown::Both),
        Some(Fault::GarbleRequest) => garble(&mut request.body),
        Some(Fault::Cut | Fault::Garble | Fault::LoseAnswer) | None => {}
    }
    let server = TcpStream::connect(to)?;
    let mut sending = server.try_clone()?;
    sending.write_all(closing(&request.head).as_bytes())?;
    sending.write_all(&request.body)?;
    let mut answer = receive(&mut BufReader::new(server), !first.starts_with("HEAD "))?;
    match fault {
        Some(Fault::LoseAnswer) => return client.shutdown(Shutdown::Both),
        Some(Fault::Garble) => garble(&mut answer.body),
        Some(Fault::Cut) => answer.body.truncate(answer.body.len() / 2),
        _ => {}
    }
    client.write_all(closing(&answer.head).as_bytes())?;
    client.write_all(&answer.body)?;
    client.shutdown(Shutdown::Write)?;
    // The client closes first, so that nothing it has sent resets what it has not read.
    std::io::copy(&mut reader, &mut std::io::sink()).map(drop)
}

fn garble(bytes: &mut [u8]) {
    let middle = bytes.len() / 2;
    if let Some(byte) = bytes.get_mut(middle) {
        *byte ^= 1;
    }
}
