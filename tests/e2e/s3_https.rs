//! S3 over HTTPS, with a certificate of an authority that the test makes.

use crate::harness::{Cluster, text};
use crate::s3_cloud::{Home, one_line};
use crate::s3_copy::{bytes, with_credentials};
use crate::s3_servers::{ACCESS_KEY, S3Server, SECRET_KEY};
use std::io::{BufRead, BufReader};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};

/// Takes TLS off, and passes everything on to the port that is its first argument. Prints its own port.
const TLS: &str = "
import asyncio, ssl, sys
async def pipe(reader, writer):
    try:
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
    except OSError:
        pass
    writer.close()
async def serve(reader, writer):
    there, back = await asyncio.open_connection('127.0.0.1', int(sys.argv[1]))
    await asyncio.gather(pipe(reader, back), pipe(there, writer))
async def main():
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*sys.argv[2:])
    server = await asyncio.start_server(serve, '127.0.0.1', 0, ssl=context)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()
asyncio.run(main())
";

/// Makes an authority, and a certificate of 127.0.0.1.
const CERTIFICATES: &str = "
cat > made.cnf <<'EOS'
[req]
distinguished_name = name
[name]
[authority]
basicConstraints = critical,CA:TRUE
keyUsage = keyCertSign
[server]
subjectAltName = IP:127.0.0.1
EOS
new='req -config made.cnf -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes'
openssl $new -x509 -extensions authority -days 2 -subj /CN=authority -keyout authority.key -out authority.pem
openssl $new -subj /CN=server -keyout server.key -out server.csr
openssl x509 -req -in server.csr -CA authority.pem -CAkey authority.key -CAcreateserial -days 2 -extfile made.cnf \
    -extensions server -out server.pem
";

/// A server of S3 that is reached by HTTPS.
struct Https {
    child: Child,
    port: u16,
    home: Home,
    _server: S3Server,
}

impl Https {
    fn start() -> Option<Self> {
        let (server, home) = (S3Server::seaweed()?, Home::new());
        let made = Command::new("bash").args(["-euc", CERTIFICATES]).current_dir(home.path()).output().unwrap();
        assert!(made.status.success(), "{}", text(&made.stderr));
        let address = server.address();
        let mut command = Command::new("python3");
        command.args(["-c", TLS, address.rsplit(':').next().unwrap(), "server.pem", "server.key"]);
        command.current_dir(home.path()).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
        // SAFETY: prctl is safe between fork and exec; the child ends with the test, also if that is killed.
        let command = unsafe {
            command.pre_exec(|| {
                nix::libc::prctl(nix::libc::PR_SET_PDEATHSIG, nix::libc::SIGKILL);
                Ok(())
            })
        };
        let mut child = command.spawn().expect("python3 runs");
        let mut port = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut port).unwrap();
        Some(Self { child, port: port.trim().parse().expect("a port"), home, _server: server })
    }

    fn url(&self) -> String {
        format!("https://127.0.0.1:{}", self.port)
    }

    fn authority(&self) -> String {
        self.home.path().join("authority.pem").to_str().unwrap().to_owned()
    }
}

impl Drop for Https {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

const OWN: [(&str, &str); 2] = [("AWS_ACCESS_KEY_ID", ACCESS_KEY), ("AWS_SECRET_ACCESS_KEY", SECRET_KEY)];

#[test]
fn an_object_comes_over_https_from_a_server_whose_authority_is_known() {
    let Some(server) = Https::start() else { return };
    let (home, url, authority) = (&server.home, server.url(), server.authority());
    home.write(".aws/config", &format!("[profile private]\nca_bundle = {authority}\n"));
    let large = bytes(40_000_000);
    for (number, known) in [("AWS_CA_BUNDLE", &*authority), ("SSL_CERT_FILE", &authority), ("AWS_PROFILE", "private")]
        .into_iter()
        .enumerate()
    {
        let environment = [&OWN[..], &[known]].concat();
        home.works(&url, &environment, &[]);
        let object = format!("s3://data/large-{number}");
        let put = home.run(&environment, &["put", &object, "--endpoint-url", &url], &large);
        assert!(put.status.success(), "{known:?}: {}", text(&put.stderr));
        let got = home.run(&environment, &["get", &object, "--endpoint-url", &url], b"");
        assert!(got.status.success() && got.stdout == large, "{known:?}: {}", text(&got.stderr));
    }
    let not_trusted = |url: &str, more: &[(&str, &str)]| {
        one_line(&home.run(&[&OWN[..], more].concat(), &["get", "s3://data/x", "--endpoint-url", url], b""))
    };
    let told = not_trusted(&url, &[]);
    let why =
        "s3://data/x: the server's certificate is not trusted: UnknownIssuer; AWS_CA_BUNDLE or SSL_CERT_FILE names";
    assert!(told.contains(why), "{told}");
    let other_name = format!("https://localhost:{}", server.port);
    let told = not_trusted(&other_name, &[("AWS_CA_BUNDLE", &authority)]);
    assert!(told.contains("the server's certificate is not trusted: ") && told.contains("localhost"), "{told}");
    home.write("none.pem", "no certificate\n");
    let none = home.path().join("none.pem");
    let told = not_trusted(&url, &[("AWS_CA_BUNDLE", none.to_str().unwrap())]);
    assert!(told.contains("none.pem: no certificates of authorities can be read: it has none"), "{told}");
    let told = not_trusted(&url, &[("AWS_CA_BUNDLE", "/absent/authorities")]);
    assert!(told.contains("/absent/authorities: No such file"), "{told}");
}

#[test]
fn copies_go_over_https_if_the_nodes_know_the_authority() {
    let Some(server) = Https::start() else { return };
    let (url, authority) = (server.url(), server.authority());
    let knowing = Cluster::with_environment(2, &[("AWS_CA_BUNDLE", &authority)]);
    let copy = |cluster: &Cluster, from: &str, to: &str| {
        let args = ["cp", "-r", "--send-credentials", "--endpoint-url", &url, from, to];
        with_credentials(cluster.command(&args)).output().unwrap()
    };
    for number in 0..10 {
        knowing.put(&format!("s4://out/{number}_f"), format!("{number}\n").as_bytes());
    }
    knowing.put("s4://out/large", &bytes(20_000_000));
    for (from, to) in [("s4://out/", "s3://data/src/"), ("s3://data/src/", "s4://in/")] {
        let copied = copy(&knowing, from, to);
        assert!(copied.status.success(), "{}", text(&copied.stderr));
    }
    assert_eq!(knowing.get("s4://in/large"), bytes(20_000_000));
    let other = Cluster::start(2);
    let refused = copy(&other, "s3://data/src/", "s4://in/");
    let told = text(&refused.stderr);
    assert_eq!(refused.status.code(), Some(1), "{told}");
    assert!(told.contains("the server's certificate is not trusted: UnknownIssuer"), "{told}");
    assert!(other.fails(1, &["ls", "s4://"]).contains("nothing found"));
}
